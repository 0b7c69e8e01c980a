"""Fits of programs whose rows have covariates, or tables by screen and batch, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from design_programs import covariate_screen, libraries, slopes

import vihier
from vihier.diagnostics.leave_one_out import leave_rows_out
from vihier.errors import VihierError
from vihier.guides.structured import StructuredGuide
from vihier.inference.batches import GeneBlocks
from vihier.inference.predictor import Predictor
from vihier.models.batch import Batch
from vihier.models.program import load_program
from vihier.refinement.refine import refine

SCREEN = covariate_screen(sgrnas=(4, 5, 3, 4, 3, 4), n_lines=6)


@pytest.mark.parametrize("model", [slopes, libraries])
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
