"""Counts to fold changes, against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vihier.errors import VihierError
from vihier.screen.importing.normalise import Batches, Centring, Normalisation, batch_means, centres, fold_changes

# Plasmid samples of two batches, then a replicate of each; sgRNAs are rows.
BATCHES = Batches(np.array([True, True, True, False, False]), np.array([0, 0, 1, 0, 1]), 2)
COUNTS = np.array([[1.0, 7.0, 3.0, 15.0, 3.0], [7.0, 1.0, 5.0, 1.0, 13.0]])
TOTALS = COUNTS.sum(axis=0)


def test_fold_changes_are_those_worked_out_by_hand() -> None:
    # log2(count + 1): pools of batch 0 are (1, 3) and (3, 1), mean 2; of batch 1 they are 2 and log2 6.
    lfc, low = fold_changes(COUNTS, TOTALS, BATCHES, Normalisation(reads_per_million=False))
    assert np.isnan(lfc[:, :3]).all() and not low.any()
    np.testing.assert_allclose(lfc[:, 3:], [[4 - 2, 2 - 2], [1 - 2, np.log2(14 / 6)]], rtol=1e-14)


def test_reads_per_million_do_not_depend_on_depth() -> None:
    how = Normalisation(pseudocount=1e-9)  # none to speak of
    once, _ = fold_changes(COUNTS, TOTALS, BATCHES, how)
    deeper = COUNTS * np.array([1, 2, 3, 5, 7])
    again, _ = fold_changes(deeper, deeper.sum(axis=0), BATCHES, how)
    np.testing.assert_allclose(again[:, 3:], once[:, 3:], rtol=1e-12)  # float64 rounding


def test_a_batch_is_no_other_batchs_baseline() -> None:
    changed = COUNTS.copy()
    changed[:, 2] *= 10  # the pool of batch 1
    how = Normalisation(reads_per_million=False)
    once, again = (fold_changes(counts, TOTALS, BATCHES, how)[0] for counts in (COUNTS, changed))
    np.testing.assert_array_equal(once[:, 3], again[:, 3])
    assert (once[:, 4] != again[:, 4]).all()


def test_without_plasmid_it_is_the_log_abundance() -> None:
    lfc, _ = fold_changes(COUNTS, TOTALS, BATCHES, Normalisation(reads_per_million=False, minus_plasmid=False))
    np.testing.assert_array_equal(lfc[:, 3:], np.log2(COUNTS[:, 3:] + 1))


def test_few_plasmid_reads_leave_a_value_out_in_that_batch_only() -> None:
    # Mean reads of the pools: batch 0 has 4 and 4, batch 1 has 3 and 5.
    lfc, low = fold_changes(COUNTS, TOTALS, BATCHES, Normalisation(reads_per_million=False, min_plasmid=3.5))
    assert low.tolist() == [[False] * 4 + [True], [False] * 5]
    assert np.isnan(lfc[:, 3:]).tolist() == [[False, True], [False, False]]


def test_missing_counts_are_missing_and_not_zero() -> None:
    counts = COUNTS.copy()
    counts[0, [0, 3]] = np.nan
    assert batch_means(counts, BATCHES)[0, 0] == 7.0  # of the pool that has it
    lfc, _ = fold_changes(counts, TOTALS, BATCHES, Normalisation())
    assert np.isnan(lfc[0, 3]) and not np.isnan(lfc[1, 3])
    counts[0, 1] = np.nan
    assert np.isnan(batch_means(counts, BATCHES)[0, 0])


def test_centres_are_medians_of_what_is_there() -> None:
    assert centres(np.array([[1.0, 5.0], [2.0, np.nan], [9.0, 7.0]])).tolist() == [2.0, 6.0]


def test_it_is_said_in_words() -> None:
    how = Normalisation(True, 0.5, True, 1.0, Centring("nonessential", frozenset({"ABCG8"})))
    assert how.describe() == (
        "log2(reads per million + 0.5) minus the mean of its plasmid batch where that batch has at least 1 reads per "
        "million of the sgRNA, minus the replicate's median over non-essential genes"
    )
    assert Normalisation(False, minus_plasmid=False).describe() == "log2(reads + 1)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normalisation(pseudocount=0.0),
        lambda: Normalisation(pseudocount=float("nan")),
        lambda: Normalisation(min_plasmid=-1.0),
        lambda: Centring("nonessential"),
        lambda: Centring("median", frozenset({"ABCG8"})),
        lambda: Centring("mean"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_done_is_refused(make: object) -> None:
    with pytest.raises(VihierError):
        make()  # type: ignore[operator]
