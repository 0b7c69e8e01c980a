"""Draw the figures of docs/plots.md with the commands that it shows, from a fit of Avana and KY.

Prints JSON: each file and its size. A figure must stay below 100 kB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from run_record import SHARED_DATA, existing
from small_png import write_small

from vihier.cli import main as vihier

LARGEST = 100_000
# Kind, arguments, dots per inch. FIT, SCREEN and CONTROLS stand for files.
FIGURES: dict[str, tuple[list[str], int]] = {
    "heatmap.png": (["FIT", "heatmap"], 80),
    "gene-BRAF.png": (["FIT", "gene", "--gene", "BRAF", "--screen", "SCREEN"], 90),
    "lineages-BRAF.png": (["FIT", "lineages", "--gene", "BRAF"], 120),
    "volcano.png": (["FIT", "volcano", "--lineage", "skin", "CONTROLS"], 120),
    "controls.png": (["FIT", "controls", "CONTROLS"], 120),
    "lines.png": (["SCREEN", "lines", "--measure", "nnmd", "CONTROLS"], 80),
    "predictive.png": (["FIT", "predictive", "--screen", "SCREEN"], 120),
    "shrinkage.png": (["FIT", "shrinkage", "--screen", "SCREEN"], 120),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fit", type=Path, help="posterior file of Avana and KY")
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "avana_ky.parquet", help="table of the two screens")
    parser.add_argument("--gene-sets", type=Path, default=SHARED_DATA / "gene_sets", help="folder of reference genes")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="folder to write to")
    return parser.parse_args()


def main() -> int:
    """Draw, shrink, print."""
    given = arguments()
    sets = existing(given.gene_sets, "reference gene sets")
    controls = [
        *("--essential", str(sets / "AchillesCommonEssentialControls.csv")),
        *("--nonessential", str(sets / "AchillesNonessentialControls.csv")),
    ]
    files = {
        "FIT": [str(existing(given.fit, "posterior"))],
        "SCREEN": [str(existing(given.data, "screen data"))],
        "CONTROLS": controls,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (words, dpi) in FIGURES.items():
            drawn = Path(folder) / name
            command = [part for word in words for part in files.get(word, [word])]
            with redirect_stdout(sys.stderr):
                status = vihier(["plot", *command, "--out", str(drawn), "--dpi", str(dpi)])
            if status:
                return status
            write_small(drawn, given.out / name)
            record[name] = (given.out / name).stat().st_size
    print(json.dumps(record, indent=2))
    return 0 if max(record.values()) < LARGEST else 1


if __name__ == "__main__":
    sys.exit(main())
