"""What genes share, drawn several times over from what one pass over the genes says."""

from __future__ import annotations

from torch import Tensor

from vihier.guides.block import Theta
from vihier.guides.gene_chains import Said
from vihier.guides.interweave import Sweeper
from vihier.guides.scale_terms import children_of, users_of


def settle_shared(sweeper: Sweeper, theta: Theta, said: Said, times: int) -> Tensor:
    """Draw the shared locations, their own scales and the scales of those, several times over: that costs no pass.

    Parameters
    ----------
    theta : dict
        Gets the scales' new values; `sweeper.shared` the locations'.
    said : Said
        What the genes' tables say. A shift of them all against the shared level goes along from time to time.

    Returns
    -------
    Tensor
        How far all genes have shifted against what they share, [N].
    """
    collapsed = {scale.name for scale in sweeper.collapsed}
    above = [
        scale
        for scale in sweeper.global_scales
        if not users_of(sweeper.structure, scale)
        and {child.name for child in children_of(sweeper.structure, scale)} & collapsed
        and {child.name for child in children_of(sweeper.structure, scale)} <= collapsed
    ]
    whole = said.level_pull.new_zeros(said.level_pull.shape)
    for _ in range(times):
        shift = sweeper.draw_shared(theta, said)
        whole = whole + shift
        said = Said(
            said.weight,
            said.rhs - said.weight * shift,
            said.level_precision,
            said.level_pull + said.level_precision * shift,
        )
        for scale in above:
            sweeper.move(theta, scale)
    return whole
