"""What a guide says beside a long run of a sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from vihier.errors import VihierError
from vihier.plots.axes import WARN_COLOUR, axes, lineage_colours

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

VARIABLES_NAMED = 8
# Shifts and ratios that nobody would notice in a figure of the posterior.
SHIFT, RATIO = 0.2, 1.2


def guide_vs_nuts(guide: pd.DataFrame, nuts: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw, for each element that both have, how far the guide's mean is from NUTS', and how wide it is beside it.

    A perfect guide has all dots at (0, 1), up to the sampler's own error.

    Parameters
    ----------
    guide, nuts
        Tables as from `Posterior.summary`: `variable`, label columns, `mean` and `sd`.
    ax
        Where to draw; a new figure when None.

    Raises
    ------
    VihierError
        The two have no element in common.
    """
    keys = [str(name) for name in guide.columns.intersection(nuts.columns) if guide[name].dtype.kind not in "fb"]
    keys = [name for name in keys if name != "not_identified"]
    both = guide.merge(nuts, on=keys, suffixes=("_guide", "_nuts"))
    both = both[(both["sd_nuts"] > 0) & (both["sd_guide"] > 0)]
    if both.empty:
        raise VihierError("the guide's table and that of NUTS have no element in common")
    ax = axes(ax, 6.4, 5.2)
    shift = ((both["mean_guide"] - both["mean_nuts"]) / both["sd_nuts"]).to_numpy(np.float64)
    ratio = (both["sd_guide"] / both["sd_nuts"]).to_numpy(np.float64)
    by_size = both["variable"].value_counts(sort=True)
    names = by_size.index.tolist()
    shown = names if len(names) <= VARIABLES_NAMED else names[: VARIABLES_NAMED - 1]
    colours = lineage_colours(len(shown))
    # Few dots are drawn over many.
    size = 16 if len(both) < 500 else 5
    ax.add_patch(_box())
    for place, name in enumerate(shown):
        here = (both["variable"] == name).to_numpy()
        ax.scatter(
            shift[here],
            ratio[here],
            s=size,
            color=colours[place],
            alpha=0.6,
            linewidths=0,
            label=f"{name} ({here.sum():,})",
        )
    rest = (~both["variable"].isin(shown)).to_numpy()
    if rest.any():
        ax.scatter(
            shift[rest], ratio[rest], s=size, color="0.5", alpha=0.6, linewidths=0, label=f"others ({rest.sum():,})"
        )
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    widest, farthest = max(1.5, ratio.max(), 1 / ratio.min()) * 1.1, max(0.5, np.abs(shift).max()) * 1.1
    ax.set(xlim=(-farthest, farthest), ylim=(1 / widest, widest))
    ax.set(xlabel="mean of guide minus mean of NUTS (sds of NUTS)", ylabel="sd of guide / sd of NUTS")
    within = (np.abs(shift) <= SHIFT) & (np.abs(np.log(ratio)) <= np.log(RATIO))
    ax.set_title(f"{within.mean():.1%} of {len(both):,} within {SHIFT:g} sd and a factor of {RATIO:g}", fontsize=10)
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _box() -> Rectangle:
    return Rectangle((-SHIFT, 1 / RATIO), 2 * SHIFT, RATIO - 1 / RATIO, fill=False, color=WARN_COLOUR, linewidth=1)


def nuts_tables(post: Posterior) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of a fit's guide and of its NUTS run, of all that the run has draws of.

    Parameters
    ----------
    post
        A fit with the group `nuts`, which `vihier refine` writes.

    Returns
    -------
    tuple
        Two tables of `variable`, label columns, `mean` and `sd`: the guide's and NUTS'.

    Raises
    ------
    VihierError
        The fit has no such group.
    """
    with h5py.File(post.path, "r", locking="best-effort") as file:
        if "nuts" not in file:
            raise VihierError(f"{post.path}: has no group 'nuts'; `vihier refine` runs NUTS and writes it")
    run = post.group("nuts")
    names = [
        str(name) for name, values in run.items() if values.dims[:2] == ("chain", "draw") and name in post.variables
    ]
    guides, samplers = [], []
    for name in names:
        dims = post.variables[name]
        if run[name].dims[2:] != dims:
            continue
        each = ("chain", "draw")
        table = xr.Dataset({"mean": run[name].mean(each), "sd": run[name].std(each, ddof=1)}).reset_coords(drop=True)
        frame = (
            table.to_dataframe().reset_index() if dims else pd.DataFrame({key: [float(table[key])] for key in table})
        )
        samplers.append(frame.assign(variable=name))
        guides.append(post.summary(name, **{dim: run[dim].values.tolist() for dim in dims}))
    if not guides:
        raise VihierError(f"{post.path}: the group 'nuts' has none of the fit's variables")
    return pd.concat(guides, ignore_index=True), pd.concat(samplers, ignore_index=True)
