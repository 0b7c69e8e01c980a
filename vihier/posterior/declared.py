"""What a writer was promised: groups, their variables, and which positions have values by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vihier.errors import VihierError
from vihier.posterior import layout
from vihier.posterior.slabs import Positions, checked_positions


@dataclass
class DeclaredVariable:
    """One variable in the making; `written` marks the positions of its first index that have values."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    stored: bool
    written: np.ndarray = field(repr=False)

    def positions(self, at: Positions) -> np.ndarray:
        """Positions along the first index dim, checked."""
        if at is not None and not self.shape:
            raise VihierError(f"variable {self.name!r}: a scalar has no positions; leave `at` out")
        return checked_positions(self.name, len(self.written), at)


@dataclass(frozen=True)
class DeclaredGroup:
    """A group of variables over the same labels; `sampled` where chain and draw lead their dims."""

    name: str
    labels: dict[str, np.ndarray]
    sampled: bool
    has_moments: bool
    variables: dict[str, DeclaredVariable] = field(default_factory=dict)

    @classmethod
    def of_draws(
        cls, name: str, labels: dict[str, np.ndarray], n_draws: int, n_chains: int, *, has_moments: bool = False
    ) -> DeclaredGroup:
        """Declare a group whose variables have draws."""
        if n_draws < 1 or n_chains < 1:
            raise VihierError(f"{n_draws} draws in {n_chains} chains: both must be at least 1")
        sampled = {"chain": np.arange(n_chains, dtype=np.int64), "draw": np.arange(n_draws, dtype=np.int64)}
        return cls(name, {**sampled, **labels}, sampled=True, has_moments=has_moments)

    @property
    def leading(self) -> tuple[str, ...]:
        """Dims before the index dims of each variable."""
        return layout.SAMPLE_DIMS if self.sampled else ()

    def declare(self, name: str, dims: Sequence[str], stored: bool) -> DeclaredVariable:
        """Add a variable; one line where its name or its dims cannot be."""
        if name in self.variables:
            raise VihierError(f"variable {name!r}: added twice to group {self.name}")
        layout.check_name(name, self.labels)
        if list(dims) != layout.ordered_dims(dims):
            raise VihierError(f"variable {name!r}: dims {tuple(dims)} are not in the order {layout.ordered_dims(dims)}")
        shape = layout.sizes_of(self.labels, dims)
        written = np.zeros(shape[0] if shape else 1, dtype=bool)
        self.variables[name] = DeclaredVariable(name, tuple(dims), shape, stored, written)
        return self.variables[name]

    def variable(self, name: str) -> DeclaredVariable:
        """Look up what was declared under a name."""
        if name not in self.variables:
            raise VihierError(f"variable {name!r}: not declared in group {self.name}; call add first")
        return self.variables[name]

    def block(self, variable: DeclaredVariable, values: Any, n_positions: int, dtype: np.dtype) -> np.ndarray:
        """Values for `n_positions` of a variable's first index, as they are stored.

        The chain axis is put in where there is one chain and the caller left it out.
        """
        shape = (n_positions, *variable.shape[1:]) if variable.shape else ()
        if self.sampled:
            shape = (len(self.labels["chain"]), len(self.labels["draw"]), *shape)
        block = np.asarray(values).astype(dtype, copy=False)
        if self.sampled and shape[0] == 1 and block.ndim == len(shape) - 1:
            block = block[None]
        if block.shape != shape:
            raise VihierError(f"variable {variable.name!r}: values of shape {shape} wanted, {block.shape} given")
        return block

    def check_written(self) -> None:
        """Refuse variables that lack values."""
        for name, variable in self.variables.items():
            n_missing = int((~variable.written).sum())
            if n_missing:
                of_all = f"{n_missing} of {len(variable.written)} positions"
                raise VihierError(f"variable {name!r} of group {self.name}: {of_all} not written")
