"""Noise in the place of standard normals that lays bare an affine map from normals to draws."""

from __future__ import annotations

import torch
from torch import Tensor


class UnitNoise:
    """No noise in the first draws, then in each draw one normal at one and the others at zero.

    Arrays of normals are numbered one after the other as they are asked for; their axis of draws is the one as long as
    there are draws.

    Parameters
    ----------
    n_draws : int
        A length that no other axis has.
    silent : int
        How many draws have no noise at all.

    Attributes
    ----------
    used : int
        Normals asked for so far.
    """

    def __init__(self, n_draws: int, silent: int = 1) -> None:
        self.n_draws, self.silent, self.used = n_draws, silent, 0

    def __call__(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        axis = list(like.shape).index(self.n_draws)
        moved = like.movedim(axis, 0)
        flat = torch.zeros(self.n_draws, moved[0].numel(), dtype=like.dtype)
        first = self.silent + self.used
        n_units = max(0, min(flat.shape[1], self.n_draws - first))
        units = torch.arange(n_units)
        flat[first + units, units] = 1
        self.used += flat.shape[1]
        return flat.reshape(moved.shape).movedim(0, axis)
