"""Add groups to a posterior file: a copy of it grows under a temporary name and takes its place when it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vihier.posterior.declared import DeclaredGroup
from vihier.posterior.partial import PartialFile, set_attrs
from vihier.posterior.writer import Labels, PosteriorWriter


class GroupAdder(PosteriorWriter):
    """Write a group of draws, with labels, chains and draws of its own, beside those of a posterior file.

    Parameters
    ----------
    path, source : Path
        The file that is written, and the one that it starts as a copy of; they may be the same.
    group : str
        The group of draws.
    replaced : sequence of str
        Groups of the source that are left out.
    labels, n_draws, n_chains
        As for `PosteriorWriter`.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from vihier.posterior.reader import open_posterior
    >>> about = dict(model="additive", guide="structured", seed=0, priors={}, config="", screen_hash="")
    >>> path = Path(tempfile.mkdtemp(), "fit.h5")
    >>> with PosteriorWriter(path, labels={}, n_draws=2, attrs=about) as writer:
    ...     writer.add("sigma")
    ...     writer.write("sigma", np.ones(2))
    ...     writer.finish(converged=True)
    >>> with GroupAdder(path, path, "nuts", (), labels={}, n_draws=3, n_chains=2) as writer:
    ...     writer.add("sigma")
    ...     writer.write("sigma", np.ones((2, 3)))
    ...     writer.finish_group(attrs={"seed": 1})
    >>> open_posterior(path).group("nuts")["sigma"].shape
    (2, 3)
    """

    def __init__(
        self,
        path: Path,
        source: Path,
        group: str,
        replaced: Sequence[str],
        *,
        labels: Labels,
        n_draws: int,
        n_chains: int,
    ) -> None:
        self._main_group = group
        self._source, self._replaced = source, replaced
        super().__init__(path, labels=labels, n_draws=n_draws, n_chains=n_chains)

    def _declare_main_group(self, n_draws: int, n_chains: int) -> None:
        name = self._main_group
        self._groups[name] = DeclaredGroup.of_draws(name, self._labels, n_draws, n_chains)

    def _open_partial(self) -> PartialFile:
        partial = PartialFile(self.path, copy_of=self._source)
        try:
            with partial.speaking_plainly():
                for name in self._replaced:
                    if name in partial.file:
                        del partial.file[name]
        except BaseException:
            partial.abandon()
            raise
        return partial

    def finish_group(self, *, attrs: Mapping[str, Any]) -> None:
        """Check that everything declared was written, describe the group by attributes, and give the file its name."""
        for group in self._groups.values():
            group.check_written()
        with self._partial.speaking_plainly():
            set_attrs(self._file[self._main_group], attrs)
        self._partial.publish()
        self._finished = True
