"""A fit whose genes are streamed: what it holds equals what a fit in memory says, whatever is stored or made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vihier
from vihier.guides import gene_chains, structured_fit
from vihier.posterior.reader import Posterior
from vihier.store.pack import pack
from vihier.store.store import ScreenStore

DRAWS = 500


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A screen drawn from `additive`, some of its rows missing."""
    folder = tmp_path_factory.mktemp("screen")
    made = vihier.simulate(
        folder / "screen.parquet", genes=24, lines=60, lineages=4, sgrnas=4, replicates=2, seed=2, model="additive"
    )
    return made.table


@pytest.fixture(scope="module")
def store(table: Path) -> ScreenStore:
    """The same screen, packed."""
    return pack(table, table.with_suffix(".h5"))


@pytest.fixture(scope="module")
def whole(table: Path) -> Posterior:
    """The fit in memory, every draw swept."""
    return vihier.fit(table, draws=DRAWS, seed=0, quiet=True)


@pytest.fixture(scope="module")
def streamed(store: ScreenStore, tmp_path_factory: pytest.TempPathFactory) -> Posterior:
    """The streamed fit with draws over genes and lines made again."""
    return _streamed(store, tmp_path_factory.mktemp("fit") / "fit.h5", draws_disk_gb=0)


@pytest.fixture(scope="module")
def stored(store: ScreenStore, tmp_path_factory: pytest.TempPathFactory) -> Posterior:
    """The streamed fit with all draws stored."""
    return _streamed(store, tmp_path_factory.mktemp("fit") / "fit.h5", draws_disk_gb=1)


def _streamed(store: ScreenStore, out: Path, draws_disk_gb: float, **options: object) -> Posterior:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structured_fit, "SWEPT_UP_TO", 0)
        return vihier.fit(
            store, draws=DRAWS, seed=0, out=out, quiet=True, batch_size=7, draws_disk_gb=draws_disk_gb, **options
        )


pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")  # so few genes make the chains slow


@pytest.mark.parametrize("in_double", [7, 3])
def test_blocks_of_two_precisions_go_together(
    in_double: int, store: ScreenStore, whole: Posterior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 7 genes, or the last one of 3, are taken for such as single precision cannot resolve."""
    monkeypatch.setattr(gene_chains, "single_does", lambda chol: len(chol) != in_double)
    with _streamed(store, tmp_path / "fit.h5", draws_disk_gb=0) as mixed:
        one, other = (post.moments("effect") for post in (whole, mixed))
    # As of all in single precision, below.
    assert np.sqrt((((one["mean"] - other["mean"]) / one["sd"]).to_numpy() ** 2).mean()) < 0.12


def test_agrees_with_the_fit_in_memory(whole: Posterior, streamed: Posterior) -> None:
    """Both sample one posterior: means agree within Monte Carlo error, and so do sds."""
    for name in ("effect", "effect_dev", "gamma_dev", "alpha_dev", "beta_dev", "effect_gene"):
        one, other = (post.moments(name) for post in (whole, streamed))
        apart = (np.abs(one["mean"] - other["mean"]) / one["sd"]).to_numpy()
        # 500 draws that are partly correlated: 0.06 sd a mean, of some hundred independent ones the largest 0.25.
        assert np.sqrt((apart**2).mean()) < 0.12, name
        ratio = (other["sd"] / one["sd"]).to_numpy()
        assert abs(np.median(ratio) - 1) < 0.06, name
    for name in ("sigma", "sigma_mu_alpha", "sigma_sigma_alpha", "sigma_sigma_gamma"):
        one, other = (np.log(post.draws(name).to_numpy().ravel()) for post in (whole, streamed))
        # 16 chains of eight states each make the moments of what genes share: an error of about 0.15 sd.
        assert abs(one.mean() - other.mean()) < 0.5 * one.std(), name


def test_draws_made_again_are_those_that_would_be_stored(streamed: Posterior, stored: Posterior) -> None:
    """The noise is keyed to gene, line and draw, so that where draws are kept or made changes nothing."""
    assert set(streamed.attrs["regenerated"]) == {"gamma", "effect", "gamma_dev", "effect_dev"}
    assert stored.attrs["regenerated"] == []
    genes = list(stored.labels("hugo_symbol")[[3, 11]])
    for name in ("gamma", "effect", "gamma_dev", "effect_dev"):
        one, other = (post.draws(name, hugo_symbol=genes).to_numpy() for post in (streamed, stored))
        # The same float32 numbers, summed in another order: the raw table is 10 wide.
        np.testing.assert_allclose(one, other, atol=2e-5, err_msg=name)


def test_any_selection_gives_the_same_numbers(streamed: Posterior) -> None:
    """By gene, by line, alone or in company, in any order: bitwise."""
    genes, lines = streamed.labels("hugo_symbol"), streamed.labels("depmap_id")
    by_gene = streamed.draws("effect", hugo_symbol=genes[5]).to_numpy()[0, :, 0]
    by_line = streamed.draws("effect", depmap_id=[lines[41], lines[7]]).to_numpy()[0]
    np.testing.assert_array_equal(by_gene[:, [41, 7]], by_line[:, 5])
    mixed = streamed.draws("effect", hugo_symbol=[genes[9], genes[5]], depmap_id=[lines[41]]).to_numpy()[0]
    np.testing.assert_array_equal(mixed[:, 1, 0], by_gene[:, 41])


def test_means_over_lines_fit_the_draws_that_are_made_again(streamed: Posterior) -> None:
    """`effect_gene` is stored and `effect` is not, and yet one is the mean of the other, draw by draw."""
    gene = streamed.labels("hugo_symbol")[4]
    effect = streamed.draws("effect", hugo_symbol=gene).to_numpy()[0, :, 0]
    mean = streamed.draws("effect_gene", hugo_symbol=gene).to_numpy()[0, :, 0]
    np.testing.assert_allclose(effect.mean(1), mean, atol=1e-5)
    dev = streamed.draws("effect_dev", hugo_symbol=gene).to_numpy()[0, :, 0]
    np.testing.assert_allclose(dev, effect - mean[:, None], atol=1e-6)


def test_moments_are_those_of_the_draws(streamed: Posterior) -> None:
    """Moments come from a mixture, not from these draws: they differ by the draws' Monte Carlo error, 1/sqrt(500)."""
    for name in ("effect", "gamma_dev", "gamma"):
        draws = streamed.draws(name).to_numpy()[0].astype(np.float64)
        moments = streamed.moments(name)
        sd = draws.std(0)
        assert np.sqrt((((draws.mean(0) - moments["mean"]) / sd) ** 2).mean()) < 0.08, name
        assert abs(np.median(moments["sd"] / sd) - 1) < 0.04, name
        for statistic, at in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95)):
            error = (np.quantile(draws, at, axis=0) - moments[statistic].to_numpy()) / sd
            assert np.sqrt((error**2).mean()) < 0.16, (name, statistic)


def test_summaries_and_arviz_by_selection(streamed: Posterior) -> None:
    """A summary at the stored probability reads moments, at another draws; ArviZ gets the draws of a selection."""
    gene = streamed.labels("hugo_symbol")[0]
    assert len(streamed.summary("effect", hugo_symbol=gene)) == 60
    wide, narrow = (streamed.summary("effect", hugo_symbol=gene, prob=prob) for prob in (0.95, 0.5))
    assert (wide["hdi_97.5%"] - wide["hdi_2.5%"] > narrow["hdi_75%"] - narrow["hdi_25%"]).all()
    assert streamed.to_arviz(hugo_symbol=[gene]).posterior["effect"].shape == (1, DRAWS, 1, 60)


def test_one_thread_gives_what_two_give(store: ScreenStore, streamed: Posterior, tmp_path: Path) -> None:
    """Random numbers belong to blocks, and sums are in their order: bitwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        again = _streamed(store, tmp_path / "again.h5", draws_disk_gb=0)
    finally:
        torch.set_num_threads(threads)
    for name in ("sigma", "sigma_gamma", "alpha", "beta", "effect_gene"):
        np.testing.assert_array_equal(again.draws(name), streamed.draws(name), err_msg=name)
    np.testing.assert_array_equal(again.moments("effect")["q05"], streamed.moments("effect")["q05"])


@pytest.mark.parametrize("model", ["crossed", "gene_lineage"])
def test_other_models(store: ScreenStore, model: str, tmp_path: Path) -> None:
    """Their structures differ: a gene table of two locations, a table over genes and lineages, scales of lineages."""
    post = _streamed(store, tmp_path / "fit.h5", 0, model=model)
    gene = post.labels("hugo_symbol")[2]
    effect = post.draws("effect", hugo_symbol=gene).to_numpy()[0, :, 0]
    mean = post.draws("effect_gene", hugo_symbol=gene).to_numpy()[0, :, 0]
    np.testing.assert_allclose(effect.mean(1), mean, atol=1e-5)
    moments = post.moments("effect", hugo_symbol=gene)
    assert np.abs((effect.mean(0) - moments["mean"].to_numpy()[0]) / moments["sd"].to_numpy()[0]).max() < 0.35
