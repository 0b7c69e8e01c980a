r"""`additive`, with gene and line terms in the mean of gamma as well.

$$ \gamma_{g,c} \sim N(\eta_g + \theta_c,\ \sigma_{\gamma,g}) $$
The rows see `mu_alpha[g] + eta[g]` and `beta[c] + theta[c]` only as sums. With equal priors the posterior is exactly
symmetric under swapping the members of a pair, so their scales are two-humped; the sums are sharp.
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch

from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood

_GENE = "the rows know mu_alpha[g] and eta[g] only as their sum, eta_plus_mu_alpha"
_LINE = "the rows know beta[c] and theta[c] only as their sum, beta_plus_theta"
NOT_IDENTIFIED = {
    **dict.fromkeys(("mu_alpha", "eta", "mu_mu_alpha", "mu_eta", "sigma_mu_alpha", "sigma_eta"), _GENE),
    **dict.fromkeys(("beta", "mu_beta", "mu_mu_beta", "sigma_beta", "sigma_mu_beta", "sigma_sigma_beta"), _LINE),
    **dict.fromkeys(("theta", "mu_theta", "mu_mu_theta", "sigma_theta", "sigma_mu_theta", "sigma_sigma_theta"), _LINE),
    "beta_dev": _LINE,
    "gamma": "its prior mean eta[g] + theta[c] is known only together with mu_alpha and beta; see effect and gamma_dev",
}


def model(batch: Batch, likelihood: Likelihood = NORMAL) -> None:
    """Pyro program: `additive` with `gamma ~ N(eta[g] + theta[c], sigma_gamma[g])`."""
    lines, of_line = pyro.plate("line", batch.n_lines, dim=-1), batch.lineage_of_line
    scales = likelihood.sample_scales(batch, lines)

    mu_mu_alpha = pyro.sample("mu_mu_alpha", dist.Normal(0.0, 3.0))
    sigma_mu_alpha = pyro.sample("sigma_mu_alpha", dist.HalfNormal(3.0))
    sigma_sigma_alpha = pyro.sample("sigma_sigma_alpha", dist.HalfNormal(3.0))
    mu_mu_beta = pyro.sample("mu_mu_beta", dist.Normal(0.0, 3.0))
    sigma_mu_beta = pyro.sample("sigma_mu_beta", dist.HalfNormal(3.0))
    sigma_sigma_beta = pyro.sample("sigma_sigma_beta", dist.HalfNormal(3.0))
    sigma_sigma_gamma = pyro.sample("sigma_sigma_gamma", dist.HalfNormal(1.0))
    mu_eta = pyro.sample("mu_eta", dist.Normal(0.0, 3.0))
    sigma_eta = pyro.sample("sigma_eta", dist.HalfNormal(3.0))
    mu_mu_theta = pyro.sample("mu_mu_theta", dist.Normal(0.0, 3.0))
    sigma_mu_theta = pyro.sample("sigma_mu_theta", dist.HalfNormal(3.0))
    sigma_sigma_theta = pyro.sample("sigma_sigma_theta", dist.HalfNormal(3.0))

    with pyro.plate("lineage", batch.n_lineages, dim=-1):
        mu_beta = pyro.sample("mu_beta", dist.Normal(mu_mu_beta, sigma_mu_beta))
        sigma_beta = pyro.sample("sigma_beta", dist.HalfNormal(sigma_sigma_beta))
        mu_theta = pyro.sample("mu_theta", dist.Normal(mu_mu_theta, sigma_mu_theta))
        sigma_theta = pyro.sample("sigma_theta", dist.HalfNormal(sigma_sigma_theta))
    with lines:
        beta = pyro.sample("beta", dist.Normal(mu_beta[of_line], sigma_beta[of_line]))
        theta = pyro.sample("theta", dist.Normal(mu_theta[of_line], sigma_theta[of_line]))

    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-2), batch.gene_of_sgrna
        with genes:
            mu_alpha = pyro.sample("mu_alpha", dist.Normal(mu_mu_alpha, sigma_mu_alpha))
            sigma_alpha = pyro.sample("sigma_alpha", dist.HalfNormal(sigma_sigma_alpha))
            eta = pyro.sample("eta", dist.Normal(mu_eta, sigma_eta))
            sigma_gamma = pyro.sample("sigma_gamma", dist.HalfNormal(sigma_sigma_gamma))
            scales = likelihood.sample_of_genes(scales)
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            alpha = pyro.sample("alpha", dist.Normal(mu_alpha[of_sgrna, 0], sigma_alpha[of_sgrna, 0]))
            scales = likelihood.sample_of_sgrnas(scales)
        with genes, lines:
            gamma = pyro.sample("gamma", dist.Normal(eta + theta, sigma_gamma))
            pyro.deterministic("effect", batch.mean_over_sgrnas(alpha) + beta + gamma)
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = alpha[batch.sgrna] + beta[batch.line] + gamma[batch.gene, batch.line]
            likelihood.observe(batch, mean, scales)


def derived(draw: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Return the identified sums and contrasts of one draw (log2 fold change), beside the program's sites."""
    alpha, beta = draw["alpha"], draw["beta"]
    return {
        "alpha_dev": alpha - batch.mean_over_sgrnas(alpha)[batch.gene_of_sgrna, 0],
        "beta_dev": beta - beta.mean(),
        "gamma_dev": draw["gamma"] - draw["eta"] - draw["theta"],
        "beta_plus_theta": beta + draw["theta"],
        "eta_plus_mu_alpha": draw["eta"] + draw["mu_alpha"],
    }
