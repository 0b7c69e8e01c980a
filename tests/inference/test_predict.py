"""Prior and posterior predictive rows, held to moments that can be written down."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from ragged import ragged_frame, ragged_screen

import vihier
from vihier.errors import VihierError
from vihier.inference import predictor
from vihier.inference.predict import posterior_predictive, prior_predictive
from vihier.models.batch import Batch

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")


def nested(batch: Batch) -> None:
    """Level, gene and row, with unit variances 4, 1 and 0.25."""
    level = pyro.sample("level", dist.Normal(1.0, 2.0))
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-1):
            mu = pyro.sample("mu", dist.Normal(level, 1.0))
        with pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(mu[batch.gene], 0.5), obs=batch.lfc)


def test_prior_predictive_has_the_covariance_of_the_program_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = ragged_screen(sgrnas=(2, 5, 3))
    monkeypatch.setattr(predictor, "ELEMENTS_AT_ONCE", 1)  # one gene a block
    rows = prior_predictive(screen, nested, draws=1500, seed=1)
    assert rows.dims == ("chain", "draw", "row") and rows.shape == (1, 1500, screen.n_rows)
    assert rows["hugo_symbol"].to_numpy().tolist() == screen.index.genes[screen.gene].tolist()
    covariance = np.cov(rows.to_numpy()[0].T)
    same_gene = screen.gene[:, None] == screen.gene[None, :]
    expected = 4.0 + same_gene + 0.25 * np.eye(screen.n_rows)
    # A covariance of 1,500 draws of variance 5.25 has a standard error of at most 5.25 sqrt(2 / 1500) = 0.19.
    assert np.abs(covariance - expected).max() < 5 * 0.19
    assert np.abs(rows.mean(("chain", "draw")) - 1).max() < 5 * (5.25 / 1500) ** 0.5


def test_prior_predictive_follows_seed_and_overridden_priors() -> None:
    screen = ragged_screen()
    first, again, other = (prior_predictive(screen, nested, draws=5, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)
    far = prior_predictive(screen, nested, draws=50, priors={"level": "Normal(100, 1)"})
    assert abs(float(far.mean()) - 100) < 1
    assert np.isfinite(prior_predictive(screen, "additive", draws=3)).all()


def test_posterior_predictive_has_the_mean_of_the_posterior_and_the_noise_of_the_rows() -> None:
    screen = ragged_screen(sgrnas=(6, 8, 5), n_lines=3)
    with vihier.fit(screen, nested, guide="mean_field", draws=1000, quiet=True, max_steps=100) as fit:
        rows = posterior_predictive(fit, screen, model=nested)
        mu = fit.moments("mu")
        gene = screen.gene
        # 1,000 draws of sd 0.51: standard errors 0.016 and 0.011.
        assert np.abs(rows.mean(("chain", "draw")) - mu["mean"].to_numpy()[gene]).max() < 5 * 0.016
        expected = (0.25 + mu["sd"].to_numpy()[gene] ** 2) ** 0.5
        assert np.abs(rows.std(("chain", "draw")) - expected).max() < 5 * 0.011
        part = posterior_predictive(fit, screen.subset(genes=["GENE1"]), model=nested, draws=7)
        assert part.shape[1] == 7 and set(part["hugo_symbol"].to_numpy()) == {"GENE1"}
        with pytest.raises(VihierError, match="its hugo_symbol is 'GENE9' here and 'GENE0' in"):
            other = ragged_frame(sgrnas=(6,), n_lines=3).replace({"hugo_symbol": {"GENE0": "GENE9"}})
            posterior_predictive(fit, vihier.read_screen(other), model=nested)
        for draws in (0, 1001):
            with pytest.raises(VihierError, match=f"draws {draws}"):
                posterior_predictive(fit, screen, model=nested, draws=draws)
        with pytest.raises(VihierError, match="wrong model"):
            posterior_predictive(fit, screen, model="additive")


def test_posterior_predictive_knows_the_models_of_the_package() -> None:
    screen = ragged_screen()
    with vihier.fit(screen, "additive", guide="mean_field", draws=100, quiet=True, max_steps=20) as fit:
        rows = posterior_predictive(fit, screen)
    residual = screen.lfc - rows.mean(("chain", "draw")).to_numpy()
    assert residual.std() < 0.55 < screen.lfc.std()  # the noise it was made with is 0.5, the genes differ by 0.2
