"""What is written of each draw."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from ragged import ragged_screen
from scipy.stats import halfnorm, norm

import vihier
from vihier.inference import draws
from vihier.models.batch import Batch

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")


def cells(batch: Batch) -> None:
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-2), pyro.plate("line", batch.n_lines, dim=-1):
            gamma = pyro.sample("gamma", dist.Normal(0.0, 0.5))
        with pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(gamma[batch.gene, batch.line], sigma), obs=batch.lfc)


@pytest.mark.parametrize("at_once", [draws.ELEMENTS_AT_ONCE, 60])
def test_log_p_is_the_joint_density_of_the_draw_however_it_is_cut_up(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With 60 elements at once: a block for each gene, and a few draws at a time.
    monkeypatch.setattr(draws, "ELEMENTS_AT_ONCE", at_once)
    screen = ragged_screen()
    fit = vihier.fit(screen, cells, guide="mean_field", draws=15, max_steps=9, batch_size=2, quiet=True)
    sigma, gamma = (fit.draws(name).values[0].astype(float) for name in ("sigma", "gamma"))
    expected = halfnorm.logpdf(sigma) + norm.logpdf(gamma, 0, 0.5).sum((1, 2))
    expected += norm.logpdf(screen.lfc, gamma[:, screen.gene, screen.line], sigma[:, None]).sum(1)
    # The fit is in float32: 1e-7 of some hundred terms of size one.
    np.testing.assert_allclose(fit.group("sample_stats")["log_p"].values[0], expected, atol=1e-3)


def test_the_mean_of_log_p_minus_log_q_is_the_elbo() -> None:
    screen = ragged_screen(sgrnas=(4, 7, 3))
    fit = vihier.fit(screen, cells, guide="mean_field", draws=1000, quiet=True)
    stats, history = fit.group("sample_stats"), fit.group("vi_history")
    elbo = history["elbo_per_row"].values[-300:] * screen.n_rows
    found = (stats["log_p"] - stats["log_q"]).values
    # One draw a step and a thousand here: the Monte Carlo error of either mean, five times over.
    error = np.hypot(elbo.std() / np.sqrt(len(elbo)), found.std() / np.sqrt(found.size))
    assert float(found.mean()) == pytest.approx(elbo.mean(), abs=5 * error)


def test_what_cannot_be_vectorised_is_done_draw_by_draw() -> None:
    def looks_at_its_value(draw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sign": draw["x"].new_ones(()) if float(draw["x"]) > 0 else -draw["x"].new_ones(())}

    found = draws.over_draws(looks_at_its_value, {"x": torch.tensor([-2.0, 3.0])})
    assert found["sign"].tolist() == [-1.0, 1.0]
