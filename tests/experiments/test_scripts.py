"""The experiments run, print JSON that can be read, and write the figures they name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vihier

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "avana_ky.parquet"
with_data = pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data/avana_ky.parquet beside the repository")


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "experiments" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def png_names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.rglob("*.png"))
    assert all(path.stat().st_size > 5_000 for path in folder.rglob("*.png"))  # an empty figure has 2 kB
    return names


@pytest.mark.slow
def test_the_demo_shows_a_summary_and_a_picture(tmp_path: Path) -> None:
    done = run("demo.py", "--out", tmp_path, "--genes", "8", "--lines", "10", "--guide", "mean_field")
    assert done.returncode == 0, done.stderr
    assert f"The picture: {tmp_path / 'demo.png'}" in done.stdout
    assert "effect_dev" in done.stdout and "covered by 89 %" in done.stdout
    assert png_names(tmp_path) == ["demo.png"]
    assert (tmp_path / "fit.h5").is_file() and (tmp_path / "screen.truth.h5").is_file()


@pytest.mark.slow
@with_data
def test_avana_ky_judges_the_effects_of_a_few_genes(tmp_path: Path) -> None:
    done = run("avana_ky.py", "--quick", "--guide", "mean_field", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["screen"]["lines"] == 58 and record["screen"]["genes"] == 60
    # Raw means of all genes reach 0.961 and 0.987; sixty genes and a hundred steps are not far from that.
    assert all(each["auroc"] > 0.9 and each["nnmd"] < -3 for each in record["controls"].values())
    assert png_names(tmp_path) == sorted(record["figures"]) == ["controls.png", "effect_heatmap.png", "elbo.png"]


@pytest.mark.slow
@with_data
def test_the_seed_notebook_shows_what_its_prior_does(tmp_path: Path) -> None:
    done = run("seed_notebook.py", "--quick", "--guide", "mean_field", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    five = record["five_lineages"]
    assert len(five["screen"]["lines_per_lineage"]) == 5 and len(five["screen"]["genes"]) == 5
    assert record["all_lines"]["screen"]["lines"] == 44
    # N(3, 1) pulls the mean of a handful of genes, which the data leave wide, upwards.
    assert five["prior_difference"]["hyperparameters_in_sd"]["mu_mu_mu_gamma"] > 0
    assert len(png_names(tmp_path)) == 2 * (3 + 3 * 4)
    assert (tmp_path / "additive.dot").read_text().startswith("digraph")


@pytest.mark.slow
def test_programs_of_ones_own_find_what_their_data_were_made_from() -> None:
    """Sizes that take seconds; shares are of some dozens of genes, and intervals of 90 % hold about that many."""
    found = {}
    for script, arguments in (
        ("paralogues.py", ("--genes", "40")),
        ("time_course.py", ("--genes", "80")),
        ("sgrna_scores.py", ("--genes", "40")),
    ):
        done = run(script, *arguments, "--draws", "200")
        assert done.returncode == 0, done.stderr
        found[script] = json.loads(done.stdout)
        assert found[script]["converged"]
    buffering = found["paralogues.py"]["buffering_mean"]
    assert buffering["buffered"] == pytest.approx(0.4, abs=0.06) and buffering["others"] == pytest.approx(0, abs=0.06)
    course = found["time_course.py"]
    assert course["correlation_with_true_rates"] > 0.97 and course["drug_genes_found"] == "20 of 20"
    assert int(course["others_called"].split()[0]) < 0.25 * 60
    scores = found["sgrna_scores.py"]
    assert scores["rms_error"] < 0.6 * scores["rms_error_of_plain_means"]
    assert scores["covered_by_90%"] == pytest.approx(0.9, abs=0.04)


@pytest.mark.slow
def test_both_paths_give_one_posterior(tmp_path: Path) -> None:
    """As near as 400 draws of chains tell: 0.07 sds were they independent, 0.1 as they are."""
    table = tmp_path / "s.parquet"
    vihier.simulate(table, genes=10, lines=12, lineages=2, seed=3, model="additive")
    done = run("general_path.py", "--data", table, "--draws", "400", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    effects = found["effects"]["own and general"]
    assert effects["mean_rms_in_sds"] < 0.2 and 0.95 < effects["sd_ratio_median"] < 1.05
    assert found["cpu_ratio"] > 0 and len(found["cpu_seconds"]["general"]) == 1


@pytest.mark.slow
@with_data
def test_models_are_compared_on_a_few_genes(tmp_path: Path) -> None:
    done = run("model_comparison.py", "--genes", "25", "--draws", "100", "--loo-draws", "50", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)["models"]
    assert list(models) == ["additive", "covariate", "multi_screen"]
    assert models["additive"]["loo"]["difference"] == models["additive"]["held_out"]["difference"] == 0
    for model, found in models.items():
        assert found["converged"], model
        # Held-out rows and rows left out one by one are predicted about as well.
        assert found["loo"]["per_row"] == pytest.approx(found["held_out"]["per_row"], abs=0.1)
    assert png_names(tmp_path) == ["model_comparison.png"]


@pytest.mark.slow
@with_data
def test_counts_are_held_out_of_a_few_genes() -> None:
    arguments = ["--genes", "8", "--draws", "100", "--held", "rows", "--only", "global,abundance", "--no-student-t"]
    done = run("count_likelihoods.py", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["rows"]
    scores = found["noise by global, dispersion by abundance"]
    assert scores["converged"]
    # One noise for replicates that differ by a factor of three: the middle is too wide; some 500 counts, 0.02 each.
    assert 0.55 < scores["coverage"]["all"]["50%"] < 0.85
    assert 0.85 < scores["coverage"]["all"]["90%"] < 0.99
    assert scores["abundance_power"] > 0


@pytest.mark.slow
@with_data
def test_counts_are_compared_with_their_logarithms_on_a_few_genes(tmp_path: Path) -> None:
    arguments = ["--genes", "12", "--draws", "50", "--only", "additive, student_t", "--only", "additive, counts"]
    done = run("count_comparison.py", *arguments, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)["models"]
    assert list(models) == ["additive, normal", "additive, student_t", "additive, counts"]
    assert models["additive, normal"]["difference"] == 0
    for model in ("additive, student_t", "additive, counts"):
        # Some 700 counts: a share of 0.9 errs by 0.011, and by 0.02 where rows of a replicate share its noise.
        assert models[model]["covered_by_90%"] == pytest.approx(0.9, abs=0.05)
        assert models[model]["difference"] > 0.1  # one noise scale for replicates that differ by a factor of three
    assert png_names(tmp_path) == ["count_comparison.png"]


@pytest.mark.parametrize(
    "script", ["avana_ky.py", "seed_notebook.py", "model_comparison.py", "general_path.py", "two_accounts.py"]
)
def test_absent_data_are_one_line(script: str, tmp_path: Path) -> None:
    done = run(script, "--data", tmp_path / "nowhere.parquet")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_absent_gene_sets_are_one_line(tmp_path: Path) -> None:
    done = run("avana_ky.py", "--data", __file__, "--gene-sets", tmp_path / "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "gene sets" in done.stderr


@pytest.mark.slow
def test_a_fit_takes_the_likelier_account_of_sgrnas_and_genes() -> None:
    """Its draws lie about the higher hump of a quadrature that no part of the fitter has to do with."""
    done = run("two_accounts.py", "--genes", "240", "--lines", "40", "--draws", "100")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    higher, lower = record["humps"][:2]
    assert lower["nats"] < -10 and lower["log sigma_mu_alpha"] > higher["log sigma_mu_alpha"] + 0.5
    for site, found in record["fit"].items():
        # Humps are on a grid of steps of 0.1, and the noise of sgRNAs' means is taken for alike.
        assert abs(found["mean"] - higher[site]) < 0.3, site
    assert record["converged"]
