"""The documentation's examples run, its pages are all reached, and the site is built without a warning."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from documented import DOCS, ROOT, Shown, blocks, run_page

import vihier

PAGES = sorted(DOCS.glob("*.md"))
# Run here, in a folder with a small screen and its fit, and how much there is to run.
SIMPLE = {
    "quickstart.md": Shown(n_commands=8, n_programs=2),
    "program.md": Shown(n_commands=0, n_programs=2),
    "file.md": Shown(n_commands=0, n_programs=1),
    "trust.md": Shown(n_commands=2, n_programs=3),
    "genome.md": Shown(n_commands=8, n_programs=0),
    "report.md": Shown(n_commands=3, n_programs=1),
    "quality.md": Shown(n_commands=4, n_programs=1),
    "rows.md": Shown(n_commands=3, n_programs=1),
    "plots.md": Shown(n_commands=12, n_programs=1),
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a screen, its fit, and lists of control genes."""
    folder = tmp_path_factory.mktemp("docs")
    screen = vihier.simulate(folder / "screen.parquet", genes=12, lines=8, lineages=2, sgrnas=3, seed=3).table
    with vihier.fit(screen, draws=50, out=folder / "fit.h5", device="cpu", quiet=True) as post:
        by_mean = post.summary("effect_gene").sort_values("mean")["hugo_symbol"].tolist()
    (folder / "CEGv2.txt").write_text("\n".join(["GENE", *by_mean[:3]]))
    (folder / "NEGv1.txt").write_text("\n".join(["GENE", *by_mean[-3:]]))
    return folder


@pytest.fixture
def there(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for path in fitted.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.parametrize("name", SIMPLE)
def test_the_commands_and_programs_of_a_page_run(name: str, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "quickstart.md":  # it makes these itself
        (there / "fit.h5").unlink()
    page = DOCS / name
    if name in ("report.md", "plots.md"):
        # Genes and lineages by the names that a reader knows; here they are others.
        post = vihier.open_posterior("fit.h5")
        known = {"KRAS": post.labels("hugo_symbol")[0], "BRAF": post.labels("hugo_symbol")[1]}
        known["skin"] = post.labels("lineage")[0]
        text = (DOCS / name).read_text(encoding="utf-8")
        page = there / name
        page.write_text(re.sub("|".join(known), lambda match: known[match[0]], text), encoding="utf-8")
    assert run_page(page) == SIMPLE[name]


def test_every_page_with_something_to_run_is_run_by_a_test() -> None:
    tests = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    for page in PAGES:
        if any(blocks(page)):
            assert any(f'"{page.name}"' in text and "run_page" in text for text in tests.values()), page.name


def test_every_page_is_reached_and_every_link_leads_somewhere() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        assert config.count(f": {page.name}\n") == 1, f"{page.name} is not once in the nav of mkdocs.yml"
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (DOCS / target).is_file(), f"{page.name}: {target}"


def test_the_models_page_names_every_parameter() -> None:
    """Each site of each model stands in the page's formulas: mu_mu_alpha as \\mu_{\\mu\\alpha}, and so on."""
    from vihier.models.program import load_program, model_names

    page = re.sub(r"[^a-z]", "", (DOCS / "models.md").read_text(encoding="utf-8"))
    for name in model_names():
        source = Path(importlib.import_module(f"vihier.models.{name}").__file__ or "").read_text(encoding="utf-8")
        sites = set(re.findall(r'pyro\.sample\("(\w+)"', source))
        assert sites and load_program(name)
        for site in sites:
            assert site.replace("_", "") in page, f"{name}: {site}"


PACKAGES = ("vihier", "vihier.answers", "vihier.quality", "vihier.report", "vihier.plots")


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed; make docs installs it")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert {page.with_suffix(".html").name for page in PAGES} <= set(built)
    # Formulas are drawn by the browser, and nothing is fetched from elsewhere.
    assert "<math" in built["models.html"] and "arithmatex" not in built["models.html"]
    for name, html in built.items():
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"', html)
        assert not [url for pair in loaded for url in pair if url.startswith(("http", "//"))], name
    assert all(f'id="vihier-{command}"' in built["commands.html"] for command in ("fit", "report", "import-chronos"))
    # Every public name has an entry, by the module that it is in.
    for package in PACKAGES:
        module: Any = importlib.import_module(package)
        for name in module.__all__:
            home = package if package == "vihier" else getattr(getattr(module, name), "__module__", "")
            assert not home.startswith("vihier") or f'id="{home}.{name}"' in built["api.html"], f"{package}.{name}"
