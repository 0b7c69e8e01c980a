"""The real files: both libraries of counts give the reference table, a MAGeCK table what pandas gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.screen.importing import Centring, MappedFiles, Normalisation, import_chronos, import_mageck
from vihier.screen.importing.maps import read_genes

SHARED = Path(__file__).resolve().parents[4] / "shared"
DATA = SHARED / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no shared data beside the repository")
KEYS = ["screen", "sgrna", "replicate_id"]


def test_counts_of_two_libraries_give_the_reference_table(tmp_path: Path) -> None:
    out = tmp_path / "avana_ky.parquet"
    counts = DATA / "chronos_format/AvanaReadcounts.hdf5", DATA / "chronos_format/KYReadcounts.hdf5"
    report = import_chronos(
        MappedFiles(counts, screens=("broad", "sanger")),
        out,
        line_map=DATA / "lineage_map.csv",
        copy_number=DATA / "chronos_format/OmicsCNGene.hdf5",
    )
    assert report.n_rows == 575_693 and report.left_out["missing values"] == 731 + 476
    ours = pd.read_parquet(out).sort_values(KEYS, ignore_index=True)
    theirs = pd.read_parquet(DATA / "avana_ky.parquet").sort_values(KEYS, ignore_index=True)
    for name in theirs:
        if theirs[name].dtype.kind in "fi":
            # The same arithmetic in float64; the order of sums may differ in the last digits.
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-6, err_msg=name)
        else:
            assert (ours[name].to_numpy() == theirs[name].to_numpy()).all(), name


def test_a_real_count_table(tmp_path: Path) -> None:
    sheet = tmp_path / "samples.csv"
    rows = [f"{line}.{role},{line},{role},{line}" for line in ("HL60", "KBM7") for role in ("initial", "final")]
    sheet.write_text("sample,depmap_id,role,p_dna_batch\n" + "\n".join(rows) + "\n")
    counts = pd.read_csv(DATA / "counts/leukemia.csv").set_index("sgRNA")
    log = np.log2(counts.iloc[:, 1:] / counts.iloc[:, 1:].sum() * 1e6 + 1)
    out = tmp_path / "screen.parquet"
    import_mageck(DATA / "counts/leukemia.csv", sheet, out)
    table = pd.read_parquet(out).pivot_table(index="sgrna", columns="depmap_id", values="lfc")
    for line in ("HL60", "KBM7"):
        expected = (log[f"{line}.final"] - log[f"{line}.initial"])[table.index]
        np.testing.assert_allclose(table[line], expected, rtol=0, atol=1e-12)


def test_non_essential_genes_are_centred_above_the_median_of_all(tmp_path: Path) -> None:
    files, out = MappedFiles((DATA / "chronos_format/KYReadcounts.hdf5",)), tmp_path / "screen.parquet"
    medians = []
    for centring in (Centring("nonessential", read_genes(DATA / "gene_sets/NEGv1.txt")), Centring("median")):
        import_chronos(files, out, normalisation=Normalisation(centring=centring))
        medians.append(pd.read_parquet(out).groupby("replicate_id")["lfc"].median())
    assert medians[1].abs().max() < 1e-12
    # 323 of this screen's 833 genes are essential controls, which pull the median of all down in every replicate: by
    # 0.18 to 0.99 when this was written.
    assert medians[0].between(-1, -0.1).all()
