r"""sgRNA, line and gene x line varying intercepts: the default model.

$$ \mathrm{lfc} \sim N(\alpha_s + \beta_c + \gamma_{g,c},\ \sigma) $$
with $\alpha_s \sim N(\mu_{\alpha,g}, \sigma_{\alpha,g})$, $\beta_c \sim N(\mu_{\beta,l}, \sigma_{\beta,l})$ and
$\gamma_{g,c} \sim N(\mu_\gamma, \sigma_{\gamma,g})$. The rows know the three offsets `mu_mu_alpha`, `mu_mu_beta` and
`mu_gamma` only as a sum, so raw `alpha`, `beta` and `gamma` are wide; `effect` and the deviations are sharp.
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch

from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood


def model(batch: Batch, likelihood: Likelihood = NORMAL) -> None:
    """Pyro program: `lfc ~ N(alpha[s] + beta[c] + gamma[g, c], sigma)`."""
    lines, of_line = pyro.plate("line", batch.n_lines, dim=-1), batch.lineage_of_line
    scales = likelihood.sample_scales(batch, lines)

    mu_mu_alpha = pyro.sample("mu_mu_alpha", dist.Normal(0.0, 3.0))
    sigma_mu_alpha = pyro.sample("sigma_mu_alpha", dist.HalfNormal(3.0))
    sigma_sigma_alpha = pyro.sample("sigma_sigma_alpha", dist.HalfNormal(3.0))
    mu_mu_beta = pyro.sample("mu_mu_beta", dist.Normal(0.0, 3.0))
    sigma_mu_beta = pyro.sample("sigma_mu_beta", dist.HalfNormal(3.0))
    sigma_sigma_beta = pyro.sample("sigma_sigma_beta", dist.HalfNormal(3.0))
    mu_gamma = pyro.sample("mu_gamma", dist.Normal(0.0, 5.0))
    sigma_sigma_gamma = pyro.sample("sigma_sigma_gamma", dist.HalfNormal(1.0))

    with pyro.plate("lineage", batch.n_lineages, dim=-1):
        mu_beta = pyro.sample("mu_beta", dist.Normal(mu_mu_beta, sigma_mu_beta))
        sigma_beta = pyro.sample("sigma_beta", dist.HalfNormal(sigma_sigma_beta))
    with lines:
        beta = pyro.sample("beta", dist.Normal(mu_beta[of_line], sigma_beta[of_line]))

    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-2), batch.gene_of_sgrna
        with genes:
            mu_alpha = pyro.sample("mu_alpha", dist.Normal(mu_mu_alpha, sigma_mu_alpha))
            sigma_alpha = pyro.sample("sigma_alpha", dist.HalfNormal(sigma_sigma_alpha))
            sigma_gamma = pyro.sample("sigma_gamma", dist.HalfNormal(sigma_sigma_gamma))
            scales = likelihood.sample_of_genes(scales)
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            alpha = pyro.sample("alpha", dist.Normal(mu_alpha[of_sgrna, 0], sigma_alpha[of_sgrna, 0]))
            scales = likelihood.sample_of_sgrnas(scales)
        with genes, lines:
            gamma = pyro.sample("gamma", dist.Normal(mu_gamma, sigma_gamma))
            pyro.deterministic("effect", batch.mean_over_sgrnas(alpha) + beta + gamma)
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = alpha[batch.sgrna] + beta[batch.line] + gamma[batch.gene, batch.line]
            likelihood.observe(batch, mean, scales)


def derived(draw: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Return the identified contrasts of one draw (log2 fold change), beside the program's sites."""
    alpha, beta = draw["alpha"], draw["beta"]
    return {
        "alpha_dev": alpha - batch.mean_over_sgrnas(alpha)[batch.gene_of_sgrna, 0],
        "beta_dev": beta - beta.mean(),
        "gamma_dev": draw["gamma"] - draw["mu_gamma"],
    }
