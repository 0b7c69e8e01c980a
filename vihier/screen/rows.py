"""Rows of a screen as arrays side by side, whether they lie in memory or on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a screen, in canonical order; codes and units as in `Screen`.

    Attributes
    ----------
    gene, sgrna, line, replicate
        int32 [n] codes.
    lfc
        float64 [n], log2 fold change.
    covariates
        float64 [n], or int32 [n] codes (-1 is missing).
    """

    gene: np.ndarray
    sgrna: np.ndarray
    line: np.ndarray
    replicate: np.ndarray
    lfc: np.ndarray
    covariates: dict[str, np.ndarray]
