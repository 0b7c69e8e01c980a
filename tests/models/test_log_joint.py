"""Each program's log joint equals DESIGN section 2 written out row by row with scipy, by label and not by code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ragged import F64, log_joint, ragged_frame, site_values
from scipy.stats import halfnorm, norm

from vihier.inference.batches import full_batch
from vihier.models.program import load_program
from vihier.screen import Screen, read_screen

Values = dict[str, Any]


def by_label(values: dict[str, torch.Tensor], screen: Screen) -> Values:
    """Scalars as floats, tables as frames or series with labels."""
    index = screen.index
    assert index.lineages is not None
    labels = {
        "sgrna": index.sgrnas,
        "gene": index.genes,
        "line": index.lines,
        "lineage": index.lineages,
    }
    plates: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(("alpha",), ("sgrna",)),
        **dict.fromkeys(("beta", "theta"), ("line",)),
        **dict.fromkeys(("mu_beta", "sigma_beta", "mu_theta", "sigma_theta"), ("lineage",)),
        **dict.fromkeys(("mu_alpha", "sigma_alpha", "eta", "mu_mu_gamma", "sigma_mu_gamma"), ("gene",)),
        "gamma": ("gene", "line"),
    }
    if "mu_mu_gamma" in values:
        plates |= {"mu_gamma": ("gene", "lineage"), "sigma_gamma": ("lineage",)}
    else:
        plates |= {"sigma_gamma": ("gene",)}
    out: Values = {}
    for name, value in values.items():
        of = plates.get(name, ())
        array = value.numpy().reshape([len(labels[plate]) for plate in of])
        if not of:
            out[name] = float(array)
        elif len(of) == 1:
            out[name] = pd.Series(array, labels[of[0]])
        else:
            out[name] = pd.DataFrame(array, labels[of[0]], labels[of[1]])
    return out


def n(x: Any, mean: Any, sd: Any) -> float:
    return float(np.sum(norm.logpdf(x, mean, sd)))


def hn(x: Any, scale: Any) -> float:
    return float(np.sum(halfnorm.logpdf(x, 0, scale)))


def lines_prior(v: Values, name: str, lineage_of: pd.Series) -> float:
    total = n(v[f"mu_mu_{name}"], 0, 3) + hn(v[f"sigma_mu_{name}"], 3) + hn(v[f"sigma_sigma_{name}"], 3)
    total += n(v[f"mu_{name}"], v[f"mu_mu_{name}"], v[f"sigma_mu_{name}"])
    total += hn(v[f"sigma_{name}"], v[f"sigma_sigma_{name}"])
    for line, value in v[name].items():
        total += n(value, v[f"mu_{name}"][lineage_of[line]], v[f"sigma_{name}"][lineage_of[line]])
    return total


def sgrnas_prior(v: Values, gene_of: pd.Series) -> float:
    total = n(v["mu_mu_alpha"], 0, 3) + hn(v["sigma_mu_alpha"], 3) + hn(v["sigma_sigma_alpha"], 3)
    total += n(v["mu_alpha"], v["mu_mu_alpha"], v["sigma_mu_alpha"]) + hn(v["sigma_alpha"], v["sigma_sigma_alpha"])
    for sgrna, value in v["alpha"].items():
        total += n(value, v["mu_alpha"][gene_of[sgrna]], v["sigma_alpha"][gene_of[sgrna]])
    return total


def rows_of_additive(v: Values, frame: pd.DataFrame) -> float:
    total = hn(v["sigma"], 3)
    for row in frame.itertuples():
        mean = v["alpha"][row.sgrna] + v["beta"][row.depmap_id] + v["gamma"].loc[row.hugo_symbol, row.depmap_id]
        total += n(row.lfc, mean, v["sigma"])
    return total


def additive(v: Values, frame: pd.DataFrame, gene_of: pd.Series, lineage_of: pd.Series) -> float:
    total = rows_of_additive(v, frame) + sgrnas_prior(v, gene_of) + lines_prior(v, "beta", lineage_of)
    total += n(v["mu_gamma"], 0, 5) + hn(v["sigma_sigma_gamma"], 1)
    total += hn(v["sigma_gamma"], v["sigma_sigma_gamma"])
    for gene, row in v["gamma"].iterrows():
        total += n(row, v["mu_gamma"], v["sigma_gamma"][gene])
    return total


def crossed(v: Values, frame: pd.DataFrame, gene_of: pd.Series, lineage_of: pd.Series) -> float:
    total = rows_of_additive(v, frame) + sgrnas_prior(v, gene_of) + lines_prior(v, "beta", lineage_of)
    total += lines_prior(v, "theta", lineage_of)
    total += n(v["mu_eta"], 0, 3) + hn(v["sigma_eta"], 3) + n(v["eta"], v["mu_eta"], v["sigma_eta"])
    total += hn(v["sigma_sigma_gamma"], 1) + hn(v["sigma_gamma"], v["sigma_sigma_gamma"])
    for gene, row in v["gamma"].iterrows():
        for line, value in row.items():
            total += n(value, v["eta"][gene] + v["theta"][line], v["sigma_gamma"][gene])
    return total


def gene_lineage(v: Values, frame: pd.DataFrame, gene_of: pd.Series, lineage_of: pd.Series) -> float:
    total = hn(v["sigma"], 3) + n(v["mu_mu_mu_gamma"], 0, 3) + hn(v["sigma_mu_mu_gamma"], 3)
    total += hn(v["sigma_sigma_mu_gamma"], 3) + hn(v["sigma_sigma_gamma"], 3)
    total += n(v["mu_mu_gamma"], v["mu_mu_mu_gamma"], v["sigma_mu_mu_gamma"])
    total += hn(v["sigma_mu_gamma"], v["sigma_sigma_mu_gamma"]) + hn(v["sigma_gamma"], v["sigma_sigma_gamma"])
    for gene, row in v["mu_gamma"].iterrows():
        total += n(row, v["mu_mu_gamma"][gene], v["sigma_mu_gamma"][gene])
    for gene, row in v["gamma"].iterrows():
        for line, value in row.items():
            lineage = lineage_of[line]
            total += n(value, v["mu_gamma"].loc[gene, lineage], v["sigma_gamma"][lineage])
    for row in frame.itertuples():
        total += n(row.lfc, v["gamma"].loc[row.hugo_symbol, row.depmap_id], v["sigma"])
    return total


@pytest.mark.parametrize("written_out", [additive, crossed, gene_lineage])
def test_log_joint_is_the_one_written_out(written_out: Callable[..., float]) -> None:
    frame = ragged_frame()
    screen = read_screen(frame.sample(frac=1, random_state=0))
    model = load_program(written_out.__name__).model
    values = site_values(model, screen)
    gene_of = frame.drop_duplicates("sgrna").set_index("sgrna")["hugo_symbol"]
    lineage_of = frame.drop_duplicates("depmap_id").set_index("depmap_id")["lineage"]
    expected = written_out(by_label(values, screen), frame, gene_of, lineage_of)
    # A sum of about 600 float64 terms of size 1 to 10: rounding of some 1e-13 of it.
    assert log_joint(model, full_batch(screen, dtype=F64), values) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("name", ["additive", "crossed", "gene_lineage"])
def test_order_of_rows_names_of_labels_and_names_of_replicates_do_not_matter(name: str) -> None:
    frame = ragged_frame()
    model = load_program(name).model
    screen = read_screen(frame)
    values = site_values(model, screen)
    expected = log_joint(model, full_batch(screen), values)

    shuffled = read_screen(frame.sample(frac=1, random_state=1))
    assert log_joint(model, full_batch(shuffled), values) == expected

    swapped = frame.assign(replicate_id=frame["replicate_id"].map({"A": "B", "B": "A"}))
    # Rows of a cell change places: the same terms are added in another order.
    assert log_joint(model, full_batch(read_screen(swapped)), values) == pytest.approx(expected, rel=1e-13)

    # Names that sort the other way round: every table is reversed along every axis.
    renamed = frame.copy()
    for column in ("sgrna", "hugo_symbol", "depmap_id", "lineage"):
        labels = sorted(frame[column].unique())
        width = len(str(len(labels)))
        renamed[column] = frame[column].map({x: f"x{len(labels) - i:0{width}d}" for i, x in enumerate(labels)})
    turned = {key: value.flip(list(range(value.ndim))) for key, value in values.items()}
    assert log_joint(model, full_batch(read_screen(renamed)), turned) == pytest.approx(expected, rel=1e-13)
