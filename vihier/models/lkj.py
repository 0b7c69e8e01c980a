"""The factor of a correlation matrix with an LKJ prior, drawn from that prior.

`pyro.distributions.LKJCholesky` has the right density and draws from another distribution where it has three rows or
more: torch 2.13 takes Beta(i + 1/2, .) for the squared length of what is below row i's diagonal, where the onion method
has Beta((i + 1) / 2, .). Canonical partial correlations are drawn here, each from its own Beta distribution
(Lewandowski, Kurowicka & Joe 2009, J. Multivar. Anal. 100, 1989, section 2.4).
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch.distributions import Beta

from vihier.kernels.correlated import factor_of


class LKJCholesky(dist.LKJCholesky):
    """Lower factors of correlation matrices of `dim` rows, of density det^(concentration - 1) in the matrix.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> chol = LKJCholesky(3, 2.0).sample((20_000,))
    >>> correlations = (chol @ chol.mT)[:, [1, 2, 2], [0, 0, 1]]
    >>> [round(float(x), 1) for x in correlations.square().mean(0) * 6]
    [1.0, 1.0, 1.0]
    """

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> torch.Tensor:
        """Draw factors, [*sample_shape, *batch_shape, dim, dim]."""
        _, before = torch.tril_indices(self.dim, self.dim, -1).to(self.concentration.device)
        of_pair = self.concentration[..., None] + 0.5 * (self.dim - 2 - before)
        partial = 2 * Beta(of_pair, of_pair, validate_args=False).sample(torch.Size(sample_shape)) - 1
        return factor_of(partial.atanh().movedim(-1, 0))
