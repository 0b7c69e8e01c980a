r"""`additive` for several screens (libraries) at once, with effects of screens and plasmid batches.

$$ \mathrm{lfc} \sim N(\alpha_s + \beta_c + \gamma_{g,c} + \zeta_k + \rho_{g,k} + \omega_{c,k} + \tau_b + \xi_{g,b},
\ \sigma) $$
for screen $k$ and plasmid batch $b$: shifts of a screen, $\zeta_k \sim N(0, \sigma_\zeta)$, and of a gene within it,
$\rho_{g,k} \sim N(0, \sigma_{\rho,k})$; of a line within a screen, $\omega_{c,k} \sim N(0, \sigma_\omega)$; of a batch,
$\tau_b \sim N(0, \sigma_\tau)$, and of a gene within it, $\xi_{g,b} \sim N(0, \sigma_\xi)$, where the screen has column
`p_dna_batch`. Genes' effects in lines, gamma, are shared by all; `effect` is the mean over the screens and batches at
hand.
"""

import pyro
import pyro.distributions as dist

from vihier.models.additive import derived as derived
from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood


def model(batch: Batch, likelihood: Likelihood = NORMAL) -> None:
    """Pyro program: `additive` with shifts of screens, batches, and of genes and lines within them."""
    lines, of_line = pyro.plate("line", batch.n_lines, dim=-1), batch.lineage_of_line
    screens = pyro.plate("screen", batch.size_of("screen"), dim=-1)
    line_screens = pyro.plate("line_screen", batch.size_of("line_screen"), dim=-1)
    batches = pyro.plate("p_dna_batch", batch.sizes["p_dna_batch"], dim=-1) if "p_dna_batch" in batch.sizes else None
    scales = likelihood.sample_scales(batch, lines, screens, line_screens)

    mu_mu_alpha = pyro.sample("mu_mu_alpha", dist.Normal(0.0, 3.0))
    sigma_mu_alpha = pyro.sample("sigma_mu_alpha", dist.HalfNormal(3.0))
    sigma_sigma_alpha = pyro.sample("sigma_sigma_alpha", dist.HalfNormal(3.0))
    mu_mu_beta = pyro.sample("mu_mu_beta", dist.Normal(0.0, 3.0))
    sigma_mu_beta = pyro.sample("sigma_mu_beta", dist.HalfNormal(3.0))
    sigma_sigma_beta = pyro.sample("sigma_sigma_beta", dist.HalfNormal(3.0))
    mu_gamma = pyro.sample("mu_gamma", dist.Normal(0.0, 5.0))
    sigma_sigma_gamma = pyro.sample("sigma_sigma_gamma", dist.HalfNormal(1.0))
    sigma_zeta = pyro.sample("sigma_zeta", dist.HalfNormal(1.0))
    sigma_omega = pyro.sample("sigma_omega", dist.HalfNormal(1.0))
    sigma_sigma_rho = pyro.sample("sigma_sigma_rho", dist.HalfNormal(1.0))

    with pyro.plate("lineage", batch.n_lineages, dim=-1):
        mu_beta = pyro.sample("mu_beta", dist.Normal(mu_mu_beta, sigma_mu_beta))
        sigma_beta = pyro.sample("sigma_beta", dist.HalfNormal(sigma_sigma_beta))
    with lines:
        beta = pyro.sample("beta", dist.Normal(mu_beta[of_line], sigma_beta[of_line]))
    with screens:
        zeta = pyro.sample("zeta", dist.Normal(0.0, sigma_zeta))
        sigma_rho = pyro.sample("sigma_rho", dist.HalfNormal(sigma_sigma_rho))
    with line_screens:
        omega = pyro.sample("omega", dist.Normal(0.0, sigma_omega))
    if batches is not None:
        sigma_tau = pyro.sample("sigma_tau", dist.HalfNormal(0.5))
        sigma_xi = pyro.sample("sigma_xi", dist.HalfNormal(0.5))
        with batches:
            tau = pyro.sample("tau", dist.Normal(0.0, sigma_tau))

    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-2), batch.gene_of_sgrna
        with genes:
            mu_alpha = pyro.sample("mu_alpha", dist.Normal(mu_mu_alpha, sigma_mu_alpha))
            sigma_alpha = pyro.sample("sigma_alpha", dist.HalfNormal(sigma_sigma_alpha))
            sigma_gamma = pyro.sample("sigma_gamma", dist.HalfNormal(sigma_sigma_gamma))
            scales = likelihood.sample_of_genes(scales)
        with genes, screens:
            rho = pyro.sample("rho", dist.Normal(0.0, sigma_rho))
        shift = zeta.mean(-1) + rho.mean(-1, keepdim=True)
        if batches is not None:
            with genes, batches:
                xi = pyro.sample("xi", dist.Normal(0.0, sigma_xi))
            shift = shift + tau.mean(-1) + xi.mean(-1, keepdim=True)
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            alpha = pyro.sample("alpha", dist.Normal(mu_alpha[of_sgrna, 0], sigma_alpha[of_sgrna, 0]))
            scales = likelihood.sample_of_sgrnas(scales)
        with genes, lines:
            gamma = pyro.sample("gamma", dist.Normal(mu_gamma, sigma_gamma))
            pyro.deterministic("effect", batch.mean_over_sgrnas(alpha) + beta + gamma + shift)
        with pyro.plate("row", len(batch.gene), dim=-1):
            of_screen, of_line_screen = batch.rows_in("screen"), batch.rows_in("line_screen")
            mean = alpha[batch.sgrna] + beta[batch.line] + gamma[batch.gene, batch.line]
            mean = mean + zeta[of_screen] + rho[batch.gene, of_screen] + omega[of_line_screen]
            if batches is not None:
                mean = mean + tau[batch.rows_in("p_dna_batch")] + xi[batch.gene, batch.rows_in("p_dna_batch")]
            likelihood.observe(batch, mean, scales)
