"""The structured guide as a Pyro guide, for plain `pyro.infer.SVI` and loops of one's own.

q(scales) is `vihier.guides.scales.ScaleGuide`; every location is drawn from its exact conditional given the scales. So
log p - log q does not depend on the draw of the locations, and `Trace_ELBO(model, guide)` is the closed-form evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from vihier.errors import VihierError
from vihier.guides.block import SHARED, Block, Theta, deviation_sd, make_block, shared_design, table_variance, variances
from vihier.guides.deviations import shared_columns, split_genes, split_shared
from vihier.guides.evidence import collapse, shared_posterior, sum_natural
from vihier.guides.scales import ScaleGuide
from vihier.guides.structure import Plates, Structure, read_structure, to_program
from vihier.guides.values import centre, locations_of, unpad
from vihier.kernels.elimination import NaturalParameters, draw_genes, draw_shared, eliminate
from vihier.models.batch import Batch

_LOG_2PI = math.log(2 * math.pi)
_GENERATOR = torch.default_generator


class StructuredGuide(PyroModule):
    """Guide of a linear-Gaussian screen model: learned scales, exact locations.

    With one batch that holds all genes, the shared locations are conditioned on it. With gene blocks, they are
    conditioned on what each block said when it was last visited: a visit replaces the block's contribution.

    Parameters
    ----------
    model : callable
        The Pyro program, `model(batch)`.
    blocks : sequence of Batch
        Gene blocks, `vihier.inference.batches.GeneBlocks`, or a list of one full batch; float64.

    Raises
    ------
    VihierError
        If the program is outside the family, naming the site.

    Examples
    --------
    >>> import pandas as pd, pyro
    >>> from pyro.infer import SVI, Trace_ELBO
    >>> from vihier.inference.batches import GeneBlocks
    >>> from vihier.models.additive import model
    >>> from vihier.screen import read_screen
    >>> table = pd.DataFrame({"sgrna": list("abcd") * 2, "hugo_symbol": list("AABB") * 2, "lineage": "skin",
    ...     "depmap_id": ["ACH-1"] * 4 + ["ACH-2"] * 4, "lfc": [0.1, 0.2, -1.0, -1.1, 0.0, 0.1, -0.8, -1.2]})
    >>> blocks = GeneBlocks(read_screen(table), 1)
    >>> guide = StructuredGuide(model, blocks)
    >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    >>> losses = [svi.step(batch) for epoch in range(3) for batch in blocks]
    >>> len(losses)
    6
    """

    def __init__(self, model: Callable[[Batch], Any], blocks: Sequence[Batch]) -> None:
        super().__init__()
        first = blocks[0]
        with _default_dtype(torch.float64):
            self.structure: Structure = read_structure(model, first)
        if self.structure.design is not None:
            raise VihierError(
                f"site {self.structure.observed!r}: its mean has covariates, or tables by screen or batch; vihier.fit "
                "takes those, this guide does not"
            )
        if not self.structure.is_plain:
            raise VihierError(
                f"site {self.structure.observed!r}: its rows are not Normal with one noise scale, which no closed form "
                "has; vihier.fit draws a weight for each row"
            )
        sizes = {"gene": first.n_genes, "line": first.n_lines, "lineage": first.lineages}
        like = first.lfc
        assert like is not None
        start = {
            scale.name: like.new_full([sizes[plate] for plate in scale.plates], -1.0) for scale in self.structure.scales
        }
        self.scales = ScaleGuide(self.structure, sizes, start)
        self._blocks: dict[int, Block] = {}
        self._said: dict[int, NaturalParameters] = {}
        self._plates: dict[tuple[str, int], Any] = {}
        if len(blocks) > 1:
            with torch.no_grad():
                for batch in blocks:
                    block = self._block(batch)
                    self._remember(block, self._collapse_at_centre(block))

    def _block(self, batch: Batch) -> Block:
        key = int(batch.gene_idx[0])
        if key not in self._blocks:
            self._blocks[key] = make_block(self.structure, batch)
        return self._blocks[key]

    def _collapse_at_centre(self, block: Block) -> NaturalParameters | None:
        theta = self.scales.centre(block.batch.gene_idx)
        return collapse(self.structure, theta, block).natural

    def _remember(self, block: Block, natural: NaturalParameters | None) -> None:
        if natural is not None:
            self._said[int(block.batch.gene_idx[0])] = NaturalParameters(
                natural.precision.detach(), natural.rhs.detach()
            )

    def forward(self, batch: Batch) -> None:
        """Draw every site of the program for a batch."""
        block, scales = self._block(batch), self.scales
        self._plates = {}
        like = block.data.square
        theta, log_q, standard = scales.sample_globals(like.new_empty(1, len(scales.origin)).normal_())
        jacobian = sum((x.sum(0) if x.dim() > 1 else x for x in theta.values()), like.new_zeros(1))
        _density("_scales", log_q - jacobian)
        for scale in scales.global_sites:
            self._put(scale, theta[scale.name].exp())
        noise = like.new_empty(len(like), len(scales.gene_sites), 1).normal_()
        own, own_log_q = scales.sample_genes(noise, standard, batch.gene_idx)
        shared, column = self._shared(theta | own, block)
        with batch.local():
            own_jacobian = sum((x for x in own.values()), torch.zeros_like(own_log_q))
            _density("_gene_scales", (own_log_q - own_jacobian).sum(0))
            for scale in scales.gene_sites:
                self._put(scale, own[scale.name].exp())
            self._locals(theta | own, block, shared, column)

    def _shared(self, theta: Theta, block: Block) -> tuple[Theta, Tensor | None]:
        """Draw the shared locations; return their values and their sum for each line, [C, 1]."""
        structure = self.structure
        if shared_design(structure, block) is None:
            return {}, None
        whole = len(block.batch.gene_idx) == block.batch.n_genes
        if whole:
            natural = collapse(structure, theta, block).natural
        else:
            with torch.no_grad():
                self._remember(block, collapse(structure, theta, block).natural)
            natural = sum_natural(list(self._said.values()))
        assert natural is not None
        posterior = shared_posterior(structure, theta, block, natural)
        noise = torch.randn_like(posterior.scale)
        totals = draw_shared(posterior, noise).T
        log_q = -0.5 * (noise.square() + _LOG_2PI).sum(1) - posterior.scale.log().sum(1)
        log_q = log_q + posterior.chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        deviations = split_shared(structure, theta, block, totals, _GENERATOR)
        for plates in SHARED:
            log_q = log_q + self._split_log_q(plates, theta, block, deviations, None)
        _density("_shared", log_q)
        values = centre(structure, locations_of(structure, True), deviations, {}, block)
        for location in locations_of(structure, True):
            self._put(location, values[location.name])
        return values, shared_columns(structure, deviations, block)

    def _locals(self, theta: Theta, block: Block, shared: Theta, column: Tensor | None) -> None:
        """Draw the locations of the block's genes given the shared ones."""
        structure, data = self.structure, block.data
        spread = variances(structure, theta, block)
        eliminated = eliminate(data, spread, column)
        noise, leaf_noise = torch.randn_like(eliminated.scale), torch.randn_like(eliminated.weight)
        dense, leaf = draw_genes(data, spread, eliminated, noise, leaf_noise)
        filled = block.filled.to(noise.dtype)[:, None]
        present = torch.ones_like(noise)
        if spread.sgrna is not None:
            present = torch.cat([filled, present[..., filled.shape[-1] :]], -1)
        log_q = (present * (-0.5 * (noise.square() + _LOG_2PI) - _log(eliminated.scale))).sum((0, 2))
        if eliminated.chol is not None:
            log_q = log_q + eliminated.chol.diagonal(dim1=-2, dim2=-1).log().sum((0, 2))
        if spread.gene_line is not None:
            sd = (spread.gene_line * eliminated.leaf_shrink).sqrt()
            log_q = log_q - (0.5 * (leaf_noise.square() + _LOG_2PI) + sd.log()).sum((0, 1))
        deviations = split_genes(structure, theta, block, dense.transpose(1, 2), leaf, _GENERATOR)
        for plates in (("sgrna",), ("gene",), ("gene", "lineage"), ("gene", "line")):
            mask = filled.transpose(1, 2) if plates == ("sgrna",) else None
            log_q = log_q + self._split_log_q(plates, theta, block, deviations, mask)
        _density("_locals", log_q)
        unpadded = {
            location.name: unpad(deviations[location.name], block)
            if location.plates == ("sgrna",)
            else deviations[location.name]
            for location in locations_of(structure, False)
        }
        values = centre(structure, locations_of(structure, False), unpadded, shared, block)
        for location in locations_of(structure, False):
            self._put(location, values[location.name])

    def _split_log_q(
        self, plates: Plates, theta: Theta, block: Block, deviations: Theta, mask: Tensor | None
    ) -> Tensor:
        """Log density of a table's deviations given their total, summed over elements, shape [1]."""
        locations = self.structure.table(plates)
        zero = block.data.square.new_zeros(1)
        if not locations:
            return zero
        total = sum((location.reach * deviations[location.name] for location in locations), torch.zeros(()))
        if len(locations) == 1:
            log_q = torch.full_like(total, math.log(abs(locations[0].reach)))
        else:
            variance = table_variance(self.structure, plates, theta, block)
            assert variance is not None
            log_q = -_normal_log_density(total, variance.sqrt())
            for location in locations:
                sd = deviation_sd(self.structure, location, theta, block)
                log_q = log_q + _normal_log_density(deviations[location.name], sd)
        log_q = log_q if mask is None else log_q * mask
        return log_q.reshape(-1, log_q.shape[-1]).sum(0)

    def _put(self, site: Any, values: Tensor) -> None:
        """State the value of a site, shape [*plates, 1], inside its plates."""
        value = to_program(values[..., 0], site.plates, site.dims)
        with ExitStack() as stack:
            for plate, dim, size in zip(site.plates, site.dims, values.shape, strict=False):
                if (plate, dim) not in self._plates:
                    self._plates[plate, dim] = pyro.plate(plate, size, dim=dim)
                stack.enter_context(self._plates[plate, dim])
            pyro.sample(site.name, dist.Delta(value))


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(1e-300).log()


def _normal_log_density(x: Tensor, sd: Tensor) -> Tensor:
    return -0.5 * (x / sd).square() - sd.log() - 0.5 * _LOG_2PI


def _density(name: str, log_q: Tensor) -> None:
    """Add a log density, shape [1], to the guide's, at an auxiliary site that the model does not have."""
    pyro.sample(name, dist.Delta(log_q.new_zeros(()), log_density=log_q[0]), infer={"is_auxiliary": True})


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
