r"""The baseline: every element of every site independent and Normal in unconstrained space.

$$ q(z) = \prod_i N(u_i;\ m_i + s_i a_i,\ s_i e^{b_i}), \quad z_i = T(u_i) $$
with $m, s$ the starting values, fixed, and $a, b$ what is learned, 0 at the start: steps are counted in units of the
starting standard deviation, so that one learning rate suits the mean of a million rows and that of ten (automatic
differentiation variational inference, Kucukelbir et al. 2017, JMLR 18(14), standardised).

Sites of genes and sgRNAs are rows of two tables, one element of the plate in each; a batch looks up the rows of its
own genes and sgRNAs and touches no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from pyro.nn import PyroModule
from torch.distributions import biject_to, constraints

from vihier.errors import VihierError
from vihier.inference.sites import LOCAL_PLATES, Site, Sites, read_sites
from vihier.models.batch import Batch

DEFAULT_SD = 0.1
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
# Tables are named for what their rows are; the shared sites are one table of one row.
SHARED = "shared"

_Size = torch.Size | list[int] | tuple[int, ...]


@dataclass(frozen=True)
class _Columns:
    """Where a site's unconstrained elements are in its table.

    Attributes
    ----------
    site
        The site.
    first, last
        Columns.
    shape
        Unconstrained shape of one row: without the axis of genes or sgRNAs.
    """

    site: Site
    first: int
    last: int
    shape: tuple[int, ...]

    def to_site(self, rows: torch.Tensor) -> torch.Tensor:
        """Bring rows [..., rows, columns of the table] to the site's unconstrained shape [..., *shape]."""
        lead = rows.shape[:-2]
        part = rows[..., self.first : self.last]
        if self.site.local_plate is None:
            return part.reshape((*lead, *self.shape))
        part = part.reshape((*lead, rows.shape[-2], *self.shape))
        axis = self.site.local_axis
        return part if axis == 0 else part.movedim(len(lead), len(lead) + axis)

    def to_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Bring the site's unconstrained values to rows [rows, columns of the site]."""
        if self.site.local_plate is None:
            return values.reshape(1, -1)
        return values.movedim(self.site.local_axis, 0).reshape(values.shape[self.site.local_axis], -1)


class MeanField(PyroModule):
    """Independent Normal guide for any program on batches of a screen, right in minibatches.

    Parameters
    ----------
    model
        The Pyro program, `def model(batch)`.
    batch
        One batch of the screen, to read the program's sites from; best the first gene block.
    sparse
        Whether gradients of the two tables are sparse, for `torch.optim.SparseAdam`. Dense ones suit any optimiser
        but touch every row each step.

    Raises
    ------
    VihierError
        If the program's sites do not keep to what `Batch` asks for, naming the site.

    Examples
    --------
    In a loop of one's own, with plain Pyro:

    >>> import pandas as pd, pyro
    >>> from pyro.infer import SVI, Trace_ELBO
    >>> from vihier.inference.batches import gene_blocks
    >>> from vihier.models.gene_lineage import model
    >>> from vihier.screen import read_screen
    >>> frame = pd.DataFrame({"sgrna": list("abcd"), "hugo_symbol": list("AABB"), "depmap_id": "ACH-1",
    ...     "lineage": "skin", "lfc": [0.1, 0.2, -1.0, -1.1]})
    >>> blocks = gene_blocks(read_screen(frame), 1, dtype=torch.float32)
    >>> guide = MeanField(model, blocks[0])
    >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    >>> losses = [svi.step(batch) for _ in range(3) for batch in blocks]
    >>> len(losses)
    6
    """

    def __init__(self, model: Callable[[Batch], Any], batch: Batch, *, sparse: bool = False) -> None:
        super().__init__("mean_field")
        self.sites: Sites = read_sites(model, batch)
        self.sparse = sparse
        self.n_rows = {SHARED: 1, "gene": batch.n_genes, "sgrna": batch.n_sgrnas}
        self.columns: dict[str, tuple[_Columns, ...]] = {
            SHARED: _lay_out(self.sites.shared),
            **{
                plate: _lay_out(tuple(site for site in self.sites.local if site.local_plate == plate))
                for plate in LOCAL_PLATES
            },
        }
        for table, columns in self.columns.items():
            shape = (self.n_rows[table], columns[-1].last if columns else 0)
            # One table for a and b, and one for m and log s: a batch then looks up, and steps, once a plate.
            self.register_parameter(table, torch.nn.Parameter(torch.zeros(shape[0], 2 * shape[1])))
            start = torch.zeros(shape[0], 2 * shape[1])
            start[:, shape[1] :] = float(torch.tensor(DEFAULT_SD).log())
            self.register_buffer(f"{table}_start", start)

    def start_at(self, loc: Mapping[str, torch.Tensor], sd: Mapping[str, torch.Tensor], batch: Batch) -> None:
        """Set starting values, and put what is learned of those elements back to 0.

        Parameters
        ----------
        loc, sd
            Site -> unconstrained location and standard deviation, for shared sites or for those of the batch.
        batch
            Which rows of the tables the local sites' values are.
        """
        with torch.no_grad():
            for table, all_columns in self.columns.items():
                learned, start = self._table(table)
                width = start.shape[1] // 2
                rows = self.rows_of(table, batch)
                for columns in all_columns:
                    name = columns.site.name
                    if name not in loc:
                        continue
                    for offset, values in ((0, loc[name]), (width, sd[name].log())):
                        at = slice(offset + columns.first, offset + columns.last)
                        start[rows, at] = columns.to_rows(values).to(start)
                        learned[rows, at] = 0.0

    def _table(self, table: str) -> tuple[torch.Tensor, torch.Tensor]:
        return getattr(self, table), getattr(self, f"{table}_start")

    def rows_of(self, table: str, batch: Batch) -> torch.Tensor:
        """Rows of a table that belong to a batch, int64."""
        if table == SHARED:
            return torch.zeros(1, dtype=torch.int64, device=batch.gene_idx.device)
        return batch.gene_idx if table == "gene" else batch.sgrna_idx

    def locations(self, table: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unconstrained locations and standard deviations of rows of a table: two tensors [rows, columns]."""
        learned, start = self._table(table)
        offset, log_factor = torch.nn.functional.embedding(rows, learned, sparse=self.sparse and table != SHARED).chunk(
            2, dim=-1
        )
        loc, log_sd = start[rows].chunk(2, dim=-1)
        sd = log_sd.exp()
        return loc + sd * offset, sd * log_factor.exp()

    def forward(self, batch: Batch) -> None:
        """Sample every site of a batch."""
        plates: dict[tuple[str, int], Any] = {}
        self._sample(SHARED, batch, plates)
        with batch.local():
            for plate in LOCAL_PLATES:
                if self.columns[plate]:
                    self._sample(plate, batch, plates)

    def _sample(self, table: str, batch: Batch, plates: dict[tuple[str, int], Any]) -> None:
        if not self.columns[table]:
            return
        loc, sd = self.locations(table, self.rows_of(table, batch))
        value = loc + sd * torch.randn_like(loc)
        drawn = _Normal(loc.detach(), sd.detach(), value)
        drawn = replace(drawn, log_density=drawn.log_density_of(value))
        for columns in self.columns[table]:
            site, sample = columns.site, _Drawn(columns, drawn)
            with ExitStack() as stack:
                for plate, dim in site.plates.items():
                    if (plate, dim) not in plates:
                        plates[plate, dim] = pyro.plate(plate, sample.batch_shape[dim], dim=dim)
                    stack.enter_context(plates[plate, dim])
                pyro.sample(site.name, sample)

    def draw(
        self, table: str, rows: torch.Tensor, n_draws: int, generator: torch.Generator
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Draw the sites of some rows of a table without Pyro.

        Returns
        -------
        draws
            Site -> [n_draws, *shape].
        log_q
            Log density of each draw, summed over these rows, float64 [n_draws].
        """
        draws: dict[str, torch.Tensor] = {}
        if not self.columns[table]:
            return draws, torch.zeros(n_draws, dtype=torch.float64, device=rows.device)
        with torch.no_grad():
            loc, sd = self.locations(table, rows)
            noise = torch.randn(n_draws, *loc.shape, generator=generator, dtype=loc.dtype, device=loc.device)
            log_q = dist.Normal(0.0, 1.0).log_prob(noise).sum((1, 2), dtype=torch.float64)
            log_q = log_q - sd.log().sum(dtype=torch.float64)
            values = loc + sd * noise
            for columns in self.columns[table]:
                unconstrained = columns.to_site(values)
                transform = biject_to(columns.site.support)
                value = transform(unconstrained)
                draws[columns.site.name] = value
                jacobian = transform.log_abs_det_jacobian(unconstrained, value)
                log_q = log_q - jacobian.reshape(n_draws, -1).sum(1, dtype=torch.float64)
        return draws, log_q


def _lay_out(sites: tuple[Site, ...]) -> tuple[_Columns, ...]:
    laid: list[_Columns] = []
    first = 0
    for site in sites:
        shape = list(biject_to(site.support).inverse_shape(torch.Size(site.shape)))
        if site.local_plate is not None:
            del shape[site.local_axis]
        size = int(torch.Size(shape).numel())
        laid.append(_Columns(site, first, first + size, tuple(shape)))
        first += size
    return tuple(laid)


@dataclass(frozen=True)
class _Normal:
    """Independent Normals, what was drawn from them, and its log density."""

    loc: torch.Tensor
    sd: torch.Tensor
    value: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    log_density: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    def log_density_of(self, value: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((value - self.loc) / self.sd) ** 2 - self.sd.log() - HALF_LOG_TWO_PI


class _Drawn(dist.TorchDistribution):
    """An independent Normal in unconstrained space with a draw already made, all sites of a table at once.

    The log density of that draw differentiates the value but not the parameters: what is left out has mean zero and is
    most of the noise near the optimum (Roeder, Wu and Duvenaud 2017, "Sticking the landing", NeurIPS 30).
    """

    has_rsample = True

    def __init__(self, columns: _Columns, drawn: _Normal) -> None:
        self.site, self._columns, self._drawn = columns.site, columns, drawn
        value = columns.to_site(drawn.value)
        batch_ndim = len(self.site.shape) - self.site.event_dim
        self._unconstrained_dims = value.ndim - batch_ndim
        super().__init__(value.shape[:batch_ndim], torch.Size(self.site.shape[batch_ndim:]), validate_args=False)
        self._value, self._log_density = self._constrain(value, columns.to_site(drawn.log_density))

    @constraints.dependent_property
    def support(self) -> Any:
        return self.site.support

    def _constrain(self, value: torch.Tensor, log_density: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.site.support is constraints.real:
            return value, log_density
        if self.site.support is constraints.positive:
            return value.exp(), log_density - value
        transform = biject_to(self.site.support)
        constrained = transform(value)
        log_density = sum_rightmost(log_density, self._unconstrained_dims)
        jacobian = transform.log_abs_det_jacobian(value, constrained)
        return constrained, log_density - sum_rightmost(jacobian, jacobian.ndim - log_density.ndim)

    def expand(self, batch_shape: _Size, _instance: Any = None) -> _Drawn:
        if torch.Size(batch_shape) != self.batch_shape:
            raise VihierError(f"site {self.site.name!r}: its plates differ between batches")
        return self

    def rsample(self, sample_shape: _Size = ()) -> torch.Tensor:
        assert not sample_shape
        return self._value

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        if value is self._value:
            return self._log_density
        unconstrained = biject_to(self.site.support).inv(value)
        normal = _Normal(*(self._columns.to_site(x) for x in (self._drawn.loc, self._drawn.sd)))
        return self._constrain(unconstrained, normal.log_density_of(unconstrained))[1]
