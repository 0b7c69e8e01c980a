"""What `Posterior` gives back is what was drawn, by label, and it reads no more than it was asked for."""

import gc
import time
import tracemalloc

import h5py
import numpy as np
import pytest

from vihier import VihierError, open_posterior
from vihier.posterior.moments import STATISTICS
from vihier.posterior.reader import Posterior
from vihier.posterior.writer import PosteriorWriter


@pytest.fixture(scope="module")
def post(fit_file):
    with open_posterior(fit_file) as opened:
        yield opened


def test_attributes(post, known):
    assert (post.model, post.guide, post.seed, post.converged) == ("additive", "structured", 3, True)
    assert post.priors == {"mu_gamma": "Normal(0, 5)"}
    assert post.not_identified == {} and post.attrs["regenerated"] == []
    assert post.attrs["complete"] is True and post.attrs["config"].startswith("model")
    assert post.variables == known.dims
    assert (post.n_chains, post.n_draws) == (1, 200)
    assert post.dims == tuple(known.labels)
    assert {dim: post.labels(dim).tolist() for dim in post.dims} == known.labels
    with pytest.raises(TypeError):
        post.attrs["seed"] = 4


def test_draws_without_a_selection_are_all_draws(post, known):
    for name, dims in known.dims.items():
        draws = post.draws(name)
        assert draws.dims == ("chain", "draw", *dims) and draws.name == name
        np.testing.assert_array_equal(draws.values[0], known.draws[name])
        assert draws.indexes["draw"].tolist() == list(range(200))


@pytest.mark.parametrize(
    ("selection", "genes", "lines"),
    [
        ({"hugo_symbol": "KRAS"}, [1], range(7)),
        ({"hugo_symbol": ["TP53", "BRAF"]}, [4, 0], range(7)),
        ({"depmap_id": ["ACH-000040", "ACH-000001"]}, range(5), [6, 0]),
        ({"lineage": "skin"}, range(5), [0, 2, 5]),
        ({"lineage": ["lung", "bone"], "hugo_symbol": ["MYC"]}, [2], [1, 3, 4, 6]),
        ({"lineage": "skin", "depmap_id": ["ACH-000023", "ACH-000004", "ACH-000001"]}, range(5), [5, 0]),
        ({"hugo_symbol": ["MYC", "MYC"]}, [2], range(7)),
    ],
)
def test_selection_by_label(post, known, selection, genes, lines):
    draws = post.draws("gamma", **selection)
    np.testing.assert_array_equal(draws.values[0], known.draws["gamma"][:, list(genes)][:, :, list(lines)])
    assert draws.indexes["hugo_symbol"].tolist() == [known.labels["hugo_symbol"][g] for g in genes]
    assert draws.indexes["depmap_id"].tolist() == [known.labels["depmap_id"][c] for c in lines]


def test_a_gene_selects_its_sgrnas_and_a_lineage_itself(post, known):
    alpha = post.draws("alpha", hugo_symbol="KRAS")
    assert alpha.indexes["sgrna"].tolist() == [known.labels["sgrna"][1], known.labels["sgrna"][6]]
    np.testing.assert_array_equal(alpha.values[0], known.draws["alpha"][:, [1, 6]])
    np.testing.assert_array_equal(post.draws("mu_beta", lineage="lung").values[0, :, 0], known.draws["mu_beta"][:, 1])


def test_moments_are_those_of_the_draws(post, known):
    moments = post.moments("gamma", hugo_symbol=["TP53", "KRAS"], lineage="skin")
    assert set(moments) == set(STATISTICS) and moments["mean"].dims == ("hugo_symbol", "depmap_id")
    draws = known.draws["gamma"].astype(np.float64)[:, [4, 1]][:, :, [0, 2, 5]]
    # float64 moments rounded to the file's float32: one part in 1.7e7
    np.testing.assert_allclose(moments["mean"], draws.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments["sd"], draws.std(0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(moments["q95"], np.quantile(draws, 0.95, axis=0), rtol=1e-6)


REFUSED = {
    "unknown variable": (lambda p: p.draws("gama"), "did you mean 'gamma'?"),
    "variable unlike any": (lambda p: p.draws("xyz"), "there are alpha, beta, effect"),
    "unknown dimension": (lambda p: p.draws("gamma", hugo_symbl="KRAS"), "did you mean 'hugo_symbol'?"),
    "unknown label": (lambda p: p.draws("gamma", hugo_symbol="KRS"), "did you mean 'KRAS'?"),
    "label in lower case": (lambda p: p.draws("gamma", hugo_symbol="kras"), "did you mean 'KRAS'?"),
    "label unlike any": (lambda p: p.draws("gamma", hugo_symbol="β" * 500), "is not in the file"),
    "label with a line break": (lambda p: p.draws("gamma", hugo_symbol="KRAS\nTP53"), r"'KRAS\nTP53'"),
    "number for a label": (lambda p: p.draws("gamma", hugo_symbol=1), "1 is not in the file"),
    "dimension it lacks": (
        lambda p: p.draws("beta", hugo_symbol="KRAS"),
        "'beta' has no hugo_symbol; it has depmap_id",
    ),
    "dimension of a scalar": (lambda p: p.summary("sigma", hugo_symbol="KRAS"), "it has no dimensions"),
    "line outside the lineage": (
        lambda p: p.draws("beta", depmap_id="ACH-000004", lineage="skin"),
        "no depmap_id is in",
    ),
    "no labels": (lambda p: p.draws("gamma", hugo_symbol=[]), "no label given"),
    "unknown group": (lambda p: p.group("posterior"), "vi_history"),
    "labels of no dimension": (lambda p: p.labels("gene"), "no dimension 'gene'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_is_refused_with_what_is(case, post, refusal):
    ask, expected = REFUSED[case]
    assert expected in refusal(ask, post)


def test_small_groups(post, known):
    assert post.group("vi_history")["elbo_per_row"].values.tolist() == [0, 1, 2, 3, 4]
    index = post.group("index")
    np.testing.assert_array_equal(index["gene_of_sgrna"], known.gene_of_sgrna)
    assert index.indexes["lineage"].tolist() == known.labels["lineage"]


@pytest.fixture(scope="module")
def wide_file(tmp_path_factory):
    """300 genes x 100 lines x 250 draws: 30 MB of gamma, whose gene g has draws near g."""
    path = tmp_path_factory.mktemp("wide") / "wide.h5"
    about = {"model": "m", "guide": "g", "seed": 0, "priors": {}, "config": "", "screen_hash": ""}
    with PosteriorWriter(path, labels={"hugo_symbol": 300, "depmap_id": 100}, n_draws=250, attrs=about) as writer:
        writer.add("gamma", ("hugo_symbol", "depmap_id"))
        noise = np.random.default_rng(0).random((250, 1, 100), dtype=np.float32)
        for gene in range(300):
            writer.write("gamma", gene + noise / 2, at=[gene])
        writer.finish(converged=True)
    return path


@pytest.fixture
def values_read(monkeypatch):
    """How many values h5py was asked for."""
    read = []
    original = h5py.Dataset.__getitem__

    def counting(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        read.append(np.size(found))
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
    return read


def test_one_gene_reads_one_gene(wide_file, values_read):
    with open_posterior(wide_file) as post:
        assert sum(values_read) == 0, "opening reads no values"
        draws = post.draws("gamma", hugo_symbol=217)
        assert np.floor(draws.values.min()) == 217 == np.floor(draws.values.max())
        labels = 300 + 100 + 250 + 1
        assert sum(values_read) <= 250 * 100 + labels
        values_read.clear()
        started = time.perf_counter()
        post.draws("gamma", hugo_symbol=218)
        # 0.2 s is promised for 18,000 genes; a read that went through this whole file would take about that.
        assert time.perf_counter() - started < 0.2


def test_one_line_reads_one_line(wide_file, values_read):
    with open_posterior(wide_file) as post:
        assert post.draws("gamma", depmap_id=40).shape == (1, 250, 300, 1)
        assert sum(values_read) <= 250 * 300 + 651


def test_the_summary_in_the_file_reads_no_draws(wide_file, values_read):
    with open_posterior(wide_file) as post:
        assert len(post.summary("gamma")) == 30_000
        assert sum(values_read) == 5 * 30_000 + 400


def test_another_probability_streams_the_draws_in_bounded_memory(wide_file, monkeypatch):
    from vihier.posterior import slabs, summary

    # Blocks of 1 MB of draws instead of 64 MB, so that 30 MB are many blocks.
    monkeypatch.setattr(summary, "_BLOCK_DRAW_BYTES", 2**20)
    monkeypatch.setattr(slabs, "_SLAB_BYTES", 2**20)
    with open_posterior(wide_file) as post:
        post.summary("gamma", hugo_symbol=0, prob=0.5)
        tracemalloc.start()
        n_rows = sum(len(block) for block in post.summary_blocks("gamma", prob=0.5))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert n_rows == 30_000
    # A block, its outer-product copy, its sorted sub-block, float64 copies of that, and the table: a few MB, not 30.
    assert peak < 8e6


def test_labels_are_numbers_where_the_plate_has_no_names(wide_file):
    with open_posterior(wide_file) as post:
        table = post.summary("gamma", hugo_symbol=["7", 3], depmap_id=99)
        assert table["hugo_symbol"].tolist() == [7, 3] and table["depmap_id"].tolist() == [99, 99]


def test_closing(fit_file, refusal):
    post = open_posterior(fit_file)
    post.close()
    post.close()
    assert "was closed; open it again" in refusal(post.draws, "sigma")
    assert "was closed" in refusal(post.summary, "sigma")
    assert "closed=True" in repr(post)


def test_an_owned_directory_goes_with_its_posterior(known, tmp_path):
    for release in ("close", "collect"):
        directory = tmp_path / release
        directory.mkdir()
        post = Posterior(known.write(directory / "fit.h5"), owned_tempdir=directory)
        assert post.draws("sigma").size == 200
        if release == "close":
            post.close()
        del post
        gc.collect()
        assert not directory.exists()


def test_a_directory_is_not_removed_when_the_file_in_it_is_refused(tmp_path):
    (tmp_path / "fit.h5").write_bytes(b"no")
    with pytest.raises(VihierError):
        Posterior(tmp_path / "fit.h5", owned_tempdir=tmp_path)
    assert (tmp_path / "fit.h5").exists()


def test_markup_in_names_stays_text(tmp_path, about):
    evil = "<script>alert('x')</script>"
    path = tmp_path / "evil.h5"
    with PosteriorWriter(path, labels={"<b>plate": [evil]}, n_draws=2, attrs={**about, "model": evil}) as writer:
        writer.add("<i>x<i>", ("<b>plate",))
        writer.write("<i>x<i>", np.zeros((2, 1)))
        writer.finish(converged=True)
    with open_posterior(path) as post:
        html = post._repr_html_()
        for name in ("<script>", "<b>plate", "<i>x"):
            assert name not in html
        assert "&lt;script&gt;" in html
        assert post.summary("<i>x<i>")["<b>plate"].tolist() == [evil]
        assert "\n" not in repr(post)


@pytest.fixture
def without_gamma(known, about, tmp_path):
    """A file that stores gamma's moments only, and a source of its draws."""
    path = tmp_path / "regenerated.h5"
    from vihier.posterior.moments import moments_of_draws

    with PosteriorWriter(path, labels=known.labels, n_draws=200, attrs=about) as writer:
        writer.add("beta", ("depmap_id",))
        writer.write("beta", known.draws["beta"])
        writer.add("gamma", ("hugo_symbol", "depmap_id"), stored=False)
        writer.write_moments("gamma", moments_of_draws(known.draws["gamma"][None]))
        writer.finish(converged=True)

    def regenerate(variable, positions):
        assert variable == "gamma"
        return known.draws["gamma"][None][np.ix_([0], range(200), *positions)]

    return path, regenerate


def test_regenerated_draws_come_from_their_source_like_any_others(without_gamma, fit_file):
    path, regenerate = without_gamma
    with Posterior(path, regenerate=regenerate) as post, open_posterior(fit_file) as stored:
        assert post.attrs["regenerated"] == ["gamma"] and post.variables["gamma"] == ("hugo_symbol", "depmap_id")
        selection = {"hugo_symbol": ["TP53", "BRAF"], "depmap_id": "ACH-000009"}
        assert post.draws("gamma", **selection).identical(stored.draws("gamma", **selection))
        assert post.summary("gamma", prob=0.5).equals(stored.summary("gamma", prob=0.5))
        assert "gamma" in post.to_arviz(hugo_symbol="MYC").posterior


def test_without_the_source_there_are_moments_and_one_line(without_gamma, refusal):
    path, _ = without_gamma
    with open_posterior(path) as post:
        assert len(post.summary("gamma")) == 35
        assert "not stored" in refusal(post.draws, "gamma")
        assert "not stored" in refusal(post.summary, "gamma", prob=0.5)
        assert list(post.to_arviz().posterior) == ["beta"]
