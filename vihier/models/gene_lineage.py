r"""A gene x line matrix nested in lineage.

$$ \mathrm{lfc} \sim N(\gamma_{g,c},\ \sigma), \quad
\gamma_{g,c} \sim N(\mu_{\gamma,g,l(c)}, \sigma_{\gamma,l(c)}), \quad
\mu_{\gamma,g,l} \sim N(\mu_{\mu,g}, \sigma_{\mu,g}), \quad \mu_{\mu,g} \sim N(\mu_{\mu\mu}, \sigma_{\mu\mu}) $$
"""

import pyro
import pyro.distributions as dist

from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood


def model(batch: Batch, likelihood: Likelihood = NORMAL) -> None:
    """Pyro program: `lfc ~ N(gamma[g, c], sigma)`, gamma around its gene's mean in the line's lineage."""
    lines = pyro.plate("line", batch.n_lines, dim=-1)
    scales = likelihood.sample_scales(batch, lines)
    mu_mu_mu_gamma = pyro.sample("mu_mu_mu_gamma", dist.Normal(0.0, 3.0))
    sigma_mu_mu_gamma = pyro.sample("sigma_mu_mu_gamma", dist.HalfNormal(3.0))
    sigma_sigma_mu_gamma = pyro.sample("sigma_sigma_mu_gamma", dist.HalfNormal(3.0))
    sigma_sigma_gamma = pyro.sample("sigma_sigma_gamma", dist.HalfNormal(3.0))

    lineages, of_line = pyro.plate("lineage", batch.n_lineages, dim=-1), batch.lineage_of_line
    with lineages:
        sigma_gamma = pyro.sample("sigma_gamma", dist.HalfNormal(sigma_sigma_gamma))

    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-2)
        with genes:
            mu_mu_gamma = pyro.sample("mu_mu_gamma", dist.Normal(mu_mu_mu_gamma, sigma_mu_mu_gamma))
            sigma_mu_gamma = pyro.sample("sigma_mu_gamma", dist.HalfNormal(sigma_sigma_mu_gamma))
            scales = likelihood.sample_of_genes(scales)
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            scales = likelihood.sample_of_sgrnas(scales)
        with genes, lineages:
            mu_gamma = pyro.sample("mu_gamma", dist.Normal(mu_mu_gamma, sigma_mu_gamma))
        with genes, lines:
            gamma = pyro.sample("gamma", dist.Normal(mu_gamma[:, of_line], sigma_gamma[of_line]))
            pyro.deterministic("effect", gamma)
        with pyro.plate("row", len(batch.gene), dim=-1):
            likelihood.observe(batch, gamma[batch.gene, batch.line], scales)
