"""The real tables, packed: two libraries of 575,693 rows, and the historic layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vihier.screen import read_screen
from vihier.store.pack import pack

SHARED = Path(__file__).resolve().parents[3] / "shared"
pytestmark = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no shared data beside the repository")


@pytest.mark.parametrize("name", ["avana_ky.parquet", "speclet_rows_27.csv", "speclet_rows_24.csv"])
def test_real_tables_are_the_screens_that_are_read(name: str, tmp_path: Path) -> None:
    expected = read_screen(SHARED / "data" / name)
    with pack(SHARED / "data" / name, tmp_path / "out.h5") as store:
        store.verify()
        assert store.hash == expected.hash and store.report == expected.report
        screen = store.to_screen()
    for values, others in [(screen.lfc, expected.lfc), (screen.replicate, expected.replicate)]:
        assert values.tobytes() == others.tobytes()
    for column, values in expected.covariates.items():
        np.testing.assert_array_equal(screen.covariates[column], values)
