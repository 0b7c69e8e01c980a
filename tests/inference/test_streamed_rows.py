"""Student-t rows and noise by replicate in passes over a screen of any size: as in memory, whoever makes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_checkpoint import Killed, assert_same, datasets
from test_workers import run

import vihier
from vihier.errors import VihierError
from vihier.guides import swept_fit
from vihier.guides.streamed_chains import StreamedChains
from vihier.inference.plan import plan_streamed_fit
from vihier.inference.shelf import Shelf
from vihier.inference.sizes import sizes_of
from vihier.models.likelihood import Likelihood
from vihier.models.program import load_program
from vihier.posterior.reader import Posterior
from vihier.store.pack import pack
from vihier.store.store import ScreenStore

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guides"))
from agreement import assert_agrees

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
REFERENCE = Path(__file__).resolve().parents[1] / "reference"
ROWS = {"likelihood": "student_t", "noise": "replicate"}
OPTIONS = {**ROWS, "draws": 50, "seed": 3, "quiet": True, "batch_size": 2, "max_steps": 14}

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")  # so few passes


@pytest.fixture(scope="module", autouse=True)
def streaming() -> Iterator[None]:
    """Stream screens of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swept_fit, "HELD_UP_TO", 0)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ScreenStore:
    """A small screen, drawn from the model and packed: seven blocks of two genes."""
    folder = tmp_path_factory.mktemp("screen")
    made = vihier.simulate(folder / "screen.parquet", genes=14, lines=20, lineages=3, seed=5, model="additive", **ROWS)
    return pack(made.table, folder / "screen.h5")


@pytest.fixture(scope="module")
def whole(store: ScreenStore, tmp_path_factory: pytest.TempPathFactory) -> Posterior:
    """The fit that one process makes and nothing stops, its table of genes and lines kept as steps."""
    return vihier.fit(store, out=tmp_path_factory.mktemp("whole") / "fit.h5", draws_disk_gb=3e-5, **OPTIONS)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="no reference data beside the checkout")
def test_agrees_with_nuts_on_the_whole_model() -> None:
    """As the fit in memory is held to it; of the 80 rows of a replicate its scale may be off by 0.1 sds more."""
    data = SHARED / "reference" / "A.additive" / "data.csv.gz"
    post = vihier.fit(str(data), draws=2000, batch_size=10, quiet=True, **ROWS)
    assert post.converged
    scales = ["nu", "sigma", "sigma_sigma", "sigma_replicate", "sigma_line_screen", "sigma_sigma_line_screen"]
    with np.load(REFERENCE / "A.student_t.replicate.npz") as reference:
        assert_agrees(post, reference, scales, off=0.4)


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        ("crossed", {"likelihood": "student_t", "noise": "line"}),
        ("gene_lineage", {"likelihood": "normal", "noise": "replicate"}),
        ("additive", {"likelihood": "student_t", "noise": "global", "nu": 4.0}),
    ],
    ids=["crossed", "gene_lineage", "known nu"],
)
def test_agrees_with_the_fit_in_memory(store: ScreenStore, model: str, rows: dict[str, object]) -> None:
    """Other structures and rows: both sample one posterior."""
    streamed = vihier.fit(store, model, draws=400, batch_size=5, quiet=True, **rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swept_fit, "HELD_UP_TO", 10**6)
        held = vihier.fit(store, model, draws=400, quiet=True, **rows)
    for name in ("effect", "effect_gene"):
        one, other = (post.moments(name) for post in (held, streamed))
        apart = ((one["mean"] - other["mean"]) / one["sd"]).to_numpy()
        # 400 draws each, partly correlated: 0.07 to 0.1 sds.
        assert np.sqrt((apart**2).mean()) < 0.16, name
        assert abs(np.median(other["sd"] / one["sd"]) - 1) < 0.08, name


def test_two_workers_fit_what_one_fits(store: ScreenStore, whole: Posterior, tmp_path: Path) -> None:
    """One of them dies amid the passes, and the two go on; bitwise."""
    options = ["--likelihood", "student_t", "--noise", "replicate", "--draws", "50", "--max-steps", "14"]
    options += ["--draws-disk-gb", "3e-5"]
    status, _ = run(2, store, tmp_path / "two.h5", *options, "--checkpoint-every", "0", dies="1")
    assert status == 1
    status, said = run(2, store, tmp_path / "two.h5", *options, "--checkpoint-every", "0", "--resume")
    assert status == 0, said
    assert_same(tmp_path / "two.h5", datasets(whole.path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.py", "two.h5"]


def killed_and_resumed(store: ScreenStore, out: Path, owner: type, name: str, dying: object, **options: object) -> None:
    """Fit with a method in whose place another kills the fit, and go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            vihier.fit(store, out=out, draws_disk_gb=3e-5, **OPTIONS, **options)
    vihier.fit(store, out=out, resume=True, draws_disk_gb=3e-5, **OPTIONS).close()


@pytest.mark.parametrize("passes", [1, 4, 13])
def test_killed_after_a_pass(store: ScreenStore, whole: Posterior, passes: int, tmp_path: Path) -> None:
    """Amid the pass after: what its visits had written changes nothing."""
    sweep, visits = StreamedChains.sweep, []

    def dying(self: StreamedChains) -> None:
        def noting(done: int) -> None:
            visits.append(done)
            if self.state.passes == passes and done == 4:
                raise Killed

        sweep(self, noting)

    out = tmp_path / "fit.h5"
    killed_and_resumed(store, out, StreamedChains, "sweep", dying, checkpoint_every=0)
    assert len(visits) == 7 * passes + 4
    assert_same(out, datasets(whole.path))
    assert list(tmp_path.iterdir()) == [out]


def test_killed_in_the_last_pass(store: ScreenStore, whole: Posterior, tmp_path: Path) -> None:
    """What the passes drew is there still."""
    done = Shelf.done

    def dying(self: Shelf, block: int) -> None:
        if block == 2:
            raise Killed
        done(self, block)

    out = tmp_path / "fit.h5"
    killed_and_resumed(store, out, Shelf, "done", dying)
    assert_same(out, datasets(whole.path))


def test_draws_kept_as_steps_are_those_that_would_be_stored(
    store: ScreenStore, whole: Posterior, tmp_path: Path
) -> None:
    """In 16 bits each: off by half a step, of which a gene's largest deviation has 32,767."""
    assert set(whole.attrs["regenerated"]) == {"gamma", "effect", "gamma_dev", "effect_dev"}
    stored = vihier.fit(store, out=tmp_path / "fit.h5", **OPTIONS)
    assert stored.attrs["regenerated"] == []
    genes = list(stored.labels("hugo_symbol")[[9, 2]])
    with h5py.File(whole.path) as file:
        step = float(file["cells/deviation_step"][()].max())
    for name in ("gamma", "effect", "gamma_dev", "effect_dev"):
        one, other = (post.draws(name, hugo_symbol=genes).to_numpy() for post in (whole, stored))
        np.testing.assert_allclose(one, other, atol=step + 2e-5, err_msg=name)
        moments = (post.moments(name, hugo_symbol=genes)["mean"] for post in (whole, stored))
        np.testing.assert_allclose(*moments, atol=2e-5, err_msg=name)
    gene, line = whole.labels("hugo_symbol")[4], whole.labels("depmap_id")[11]
    by_gene = whole.draws("effect", hugo_symbol=gene).to_numpy()[0, :, 0]
    np.testing.assert_array_equal(by_gene[:, 11], whole.draws("effect", depmap_id=line).to_numpy()[0, :, 4, 0])
    np.testing.assert_allclose(
        by_gene.mean(1), whole.draws("effect_gene", hugo_symbol=gene).to_numpy()[0, :, 0], atol=1e-4
    )


def test_draws_without_room_are_refused(store: ScreenStore) -> None:
    """With what to give."""
    with pytest.raises(
        VihierError, match=r"^draws: 50 draws over genes and lines take 0\.0 GB .* or --draws 17 or fewer$"
    ):
        vihier.fit(store, draws_disk_gb=1e-5, **OPTIONS)


def test_plan_says_what_the_file_takes(store: ScreenStore, whole: Posterior, tmp_path: Path) -> None:
    """The gene x line table's draws in 16 bits each, and nothing of that size beside them and the moments."""
    program = load_program("additive", None, Likelihood("student_t", "replicate"))
    found = plan_streamed_fit(
        program, sizes_of(store.path), draws=1500, draws_disk_gb=2e-3, batch_size=5, folder=tmp_path
    )
    assert (found.blocks, found.pairs_stored, found.likelihood) == (3, False, "student_t")
    out = tmp_path / "fit.h5"
    vihier.fit(store, out=out, **{**OPTIONS, "draws": 1500, "draws_disk_gb": 2e-3}).close()
    assert found.disk_gb == pytest.approx(out.stat().st_size / 1e9, abs=0.006)  # rounded to 0.01 GB
    assert found.seconds > 0
    assert 0.3 < found.memory_gb < 1.5
