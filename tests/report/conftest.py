"""A fit whose labels are markup, its report, and a browser to open it in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hostile import HOSTILE_GENES, HOSTILE_LINE, HOSTILE_LINEAGE, HOSTILE_SGRNA, Reported

import vihier
from vihier.report import write_report

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    folder = tmp_path_factory.mktemp("report")
    vihier.simulate(folder / "screen.parquet", genes=12, lines=9, lineages=3, sgrnas=3, seed=1)
    frame = pd.read_parquet(folder / "screen.parquet")
    for name, labels in {
        "hugo_symbol": HOSTILE_GENES,
        "depmap_id": (HOSTILE_LINE,),
        "lineage": (HOSTILE_LINEAGE,),
        "sgrna": (HOSTILE_SGRNA,),
    }.items():
        frame[name] = frame[name].astype(object).replace(dict(zip(sorted(frame[name].unique()), labels, strict=False)))
    screen = vihier.read_screen(frame)
    with vihier.fit(screen, draws=100, out=folder / "<i>fit.h5", device="cpu") as post:
        yield Reported(post, screen, write_report(post, folder / "report.html", screen=screen))


def _found(*names: str) -> str | None:
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Headless Chromium that logs what it says and what it asks the network for."""
    webdriver: Any = pytest.importorskip("selenium.webdriver")
    chromium = _found("chromium", "chromium-browser", "google-chrome", "chrome")
    driver = _found("chromedriver", "chromium.chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its chromedriver is installed: the report is not looked at in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = ("background-networking", "component-update", "sync", "gpu", "dev-shm-usage")
    for argument in ("headless", "no-sandbox", "no-first-run", *(f"disable-{name}" for name in quiet)):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.add_argument("--window-size=1280,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome
