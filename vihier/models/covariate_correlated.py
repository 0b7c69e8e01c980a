r"""`covariate`, the coefficients of a gene correlated, by correlations that are learned over the genome.

$$ (\mu_{\alpha,g}, \kappa_g, \mu_{\phi,g}, \mu_{\psi,g}) \sim \mathrm{MVN}(\mu,\ S\,\Omega\,S),
\quad \Omega \sim \mathrm{LKJ}(2) $$
with $\mu = (\mu_{\mu\alpha}, \mu_\kappa, \mu_{\mu\phi}, \mu_{\mu\psi})$ and $S$ the diagonal of $\sigma_{\mu\alpha}$,
$\sigma_\kappa$, $\sigma_{\mu\phi}$ and $\sigma_{\mu\psi}$: the intercept, and slopes on copy number, expression and
mutation, those that are there. `correlation` is $\Omega$; all else is as in `covariate`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vihier.models import covariate
from vihier.models.batch import Batch
from vihier.models.covariate import COVARIATES as COVARIATES
from vihier.models.covariate import derived as derived
from vihier.models.likelihood import NORMAL, Likelihood
from vihier.models.lkj import LKJCholesky

DIMS = ("coefficient", "coefficient_other")


def labels(terms: Sequence[str]) -> dict[str, list[str]]:
    """Name the coefficients, where a file has them as dims."""
    names = ["intercept", *(term for term in COVARIATES if term in terms)]
    return {DIMS[0]: names, DIMS[1]: names}


def _named(*dims: str) -> Any:
    """Name the axes of a site that are no plates'."""
    return {"event_dims": dims}


def correlated(n: int) -> covariate.Sampler:
    """Give genes n coefficients that are correlated."""
    chol = pyro.sample("correlation_chol", LKJCholesky(n, 2.0), infer=_named(*DIMS))
    with pyro.plate(DIMS[0], n, dim=-2), pyro.plate(DIMS[1], n, dim=-1):
        pyro.deterministic("correlation", chol @ chol.mT)

    def of_genes(priors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        means, sds = (torch.stack(values, -1) for values in zip(*priors.values(), strict=True))
        normal = dist.MultivariateNormal(means, scale_tril=sds[..., None] * chol)
        values = pyro.sample("coefficients", normal, infer=_named(DIMS[0]))
        return {name: pyro.deterministic(name, values[..., i]) for i, name in enumerate(priors)}

    return of_genes


def model(batch: Batch, likelihood: Likelihood = NORMAL, terms: Sequence[str] = tuple(COVARIATES)) -> None:
    """Pyro program: that of `covariate`, with `correlated` coefficients."""
    covariate.model(batch, likelihood, terms, correlated)
