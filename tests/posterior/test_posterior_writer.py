"""A posterior file opens in xarray, ArviZ and plain h5py, with labels, and holds what was written."""

import json

import arviz as az
import h5py
import numpy as np
import pytest
import xarray as xr

from vihier.posterior.moments import STATISTICS, moments_of_draws
from vihier.posterior.writer import PosteriorWriter

ROOT_ATTRS = {
    *("format_version", "complete", "converged", "model", "guide", "seed", "priors", "config", "screen_hash"),
    *("created_at", "vihier_version", "torch_version", "pyro_version", "arviz_version"),
    *("regenerated", "not_identified"),
}


def test_xarray_reads_names_labels_and_values(known, fit_file):
    with xr.open_datatree(fit_file, engine="h5netcdf") as tree:
        assert set(tree.children) == {"posterior", "moments", "vi_history", "sample_stats", "index"}
        posterior = tree["posterior"].to_dataset()
        for name, dims in known.dims.items():
            assert posterior[name].dims == ("chain", "draw", *dims)
            np.testing.assert_array_equal(posterior[name].values[0], known.draws[name])
        for dim, labels in known.labels.items():
            assert posterior.indexes[dim].tolist() == labels
        one = posterior["gamma"].sel(hugo_symbol="KRAS", depmap_id="ACH-000009").values[0]
        np.testing.assert_array_equal(one, known.draws["gamma"][:, 1, 3])


def test_nothing_is_read_before_it_is_asked_for(fit_file):
    with xr.open_datatree(fit_file, engine="h5netcdf") as tree:
        assert not tree["posterior"]["gamma"].variable._in_memory


def test_arviz_reads_it(known, fit_file):
    data = az.from_netcdf(fit_file)
    np.testing.assert_array_equal(data.posterior["effect"].values[0], known.draws["effect"])
    table = az.summary(data, var_names=["sigma_gamma"], kind="stats", hdi_prob=0.89)
    assert list(table.index) == [f"sigma_gamma[{gene}]" for gene in known.labels["hugo_symbol"]]
    assert "log_p" in data.sample_stats


def test_h5py_reads_it_with_labels(known, fit_file):
    with h5py.File(fit_file) as file:
        gamma = file["posterior/gamma"]
        assert gamma.dtype == np.float32
        scales = [gamma.dims[axis][0] for axis in range(4)]
        assert [scale.name.rsplit("/", 1)[-1] for scale in scales] == ["chain", "draw", "hugo_symbol", "depmap_id"]
        assert scales[2].asstr()[()].tolist() == known.labels["hugo_symbol"]
        assert h5py.check_string_dtype(scales[2].dtype).encoding == "utf-8"


def test_every_group_has_its_own_scales_and_the_root_has_none(fit_file):
    with h5py.File(fit_file) as file:
        assert all(isinstance(node, h5py.Group) for node in file.values())
        for group in file.values():
            for variable in group.values():
                for axis in range(0 if variable.is_scale else variable.ndim):
                    assert variable.dims[axis][0].parent == group


def test_moments_of_every_element_of_every_variable(known, fit_file):
    with h5py.File(fit_file) as file:
        assert set(file["moments"]) - set(known.labels) == {f"{v}_{s}" for v in known.dims for s in STATISTICS}
        for name, draws in known.draws.items():
            for statistic, expected in moments_of_draws(draws[None]).items():
                stored = file[f"moments/{name}_{statistic}"][()]
                # float64 rounded to the float32 of the file
                np.testing.assert_array_equal(stored, expected.astype(np.float32))


def test_root_attributes(fit_file):
    with h5py.File(fit_file) as file:
        attrs = dict(file.attrs)
    assert set(attrs) >= ROOT_ATTRS
    assert attrs["complete"] == 1 and attrs["converged"] == 1 and attrs["format_version"] == 1 and attrs["seed"] == 3
    assert json.loads(attrs["priors"]) == {"mu_gamma": "Normal(0, 5)"}
    assert json.loads(attrs["regenerated"]) == [] and json.loads(attrs["not_identified"]) == []
    assert not any(value.dtype.kind == "b" for value in attrs.values() if isinstance(value, np.generic)), (
        "netCDF has no booleans"
    )


def test_superblock_is_one_that_older_libraries_know(fit_file):
    # Byte 8 is the version of the superblock: 0 since 1998, 3 would be HDF5 1.10 with SWMR.
    assert fit_file.read_bytes()[8] == 0


def test_equal_inputs_give_equal_datasets(known, fit_file, tmp_path):
    again = known.write(tmp_path / "again.h5")

    def datasets(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, node: found.update({name: node[()]}) if hasattr(node, "shape") else None)
        return found

    first, second = datasets(fit_file), datasets(again)
    assert first.keys() == second.keys() and len(first) > 60
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_blocks_of_genes_in_any_order_give_the_file_of_one_write(about, known, fit_file, tmp_path):
    path = tmp_path / "blocks.h5"
    with PosteriorWriter(path, labels=known.labels, n_draws=200, attrs=about) as writer:
        writer.add("gamma", ("hugo_symbol", "depmap_id"))
        writer.add("alpha", ("sgrna",))
        for genes in ([4, 0], slice(1, 3), np.array([3])):
            writer.write("gamma", known.draws["gamma"][:, genes], at=genes)
            sgrnas = np.flatnonzero(np.isin(known.gene_of_sgrna, np.arange(5)[genes]))
            writer.write("alpha", known.draws["alpha"][:, sgrnas], at=sgrnas)
        writer.finish(converged=False)
    with h5py.File(path) as blocks, h5py.File(fit_file) as whole:
        assert blocks.attrs["converged"] == 0
        for name in ("posterior/gamma", "posterior/alpha", "moments/gamma_hdi_lower", "moments/alpha_q50"):
            np.testing.assert_array_equal(blocks[name], whole[name])


def test_large_variables_are_chunked_by_gene(about, tmp_path):
    path = tmp_path / "large.h5"
    with PosteriorWriter(path, labels={"hugo_symbol": 30, "depmap_id": 50}, n_draws=1000, attrs=about) as writer:
        writer.add("gamma", ("hugo_symbol", "depmap_id"))
        writer.add("mu_alpha", ("hugo_symbol",))
        writer.write("gamma", np.zeros((1000, 30, 50)))
        writer.write("mu_alpha", np.zeros((1000, 30)))
        writer.finish(converged=True)
    with h5py.File(path) as file:
        assert file["posterior/gamma"].chunks == (1, 1000, 1, 13), "50 lines in four runs of at most 16"
        assert file["posterior/mu_alpha"].chunks is None
        places = [file["posterior/gamma"].id.get_chunk_info(i).byte_offset for i in range(4)]
        assert np.ptp(places) == 3 * 1000 * 13 * 4, "the chunks of one gene lie side by side"


def test_several_chains_and_a_group_over_fewer_genes(about, tmp_path):
    path, x = tmp_path / "chains.h5", np.random.default_rng(0).normal(size=(4, 25, 2)).astype(np.float32)
    with PosteriorWriter(path, labels={"hugo_symbol": ["A", "B", "C"]}, n_draws=10, attrs=about) as writer:
        writer.add("mu_alpha", ("hugo_symbol",))
        writer.write("mu_alpha", np.ones((10, 3)))
        writer.add_group("nuts", labels={"hugo_symbol": ["A", "C"]}, n_draws=25, n_chains=4)
        writer.add("mu_alpha", ("hugo_symbol",), group="nuts")
        writer.write("mu_alpha", x, group="nuts")
        writer.finish(converged=True)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        np.testing.assert_array_equal(tree["nuts"]["mu_alpha"].values, x)
        assert tree["nuts"].indexes["hugo_symbol"].tolist() == ["A", "C"]
        assert tree["posterior"].sizes["hugo_symbol"] == 3


def test_plates_of_a_users_own_program(about, tmp_path):
    path = tmp_path / "own.h5"
    labels = {"hugo_symbol": ["A", "B"], "batch": 3, "plate": [7, 2]}
    with PosteriorWriter(path, labels=labels, n_draws=4, attrs=about) as writer:
        writer.add("slope", ("hugo_symbol", "batch"))
        writer.add("shift", ("plate",), dtype=np.float64)
        writer.write("slope", np.ones((4, 2, 3)))
        writer.write("shift", np.ones((4, 2)))
        writer.finish(converged=True)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["posterior"].indexes["batch"].tolist() == [0, 1, 2]
        assert tree["posterior"].indexes["plate"].tolist() == [7, 2]
        assert tree["posterior"]["shift"].dtype == np.float64


LABELS = ["", "<script>alert(1)</script>", "HLA-A/B", 'a, "b"', "naïve", "x" * 70_000, "β-catenin", "日本", "🧬"]


def test_labels_of_every_kind_come_back(about, tmp_path):
    path = tmp_path / "labels.h5"
    with PosteriorWriter(path, labels={"hugo_symbol": sorted(LABELS)}, n_draws=2, attrs=about) as writer:
        writer.add("mu_alpha", ("hugo_symbol",))
        writer.write("mu_alpha", np.zeros((2, len(LABELS))))
        writer.finish(converged=True)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["posterior"].indexes["hugo_symbol"].tolist() == sorted(LABELS)


def test_a_configuration_past_64_kb_is_an_attribute_like_any_other(known, tmp_path):
    config = "# " + "β" * 500_000
    path = known.write(tmp_path / "config.h5", attrs={"config": config})
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree.attrs["config"] == config
    with h5py.File(path) as file:
        assert file.attrs["config"] == config


def test_small_groups_hold_numbers_flags_and_text(about, tmp_path):
    path = tmp_path / "groups.h5"
    with PosteriorWriter(path, labels={}, n_draws=2, attrs=about) as writer:
        names = {"step": ("step",), "frozen": ("step",), "phase": ("step",)}
        values = {"step_size": [0.1, 0.2], "frozen": [True, False], "phase": ["warm-up", "average"]}
        writer.write_group("vi_history", values, {**names, "step_size": ("step",)}, attrs={"rule": "R-hat"})
        writer.finish(converged=True)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        history = tree["vi_history"]
        assert history["frozen"].dtype == bool and history["frozen"].values.tolist() == [True, False]
        assert history["phase"].values.tolist() == ["warm-up", "average"]
        assert history.attrs["rule"] == "R-hat"


def test_variables_whose_draws_are_regenerated_have_moments_only(about, tmp_path):
    path = tmp_path / "regenerated.h5"
    moments = {name: np.full((2, 3), 0.25) for name in STATISTICS}
    with PosteriorWriter(path, labels={"hugo_symbol": 4, "depmap_id": 3}, n_draws=5, attrs=about) as writer:
        writer.add("gamma", ("hugo_symbol", "depmap_id"), stored=False)
        writer.write_moments("gamma", moments, at=[0, 2])
        writer.write_moments("gamma", moments, at=[3, 1])
        writer.finish(converged=True)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["regenerated"]) == ["gamma"]
        assert "gamma" not in file["posterior"] and (file["moments/gamma_q95"][()] == 0.25).all()


def _with_writer(path, use, labels, about):
    with PosteriorWriter(path, labels=labels or {"hugo_symbol": ["A", "B"]}, n_draws=3, attrs=about) as writer:
        writer.add("mu", ("hugo_symbol",))
        use(writer)


FAULTS = {
    "repeated label": ({"hugo_symbol": ["A", "A"]}, lambda w: None, "'A' is there twice"),
    "unsorted labels": ({"hugo_symbol": ["B", "A"]}, lambda w: None, "not sorted"),
    "label not text": ({"hugo_symbol": ["A", None]}, lambda w: None, "None at position 1"),
    "NUL in label": ({"hugo_symbol": ["A\0B"]}, lambda w: None, "NUL"),
    "lone surrogate": ({"hugo_symbol": ["\ud800"]}, lambda w: None, "surrogate"),
    "unknown dim": (None, lambda w: w.add("x", ("depmap_id",)), "'depmap_id' has no labels"),
    "dims out of order": ({"hugo_symbol": 2, "sgrna": 2}, lambda w: w.add("x", ("hugo_symbol", "sgrna")), "order"),
    "name with slash": (None, lambda w: w.add("net/weight"), "'net/weight'"),
    "dim with slash": ({"a/b": 2}, lambda w: None, "dimension 'a/b'"),
    "dim named draw": ({"draw": 2}, lambda w: None, "taken by the draws"),
    "name of a dim": (None, lambda w: w.add("draw"), "name of a dimension"),
    "added twice": (None, lambda w: w.add("mu"), "added twice"),
    "undeclared": (None, lambda w: w.write("nu", np.zeros(3)), "call add first"),
    "wrong shape": (None, lambda w: w.write("mu", np.zeros((3, 3))), "(1, 3, 2) wanted"),
    "position outside": (None, lambda w: w.write("mu", np.zeros((3, 1)), at=[2]), "0..1"),
    "scalar at": (None, lambda w: (w.add("s"), w.write("s", np.zeros(3), at=[0])), "leave `at` out"),
    "not all written": (
        None,
        lambda w: (w.write("mu", np.zeros((3, 1)), at=[1]), w.finish(converged=True)),
        "1 of 2",
    ),
    "unknown group": (None, lambda w: w.add("x", group="nuts"), "add_group"),
    "size of a group's dim": (None, lambda w: w.write_group("index", {"m": [1]}, {"m": ("hugo_symbol",)}), "not 1"),
    "objects": (None, lambda w: w.write_group("index", {"m": [object()]}, {"m": ("k",)}), "not text"),
    "moments missing": (None, lambda w: w.write_moments("mu", {"mean": np.zeros(2)}), "moments"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_misuse_is_refused_in_one_line_and_leaves_nothing(fault, about, refusal, tmp_path):
    labels, use, expected = FAULTS[fault]
    assert expected in refusal(_with_writer, tmp_path / "fit.h5", use, labels, about)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model", "guide", "seed", "priors", "config", "screen_hash"])
def test_a_file_without_a_required_attribute_is_refused(name, about, refusal, tmp_path):
    def use(writer):
        writer.write("mu", np.zeros((3, 2)))
        writer.finish(converged=True)

    rest = {key: value for key, value in about.items() if key != name}
    assert f"'{name}' was not given" in refusal(_with_writer, tmp_path / "fit.h5", use, None, rest)


def test_what_finish_says_cannot_be_said_twice(about, refusal, tmp_path):
    def use(writer):
        writer.write("mu", np.zeros((3, 2)))
        writer.finish(converged=True, attrs={"not_identified": ["mu"]})

    assert "argument of finish" in refusal(_with_writer, tmp_path / "fit.h5", use, None, about)
