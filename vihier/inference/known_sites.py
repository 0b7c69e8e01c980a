"""Draws of a program's sites out of a posterior file, for any screen: elements that the file does not have are new."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.inference.draws import Draws
from vihier.inference.labels import labels_of_dims
from vihier.inference.sites import FILE_DIMS, Site, Sites
from vihier.models.batch import Batch
from vihier.posterior.layout import ordered_dims
from vihier.posterior.reader import Posterior
from vihier.screen import Screen
from vihier.screen.faults import shown

Known = dict[str, torch.Tensor | None]
"""Site -> which of its elements a posterior has, bool [*shape in the batch]; None where it has none of them."""


class KnownSites:
    """Draws of the sites that a posterior has, aligned by label with the batches of a screen.

    Parameters
    ----------
    posterior
        Of the program whose sites are read.
    sites
        The program's sites on `screen`.
    screen
        May have sgRNAs, genes, lines, lineages, replicates and categories that the posterior does not have.

    Raises
    ------
    VihierError
        An sgRNA of another gene than in the posterior, a line of another lineage, a site that the posterior lacks.
    """

    def __init__(self, posterior: Posterior, sites: Sites, screen: Screen) -> None:
        self.posterior, self.sites = posterior, sites
        self.labels = labels_of_dims(screen)
        for site in sites.latent:
            if posterior.variables.get(site.name) != tuple(ordered_dims(_dims(site))):
                there = ", ".join(_dims(site)) or "no dims"
                raise VihierError(f"{posterior.path}: has no {site.name!r} over {there}; wrong model?")
        _check_maps(posterior, screen)

    def read(self, batch: Batch, names: Collection[str]) -> tuple[Draws, Known]:
        """Return draws of some sites, [n, *shape in the batch], zero where they are not known, and which are known."""
        values: dict[str, torch.Tensor] = {}
        known: Known = {}
        for site in self.sites.latent:
            if site.name in names:
                found, mask = self._read(site, batch)
                known[site.name] = mask
                if found is not None:
                    values[site.name] = found
        return values, known

    def _read(self, site: Site, batch: Batch) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        post, dims = self.posterior, _dims(site)
        shape = list(site.shape)
        if site.local_plate is not None:
            shape[site.local_axis] = len(site.index_in(batch))
        wanted: dict[str, list[str]] = {}
        masks: list[np.ndarray] = []
        for dim, size in zip(dims, [n for n, name in zip(shape, site.axis_dims(), strict=True) if name], strict=True):
            labels = self.labels.get(dim)
            if labels is None or post.labels(dim).dtype.kind == "i":
                if len(post.labels(dim)) != size:
                    raise VihierError(
                        f"{post.path}: {site.name!r} has {len(post.labels(dim))} elements along {dim}, and {size} here"
                    )
                masks.append(np.ones(size, dtype=bool))
                continue
            if site.local_plate is not None and FILE_DIMS[site.local_plate] == dim:
                labels = labels[site.index_in(batch).cpu().numpy()]
            masks.append(np.isin(labels, post.labels(dim)))
            wanted[dim] = labels[masks[-1]].tolist()
            if not wanted[dim]:
                return None, None
        found = post.draws(site.name, **wanted).stack(sample=("chain", "draw")).transpose("sample", *dims).to_numpy()
        found = found.astype(np.float64)
        places = np.ix_(np.arange(len(found)), *(np.flatnonzero(mask) for mask in masks))
        whole = np.zeros((len(found), *(len(mask) for mask in masks)))
        whole[places] = found
        mask = np.zeros(whole.shape[1:], dtype=bool)
        mask[np.ix_(*(np.flatnonzero(each) for each in masks))] = True
        return torch.as_tensor(whole.reshape(-1, *shape)), torch.as_tensor(mask.reshape(shape))


def new_elements(posterior: Posterior, screen: Screen) -> dict[str, np.ndarray]:
    """Mark the labels of a screen that a posterior does not have: dim -> bool over the screen's labels."""
    return {
        dim: ~np.isin(labels, posterior.labels(dim))
        for dim, labels in labels_of_dims(screen).items()
        if dim in posterior.dims
    }


def _dims(site: Site) -> list[str]:
    return [dim for dim in site.axis_dims() if dim is not None]


def _check_maps(posterior: Posterior, screen: Screen) -> None:
    """Refuse an sgRNA of another gene, or a line of another lineage, than the posterior has."""
    maps = posterior.group("index")
    index = screen.index
    pairs = [("sgrna", "hugo_symbol", "gene_of_sgrna", index.sgrnas, index.genes, index.gene_of_sgrna)]
    if index.lineages is not None and index.lineage_of_line is not None and "lineage_of_line" in maps:
        pairs.append(("depmap_id", "lineage", "lineage_of_line", index.lines, index.lineages, index.lineage_of_line))
    for dim, parent, name, labels, parents, of_label in pairs:
        if name not in maps:
            continue
        theirs = dict(zip(posterior.labels(dim), posterior.labels(parent)[maps[name].to_numpy()], strict=True))
        for label, ours in zip(labels, parents[of_label], strict=True):
            if theirs.get(label, ours) != ours:
                raise VihierError(
                    f"{dim} {shown(label)}: its {parent} is {shown(ours)} here and {shown(theirs[label])} in "
                    f"{posterior.path}; correct the table"
                )
