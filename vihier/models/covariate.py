r"""`additive`, with slopes on copy number, expression and mutation.

$$ \mathrm{lfc} \sim N(\alpha_s + \beta_c + \gamma_{g,c} + x^{cn}_{g,c}(\kappa_g + \kappa_c) + x^{rna}_{g,c}\,\phi_{g,l}
+ x^{mut}_{g,c}\,\psi_{g,l},\ \sigma) $$
with $\kappa_g \sim N(\mu_\kappa, \sigma_\kappa)$, $\kappa_c \sim N(0, \sigma_{\kappa,line})$,
$\phi_{g,l} \sim N(\mu_{\phi,g}, \sigma_\phi)$ and $\psi_{g,l} \sim N(\mu_{\psi,g}, \sigma_\psi)$. A term is there where
the screen has its column, unless it is switched off. Columns are centred, so that `effect` is that at the reference
(median copy number, a gene's mean expression, no mutation); `effect_observed` is that at the line's own values. Where a
value is missing it is the reference, with a shift `delta` of its own.
"""

from collections.abc import Callable, Mapping, Sequence

import pyro
import pyro.distributions as dist
from torch import Tensor

from vihier.models.additive import derived as derived
from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood

COVARIATES = {"copy_number": "centre | clip(-3, 3)", "rna_expr": "zscore(0.1) | clip(-3, 3)", "is_mutated": "asis"}
"""Terms, each with how its column is prepared unless asked otherwise."""
_GENE_LINEAGE = {"rna_expr": "phi", "is_mutated": "psi"}


Sampler = Callable[[Mapping[str, tuple[Tensor, Tensor]]], dict[str, Tensor]]
"""Samples the coefficients of genes, in their plate, from the mean and the sd of each."""


def independent(n: int) -> Sampler:
    """Give genes n coefficients that know nothing of each other."""
    return lambda priors: {name: pyro.sample(name, dist.Normal(*prior)) for name, prior in priors.items()}


def model(
    batch: Batch,
    likelihood: Likelihood = NORMAL,
    terms: Sequence[str] = tuple(COVARIATES),
    coefficients: Callable[[int], Sampler] = independent,
) -> None:
    """Pyro program: `lfc ~ N(additive + slopes x covariates, sigma)`."""
    lines, of_line = pyro.plate("line", batch.n_lines, dim=-1), batch.lineage_of_line
    lineages = pyro.plate("lineage", batch.n_lineages, dim=-1)
    scales = likelihood.sample_scales(batch, lines)

    mu_mu_alpha = pyro.sample("mu_mu_alpha", dist.Normal(0.0, 3.0))
    sigma_mu_alpha = pyro.sample("sigma_mu_alpha", dist.HalfNormal(3.0))
    sigma_sigma_alpha = pyro.sample("sigma_sigma_alpha", dist.HalfNormal(3.0))
    mu_mu_beta = pyro.sample("mu_mu_beta", dist.Normal(0.0, 3.0))
    sigma_mu_beta = pyro.sample("sigma_mu_beta", dist.HalfNormal(3.0))
    sigma_sigma_beta = pyro.sample("sigma_sigma_beta", dist.HalfNormal(3.0))
    mu_gamma = pyro.sample("mu_gamma", dist.Normal(0.0, 5.0))
    sigma_sigma_gamma = pyro.sample("sigma_sigma_gamma", dist.HalfNormal(1.0))
    slopes = {name: _GENE_LINEAGE[name] for name in terms if name in _GENE_LINEAGE}
    tops = {site: pyro.sample(f"mu_mu_{site}", dist.Normal(0.0, 1.0)) for site in slopes.values()}
    spreads = {site: pyro.sample(f"sigma_mu_{site}", dist.HalfNormal(0.5)) for site in slopes.values()}
    within = {site: pyro.sample(f"sigma_{site}", dist.HalfNormal(0.5)) for site in slopes.values()}
    of_genes = coefficients(1 + len(terms))
    missing = [name for name in terms if f"{name}_missing" in batch.covariates]
    delta = {name: pyro.sample(f"delta_{name}", dist.Normal(0.0, 1.0)) for name in missing}

    with lineages:
        mu_beta = pyro.sample("mu_beta", dist.Normal(mu_mu_beta, sigma_mu_beta))
        sigma_beta = pyro.sample("sigma_beta", dist.HalfNormal(sigma_sigma_beta))
    with lines:
        beta = pyro.sample("beta", dist.Normal(mu_beta[of_line], sigma_beta[of_line]))
    if "copy_number" in terms:
        mu_kappa = pyro.sample("mu_kappa", dist.Normal(0.0, 1.0))
        sigma_kappa = pyro.sample("sigma_kappa", dist.HalfNormal(0.5))
        sigma_kappa_line = pyro.sample("sigma_kappa_line", dist.HalfNormal(0.5))
        with lines:
            kappa_line = pyro.sample("kappa_line", dist.Normal(0.0, sigma_kappa_line))

    priors = {"mu_alpha": (mu_mu_alpha, sigma_mu_alpha)}
    priors |= {"kappa": (mu_kappa, sigma_kappa)} if "copy_number" in terms else {}
    priors |= {f"mu_{site}": (tops[site], spreads[site]) for site in slopes.values()}
    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-2), batch.gene_of_sgrna
        of_pair, of_row = {}, {}
        with genes:
            own = of_genes(priors)
            sigma_alpha = pyro.sample("sigma_alpha", dist.HalfNormal(sigma_sigma_alpha))
            sigma_gamma = pyro.sample("sigma_gamma", dist.HalfNormal(sigma_sigma_gamma))
            scales = likelihood.sample_of_genes(scales)
            if "copy_number" in terms:
                of_pair["copy_number"] = own["kappa"] + kappa_line
                of_row["copy_number"] = own["kappa"][batch.gene, 0] + kappa_line[batch.line]
        with genes, lineages:
            for name, site in slopes.items():
                slope = pyro.sample(site, dist.Normal(own[f"mu_{site}"], within[site]))
                of_pair[name], of_row[name] = slope[:, of_line], slope[batch.gene, of_line[batch.line]]
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            alpha = pyro.sample("alpha", dist.Normal(own["mu_alpha"][of_sgrna, 0], sigma_alpha[of_sgrna, 0]))
            scales = likelihood.sample_of_sgrnas(scales)
        with genes, lines:
            gamma = pyro.sample("gamma", dist.Normal(mu_gamma, sigma_gamma))
            effect = pyro.deterministic("effect", batch.mean_over_sgrnas(alpha) + beta + gamma)
            for name, slope in of_pair.items():
                effect = effect + batch.by_gene_line(name) * slope
            pyro.deterministic("effect_observed", effect)
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = alpha[batch.sgrna] + beta[batch.line] + gamma[batch.gene, batch.line]
            for name, slope in of_row.items():
                mean = mean + batch.covariates[name] * slope
            for name, shift in delta.items():
                mean = mean + batch.covariates[f"{name}_missing"] * shift
            likelihood.observe(batch, mean, scales)
