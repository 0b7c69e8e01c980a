"""Cell statistics against pandas, and where a difference of large sums would lose its digits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vihier.screen import cell_statistics, read_screen


def ragged_table(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size = 400
    table = pd.DataFrame({"sgrna": rng.integers(12, size=size), "depmap_id": rng.integers(7, size=size)})
    return table.assign(hugo_symbol="g" + (11 - table["sgrna"] // 3).astype(str), lfc=rng.normal(size=size) * 3).astype(
        {"sgrna": str, "depmap_id": str}
    )


@pytest.mark.parametrize("seed", range(3))
def test_cells_agree_with_pandas(seed: int) -> None:
    table = ragged_table(seed)
    screen = read_screen(table)
    cells = cell_statistics(screen)
    grouped = table.groupby(["sgrna", "depmap_id"])["lfc"]
    expected = pd.DataFrame({"n": grouped.size(), "mean": grouped.mean(), "ss": grouped.var(ddof=0) * grouped.size()})
    found = expected.loc[list(zip(screen.index.sgrnas[cells.sgrna], screen.index.lines[cells.line], strict=True))]
    assert cells.n_cells == len(expected)
    assert (cells.n == found["n"]).all()
    # Both sum a few dozen float64 of order 3: rounding is below 1e-13.
    np.testing.assert_allclose(cells.mean, found["mean"], rtol=0, atol=1e-13)
    np.testing.assert_allclose(cells.ss, found["ss"], rtol=1e-12, atol=1e-13)


def test_cells_are_in_canonical_order_and_typed() -> None:
    screen = read_screen(ragged_table(0))
    cells = cell_statistics(screen)
    gene = screen.index.gene_of_sgrna[cells.sgrna]
    assert (np.lexsort([cells.line, cells.sgrna, gene]) == np.arange(cells.n_cells)).all()
    assert (cells.sgrna.dtype, cells.line.dtype, cells.n.dtype) == (np.int32, np.int32, np.int32)
    assert (cells.mean.dtype, cells.ss.dtype) == (np.float64, np.float64)


def test_sum_of_squares_keeps_its_digits_far_from_zero() -> None:
    # sum(x^2) - n mean^2 would leave 16 - log10(400 / 1e-14) < 0 digits here.
    lfc = 19.0 + np.array([-1e-7, 0.0, 1e-7])
    table = pd.DataFrame({"sgrna": "s", "hugo_symbol": "g", "depmap_id": "c", "lfc": lfc})
    cells = cell_statistics(read_screen(table))
    # Near 19 float64 resolves 3.6e-15, which is 4e-8 of the deviations.
    np.testing.assert_allclose(cells.ss, [2e-14], rtol=2e-7)


def test_cell_of_one_row_has_no_spread() -> None:
    table = pd.DataFrame({"sgrna": ["s", "t"], "hugo_symbol": "g", "depmap_id": "c", "lfc": [1.25, -0.1]})
    cells = cell_statistics(read_screen(table))
    assert cells.n.tolist() == [1, 1]
    assert cells.mean.tolist() == [1.25, -0.1]
    assert cells.ss.tolist() == [0.0, 0.0]


def test_rows_and_cells_hold_the_same_total() -> None:
    screen = read_screen(ragged_table(1))
    cells = cell_statistics(screen)
    assert cells.n.sum() == screen.n_rows
    # The decomposition of the sum of squares about zero; 400 terms of order 9, rounding below 1e-11.
    assert (cells.ss + cells.n * cells.mean**2).sum() == pytest.approx((screen.lfc**2).sum(), abs=1e-10)
