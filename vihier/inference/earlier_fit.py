"""An earlier fit to start from: its centres, matched to a screen by label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.distributions import constraints

from vihier.errors import VihierError
from vihier.inference.labels import labels_of_dims
from vihier.inference.sites import FILE_DIMS, Site, Sites
from vihier.models.batch import Batch
from vihier.posterior.layout import ordered_dims
from vihier.posterior.reader import Posterior, open_posterior
from vihier.screen import Screen

if TYPE_CHECKING:
    from vihier.store.store import ScreenStore


class EarlierFit:
    """Posterior centres of an earlier fit, in the order of a screen; NaN where it does not have the label.

    Parameters
    ----------
    source
        A posterior file or an open posterior.
    screen
        The screen to be fitted.

    Raises
    ------
    VihierError
        If the file cannot be read.
    """

    def __init__(self, source: str | os.PathLike[str] | Posterior, screen: Screen | ScreenStore) -> None:
        self.posterior = source if isinstance(source, Posterior) else open_posterior(Path(source))
        self._labels = labels_of_dims(screen)

    def values(self, batch: Batch, sites: Sequence[Site]) -> dict[str, torch.Tensor]:
        """Centres of the sites that the earlier fit has with the same dims: site -> [*shape in the batch].

        Locations are at their mean, anything else at its median.
        """
        found: dict[str, torch.Tensor] = {}
        for site in sites:
            dims = [dim for dim in site.axis_dims() if dim is not None]
            if self.posterior.variables.get(site.name) == tuple(ordered_dims(dims)):
                values = self._centre(site, dims, batch)
                if values is not None:
                    found[site.name] = torch.as_tensor(values, device=batch.gene_idx.device).to(
                        torch.get_default_dtype()
                    )
        return found

    def log_scales(self, sites: Sites) -> dict[str, torch.Tensor]:
        """Logarithms of the medians of all scales, for the whole screen, by name; NaN where it has no such label."""
        found: dict[str, torch.Tensor] = {}
        for site in sites.latent:
            if site.support is constraints.positive:
                axes = [dim for dim in site.axis_dims() if dim is not None]
                if self.posterior.variables.get(site.name) == tuple(ordered_dims(axes)):
                    moments = self.posterior.moments(site.name)["q50"]
                    aligned = moments.reindex({dim: list(self._labels[dim]) for dim in axes if dim in self._labels})
                    found[site.name] = torch.as_tensor(np.log(aligned.to_numpy()))
        return found

    @property
    def created_at(self) -> str:
        """When it was written."""
        return str(self.posterior.attrs.get("created_at", ""))

    def check(self, sites: Sequence[Site]) -> None:
        """Refuse an earlier fit that has none of the sites.

        Raises
        ------
        VihierError
            Naming the models.
        """
        if not any(site.name in self.posterior.variables for site in sites):
            raise VihierError(
                f"init {str(self.posterior.path)!r}: a fit of {self.posterior.model!r}, with no site of this model; "
                "give a fit of the same model"
            )

    def _centre(self, site: Site, dims: Sequence[str], batch: Batch) -> np.ndarray | None:
        wanted = {dim: self._wanted(dim, site, batch) for dim in dims if dim in self._labels}
        there = {dim: np.intersect1d(labels, self.posterior.labels(dim)).tolist() for dim, labels in wanted.items()}
        if not all(there.values()):
            return None
        # A single label and a list of one are the same selection; an empty one is refused, hence the check above.
        moments = self.posterior.moments(site.name, **there)
        statistic = moments["mean" if site.support is constraints.real else "q50"]
        aligned = statistic.reindex({dim: list(labels) for dim, labels in wanted.items()})
        sizes = [
            len(site.index_in(batch)) if axis == self._local_axis(site) else n for axis, n in enumerate(site.shape)
        ]
        if any(aligned.sizes[dim] != n for dim, n in zip(site.axis_dims(), sizes, strict=True) if dim is not None):
            return None
        return aligned.transpose(*dims).to_numpy().reshape(sizes)

    def _local_axis(self, site: Site) -> int | None:
        return None if site.local_plate is None else site.local_axis

    def _wanted(self, dim: str, site: Site, batch: Batch) -> np.ndarray:
        labels = self._labels[dim]
        if site.local_plate is not None and FILE_DIMS[site.local_plate] == dim:
            return labels[site.index_in(batch).cpu().numpy()]
        return labels
