"""Priors by name: read, described, put in the place of the program's own, and refused when they cannot be."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
from ragged import log_joint, ragged_screen, site_values
from scipy.stats import norm

from vihier.errors import VihierError
from vihier.inference.batches import full_batch
from vihier.inference.predict import prior_predictive
from vihier.models.priors import check_prior_names, describe_prior, normalise_priors, parse_prior
from vihier.models.program import load_program, model_names


@pytest.mark.parametrize(
    "text",
    ["Normal(3, 1)", "HalfNormal(0.5)", "StudentT(4, 0, 2)", "Gamma(2, 3)", "LogNormal(-1, 0.5)", "Exponential(2)",
     "HalfCauchy(1)", "InverseGamma(3, 1)"],
)  # fmt: skip
def test_text_of_a_prior_comes_back(text: str) -> None:
    assert describe_prior(parse_prior(text)) == text


@pytest.mark.parametrize(
    "text",
    ["Normal(3)", "Normal(0, 1, 2)", "Normal(0, -1)", "Uniform(0, 1)", "Normal(0, nan)", "Normal(a, b)", "Normal",
     "__import__('os').getcwd()", "Normal(0, 1); Normal(0, 1)", ""],
)  # fmt: skip
def test_text_that_is_no_prior_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(VihierError) as refused:
        parse_prior(text)
    assert "\n" not in str(refused.value)


def test_a_distribution_and_its_text_are_the_same_prior() -> None:
    assert normalise_priors({"mu": dist.Normal(3.0, 1.0)}) == normalise_priors({"mu": "Normal(3,1)"})
    with pytest.raises(VihierError, match="scalar"):
        normalise_priors({"mu": dist.Normal(0.0, 1.0).expand([3])})
    with pytest.raises(VihierError, match="give a distribution or a text"):
        normalise_priors({"mu": 3})


def test_an_overridden_prior_replaces_its_term_and_no_other() -> None:
    screen = ragged_screen()
    values = site_values(load_program("gene_lineage").model, screen)
    batch = full_batch(screen)
    plain = log_joint(load_program("gene_lineage").model, batch, values)
    changed = load_program("gene_lineage", {"mu_mu_mu_gamma": "Normal(3, 1)"})
    x = float(values["mu_mu_mu_gamma"])
    expected = norm.logpdf(x, 3, 1) - norm.logpdf(x, 0, 3)
    assert log_joint(changed.model, batch, values) - plain == pytest.approx(expected, abs=1e-10)
    assert changed.priors == {"mu_mu_mu_gamma": "Normal(3, 1)"}


def test_an_overridden_prior_of_a_table_takes_its_shape() -> None:
    screen = ragged_screen()
    values = site_values(load_program("additive").model, screen)
    plain = log_joint(load_program("additive").model, full_batch(screen), values)
    changed = log_joint(load_program("additive", {"mu_alpha": "Normal(1, 2)"}).model, full_batch(screen), values)
    x = values["mu_alpha"].numpy()
    own = norm.logpdf(x, float(values["mu_mu_alpha"]), float(values["sigma_mu_alpha"]))
    assert changed - plain == pytest.approx((norm.logpdf(x, 1, 2) - own).sum(), abs=1e-10)


def test_a_prior_over_other_values_than_the_sites_is_refused_naming_it() -> None:
    screen = ragged_screen()
    with pytest.raises(VihierError, match="sigma=Normal"):
        prior_predictive(screen, "additive", draws=2, priors={"sigma": "Normal(0, 1)"})


def test_a_prior_for_a_site_that_is_not_there_is_refused_naming_those_that_are() -> None:
    with pytest.raises(VihierError, match=r"'nu'.*mu, sigma"):
        check_prior_names({"nu": "Normal(0, 1)"}, ["mu", "sigma"])


def test_models_that_come_with_the_package() -> None:
    assert {"additive", "crossed", "gene_lineage"} <= set(model_names())
    with pytest.raises(VihierError, match="choose one of additive"):
        load_program("addative")
