"""The variational family over log-scales, the only thing that the structured guide approximates.

Scales shared by genes are jointly log-normal, full rank, and with them correlations between genes' locations, as the
real numbers of `vihier.guides.mixed_model.Correlation`. Each gene's own scales are a small log-normal block whose mean
moves with the screen's unindexed scales.
"""

from __future__ import annotations

import math

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from vihier.guides.block import Theta
from vihier.guides.mixed_model import SCALE_TABLES
from vihier.guides.structure import Structure, refusal

FULL_RANK_UP_TO = 200
SMALLEST_SD = 1e-3


class ScaleGuide(PyroModule):
    """q(log scales) = N(globals) x product over genes of N(gene's | globals).

    Parameters
    ----------
    structure : Structure
    sizes : dict
        Number of elements of each plate that a scale has.
    start : dict
        Log-scale of each site to start from, over its plates.

    Raises
    ------
    VihierError
        If a scale is indexed by two plates, or by one that it cannot be.
    """

    origin: Tensor
    unit: Tensor
    gene_origin: Tensor
    gene_unit: Tensor

    def __init__(self, structure: Structure, sizes: dict[str, int], start: Theta) -> None:
        super().__init__()
        for scale in structure.scales:
            if scale.plates not in SCALE_TABLES:
                raise refusal(scale.name, f"a scale indexed by {' x '.join(scale.plates)}")
        self.global_sites = [scale for scale in structure.scales if scale.plates != ("gene",)]
        self.gene_sites = [scale for scale in structure.scales if scale.plates == ("gene",)]
        self.sizes = [sizes[scale.plates[0]] if scale.plates else 1 for scale in self.global_sites]
        self.indexed = {scale.name: bool(scale.plates) for scale in self.global_sites}
        self.sizes += [correlation.n_pairs for correlation in structure.correlations]
        self.indexed |= {correlation.name: True for correlation in structure.correlations}
        n_global, n_own = sum(self.sizes), len(self.gene_sites)
        # The regressors of a gene's scales: the unindexed scales.
        self.scalar = [i for i, name in enumerate(self._owners()) if not self.indexed[name]]
        like = next(iter(start.values()))
        # Means move in units of the sd that they start with, so that one learning rate suits all of them.
        self.register_buffer("origin", torch.cat([start[name].reshape(-1) for name in self.indexed]))
        self.register_buffer("unit", like.new_full((n_global,), 0.2))
        self.steps = nn.Parameter(like.new_zeros(n_global))
        self.log_diagonal = nn.Parameter(like.new_full((n_global,), math.log(0.2)))
        full_rank = n_global <= FULL_RANK_UP_TO
        self.lower = nn.Parameter(like.new_zeros(n_global, n_global)) if full_rank else None
        gene_start = [start[scale.name] for scale in self.gene_sites]
        n_genes = sizes["gene"]
        gene_origin = torch.stack(gene_start, -1) if gene_start else like.new_zeros(n_genes, 0)
        self.register_buffer("gene_origin", gene_origin)
        self.register_buffer("gene_unit", torch.full_like(gene_origin, 0.3))
        self.gene_steps = nn.Parameter(torch.zeros_like(gene_origin))
        self.gene_log_diagonal = nn.Parameter(like.new_full((n_genes, n_own), math.log(0.3)))
        self.gene_lower = nn.Parameter(like.new_zeros(n_genes, n_own, n_own))
        self.gene_slope = nn.Parameter(like.new_zeros(n_genes, n_own, len(self.scalar)))

    def _owners(self) -> list[str]:
        return [name for name, size in zip(self.indexed, self.sizes, strict=True) for _ in range(size)]

    def match(self, draws: Theta, correlated: bool = True) -> None:
        """Take the moments of N draws of the log-scales, or means and sds alone where draws are few.

        Correlations are shrunk by what so many draws make up.

        The family's member of least Kullback-Leibler divergence from the draws: it covers their tails, where one fitted
        by the ELBO alone is narrower than the posterior.
        """
        with torch.no_grad():
            flat = self.flat(draws)
            n, size = flat.shape
            shift = flat - flat.mean(0)
            sd = shift.square().mean(0).sqrt().clamp_min(SMALLEST_SD)
            self.origin.copy_(flat.mean(0))
            self.unit.copy_(sd)
            self.steps.zero_()
            chol = torch.diag(sd)
            if self.lower is not None:
                chol = sd[:, None] * torch.linalg.cholesky(
                    _shrunk((shift / sd).T @ (shift / sd) / n, size / (n + size))
                )
                self.lower.copy_(torch.tril(chol, -1) / self.unit[:, None])
            self.log_diagonal.copy_(chol.diagonal().log())
            if self.gene_sites:
                self._match_genes(torch.stack([draws[scale.name] for scale in self.gene_sites], 1), shift, correlated)

    def _match_genes(self, values: Tensor, shift: Tensor, correlated: bool) -> None:
        """Take the moments of the genes' own log-scales, [G, m, N], given the shifts of the shared ones, [N, E]."""
        n = len(shift)
        regressors = shift[:, self.scalar]
        self.gene_origin.copy_(values.mean(-1))
        self.gene_steps.zero_()
        rest = values - self.gene_origin[..., None]
        gram = regressors.T @ regressors
        ridge = torch.diag(gram.diagonal() * (gram.shape[0] / n) + 1e-12)
        slope = torch.linalg.solve(gram + ridge, regressors.T @ rest.transpose(1, 2)).transpose(1, 2)
        self.gene_slope.copy_(slope * correlated)
        rest = rest - self.gene_slope @ regressors.T
        sd = rest.square().mean(-1).sqrt().clamp_min(SMALLEST_SD)
        self.gene_unit.copy_(sd)
        standard = rest / sd[..., None]
        m = values.shape[1]
        chol = sd[..., None] * torch.linalg.cholesky(
            _shrunk(standard @ standard.mT / n, m / (n + m) if correlated else 1.0)
        )
        self.gene_lower.copy_(torch.tril(chol, -1))
        self.gene_log_diagonal.copy_(chol.diagonal(dim1=-2, dim2=-1).log())

    @property
    def loc(self) -> Tensor:
        """Means of the global log-scales, shape [E]."""
        return self.origin + self.unit * self.steps

    def sd(self) -> Tensor:
        """Return the posterior sds of the global log-scales, shape [E]."""
        variance = (2 * self.log_diagonal).exp()
        if self.lower is not None:
            variance = variance + (self.unit[:, None] * torch.tril(self.lower, -1)).square().sum(1)
        return variance.sqrt().detach()

    def sample_globals(self, noise: Tensor) -> tuple[Theta, Tensor, Tensor]:
        """Transform standard normals, shape [N, E], into the scales shared by genes.

        Returns
        -------
        theta : dict
            Log-scales by site, draws last.
        log_q : Tensor
            Log density of the log-scales, shape [N].
        standard : Tensor
            What a gene's block is regressed on: (log-scale - mean) of the unindexed scales, shape [N, H].
        """
        diagonal = self.log_diagonal.exp()
        shift = noise * diagonal
        if self.lower is not None:
            shift = shift + self.unit * (noise @ torch.tril(self.lower, -1).T)
        log_q = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(-1) - self.log_diagonal.sum()
        theta = self.unflatten((self.loc + shift).T)
        return theta, log_q, shift[:, self.scalar]

    def _gene_loc(self, genes: Tensor) -> Tensor:
        return self.gene_origin[genes] + self.gene_unit[genes] * self.gene_steps[genes]

    def unflatten(self, values: Tensor) -> Theta:
        """Split [E, N] by site."""
        parts = values.split(self.sizes)
        return {
            name: part if indexed else part[0]
            for (name, indexed), part in zip(self.indexed.items(), parts, strict=True)
        }

    def sample_genes(self, noise: Tensor, standard: Tensor, genes: Tensor) -> tuple[Theta, Tensor]:
        """Transform standard normals, shape [B, m, N], into the genes' own scales.

        Returns
        -------
        theta : dict
            Log-scales by site, each [B, N].
        log_q : Tensor
            Log density given the globals, shape [B, N].
        """
        if not self.gene_sites:
            return {}, noise.sum(1)
        lower = self._gene_chol(genes)
        values = self._gene_loc(genes)[..., None] + self.gene_slope[genes] @ standard.T + lower @ noise
        log_q = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1) - self.gene_log_diagonal[genes].sum(1)[:, None]
        return {scale.name: values[:, i] for i, scale in enumerate(self.gene_sites)}, log_q

    def centre(self, genes: Tensor) -> Theta:
        """Return the means of all log-scales, those of some genes, as one draw."""
        theta, _, standard = self.sample_globals(torch.zeros_like(self.origin)[None])
        noise = self.gene_origin.new_zeros(len(genes), len(self.gene_sites), 1)
        return theta | self.sample_genes(noise, standard, genes)[0]

    def global_log_density(self, theta: Theta) -> Tensor:
        """Log density, shape [N], of the log-scales shared by genes."""
        shift = self.flat(theta) - self.loc
        diagonal = torch.diag_embed(self.log_diagonal.exp())
        lower = diagonal if self.lower is None else diagonal + self.unit[:, None] * torch.tril(self.lower, -1)
        noise = torch.linalg.solve_triangular(lower, shift.T, upper=False)
        return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(0) - self.log_diagonal.sum()

    def gene_log_density(self, theta: Theta, genes: Tensor) -> Tensor:
        """Log density, shape [B, N], of the genes' own log-scales given the shared ones in `theta`."""
        if not self.gene_sites:
            return self.loc.new_zeros(len(genes), next(iter(theta.values())).shape[-1])
        standard = (self.flat(theta) - self.loc)[:, self.scalar]
        centre = self._gene_loc(genes)[..., None] + self.gene_slope[genes] @ standard.T
        shift = torch.stack([theta[scale.name] for scale in self.gene_sites], 1) - centre
        noise = torch.linalg.solve_triangular(self._gene_chol(genes), shift, upper=False)
        return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1) - self.gene_log_diagonal[genes].sum(1)[:, None]

    def _gene_chol(self, genes: Tensor) -> Tensor:
        return torch.tril(self.gene_lower[genes], -1) + torch.diag_embed(self.gene_log_diagonal[genes].exp())

    def flat(self, theta: Theta) -> Tensor:
        """Log-scales shared by genes, shape [N, E]."""
        parts = [theta[name] if indexed else theta[name][None] for name, indexed in self.indexed.items()]
        return torch.cat(parts).T


def _shrunk(correlation: Tensor, weight: float) -> Tensor:
    """Shrink correlations, [..., E, E], towards none, and make the diagonal one."""
    eye = torch.eye(correlation.shape[-1], dtype=correlation.dtype, device=correlation.device)
    return (1 - weight) * correlation * (1 - eye) + eye
