"""Fits of programs whose rows have covariates, or tables by screen and batch, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from design_programs import covariate_screen, libraries, slopes, vectors

import vihier
import vihier.guides.structured_fit
from vihier.diagnostics.leave_one_out import leave_rows_out
from vihier.errors import VihierError
from vihier.guides.mixed_model import Structure
from vihier.guides.row_design import ProgramDesign
from vihier.guides.structured import StructuredGuide
from vihier.inference.batches import GeneBlocks
from vihier.inference.predictor import Predictor
from vihier.models.batch import Batch
from vihier.models.program import load_program
from vihier.refinement.refine import refine

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
REFERENCE = Path(__file__).resolve().parents[1] / "reference"
SCREEN = covariate_screen(sgrnas=(4, 5, 3, 4, 3, 4), n_lines=6)


@pytest.mark.parametrize("model", [slopes, libraries, vectors])
def test_rows_left_out_in_closed_form_agree_with_whole_draws(model: Callable[[Batch], None]) -> None:
    with vihier.fit(SCREEN, model, draws=1000, quiet=True) as post:
        assert post.converged
        of = Predictor.of(post, SCREEN, load_program(model))
        exact, raw = leave_rows_out(of, "row"), leave_rows_out(of, "row", "draws")
        good = raw.khat < 0.5
        # Two estimates of the same densities (nats a row), from the draws of the file; the first knows more.
        assert np.abs(exact.elpd - raw.elpd)[good].mean() < 0.02
        assert exact.khat.max() < 0.7 and np.quantile(exact.khat, 0.9) < np.quantile(raw.khat, 0.9)
        with pytest.raises(VihierError, match=r"^by 'cell': "):
            leave_rows_out(of, "cell")
        with pytest.raises(VihierError, match=r"model '\w+' has covariates.*refine does not take") as caught:
            refine(post, SCREEN, genes=["GENE1"], model=model)
        assert "\n" not in str(caught.value)
        assert set(post.variables) >= {site.name for site in of.sites.latent}


def test_what_takes_other_programs_only_says_so() -> None:
    with pytest.raises(VihierError, match=r"^site 'value': its mean has covariates") as caught:
        StructuredGuide(slopes, GeneBlocks(SCREEN, 2))
    assert "\n" not in str(caught.value)
    with pytest.raises(VihierError, match=r"^model: 1000000000 draws x 36 gene-line pairs.*give --draws \d+ or fewer$"):
        vihier.fit(SCREEN, libraries, draws=10**9, quiet=True)


def by_its_design(structure: Structure, model: Callable[[Batch], None]) -> Structure:
    """The same structure, its rows to be taken by what the program does with them."""
    direct = [(x.name, 1.0) for x in structure.locations if x.name in ("alpha", "beta", "gamma")]
    parents = {x.name: list(x.parents) for x in structure.locations} | {structure.observed: direct}
    offsets = {x.name: x.offset for x in structure.locations}
    design = ProgramDesign(model, structure.observed, parents, offsets, tuple(x.name for x in structure.scales), ())
    return replace(structure, design=design, row_offset=0.0)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "reference").exists(), reason="no ../shared/reference beside the repository")
def test_additive_taken_by_its_design_agrees_with_nuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Student-t rows by replicate, beside the long NUTS run that its own path is held to."""
    read = vihier.guides.structured_fit.read_structure
    monkeypatch.setattr(
        vihier.guides.structured_fit, "read_structure", lambda model, batch: by_its_design(read(model, batch), model)
    )
    data = SHARED / "reference" / "A.additive" / "data.csv.gz"
    with vihier.fit(str(data), likelihood="student_t", noise="replicate", draws=2000, quiet=True) as post:
        assert post.converged
        with np.load(REFERENCE / "A.student_t.replicate.npz") as reference:
            for name in ("effect", "effect_dev", "alpha_dev", "beta_dev"):
                draws = post.draws(name).to_numpy()[0]
                z = (draws.mean(0) - reference[f"{name}.mean"]) / reference[f"{name}.sd"]
                ratio = draws.std(0) / reference[f"{name}.sd"]
                # As for its own path in test_row_sweeps.py.
                assert np.sqrt((z**2).mean()) < 0.1 and ratio.min() > 0.85 and ratio.max() < 1.15, name
            for name in ("nu", "sigma", "sigma_sigma", "sigma_replicate"):
                z = (post.draws(name).to_numpy()[0].mean(0) - reference[f"{name}.mean"]) / reference[f"{name}.sd"]
                assert np.abs(z).max() < 0.3, name
