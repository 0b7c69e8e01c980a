"""The tables shared by genes once the genes' own are known: lines are independent, and the tables a tree."""

from __future__ import annotations

from torch import Tensor


def draw_shared_given_genes(
    weight: Tensor,
    rhs: Tensor,
    prior: tuple[Tensor | None, Tensor | None, Tensor | None],
    lineage: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the shared tables given each gene's d, with e integrated out: then lines are independent, and a tree.

    Parameters
    ----------
    weight, rhs : Tensor
        Precision and right-hand side of t, summed over genes, shape [C, N].
    prior : tuple
        Prior variances of the tables over lines [C or 1, N], lineages [L or 1, N] and nothing [N]; None where absent.
    lineage : Tensor
        One-hot lineage of each line, shape [C, L].
    noise : Tensor
        Standard normals, shape [C + L + 1, N].

    Returns
    -------
    tuple of Tensor
        Deviations of the three tables: [C, N], [L, N], [N]; zero where a table is absent.
    """
    n_lines, n_lineages = lineage.shape
    by_line, by_lineage, scalar = (x if x is not None else weight.new_zeros(()) for x in prior)
    shrink = 1.0 / (1.0 + by_line * weight)
    if prior[1] is None:
        group_shrink, group_weight, group_rhs = None, shrink * weight, shrink * rhs
        top_weight, top_rhs = group_weight.sum(0), group_rhs.sum(0)
    else:
        group_weight, group_rhs = lineage.T @ (shrink * weight), lineage.T @ (shrink * rhs)
        group_shrink = 1.0 / (1.0 + by_lineage * group_weight)
        top_weight, top_rhs = (group_shrink * group_weight).sum(0), (group_shrink * group_rhs).sum(0)
    top = (scalar * top_rhs + scalar.sqrt() * (1.0 + scalar * top_weight).sqrt() * noise[-1]) / (
        1.0 + scalar * top_weight
    )
    groups = weight.new_zeros(n_lineages, weight.shape[1])
    above = top
    if group_shrink is not None:
        groups = by_lineage * group_shrink * (group_rhs - group_weight * top)
        groups = groups + (by_lineage * group_shrink).sqrt() * noise[n_lines:-1]
        above = top + lineage @ groups
    lines = by_line * shrink * (rhs - weight * above) + (by_line * shrink).sqrt() * noise[:n_lines]
    return lines, groups, top
