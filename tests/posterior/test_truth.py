"""A truth file has the names, dims and labels of a posterior file, and no draws."""

import h5py
import numpy as np
import xarray as xr

from vihier.posterior.writer import TruthWriter, write_truth

LABELS = {"hugo_symbol": ["A", "B", "C"], "depmap_id": ["L1", "L2"]}
EFFECT = np.arange(6.0).reshape(3, 2)


def test_streamed_and_whole_are_the_same(tmp_path):
    write_truth(
        tmp_path / "whole.h5",
        {"effect": (("hugo_symbol", "depmap_id"), EFFECT), "sigma": ((), 0.3)},
        LABELS,
        {"seed": 1},
    )
    with TruthWriter(tmp_path / "streamed.h5", labels=LABELS, attrs={"seed": 1}) as writer:
        writer.add("effect", ("hugo_symbol", "depmap_id"))
        writer.add("sigma", group="truth")
        writer.write("sigma", 0.3)
        for genes in ([2], [0, 1]):
            writer.write("effect", EFFECT[genes], at=genes)
        writer.finish()
    for name in ("whole.h5", "streamed.h5"):
        with xr.open_datatree(tmp_path / name, engine="h5netcdf") as tree:
            truth = tree["truth"].to_dataset()
            assert set(tree.children) == {"truth", "index"}
            assert truth["effect"].dims == ("hugo_symbol", "depmap_id")
            assert truth["effect"].sel(hugo_symbol="C", depmap_id="L1") == 4
            assert truth["sigma"] == np.float32(0.3)
            assert tree.attrs["seed"] == 1 and tree.attrs["complete"] == 1


def test_it_is_named_when_taken_for_a_posterior(tmp_path, refusal):
    from vihier import open_posterior

    write_truth(tmp_path / "s.truth.h5", {"effect": (("hugo_symbol", "depmap_id"), EFFECT)}, LABELS)
    assert "'truth'" in refusal(open_posterior, tmp_path / "s.truth.h5")


def test_a_missing_block_is_refused(tmp_path, refusal):
    def incomplete():
        with TruthWriter(tmp_path / "t.h5", labels=LABELS) as writer:
            writer.add("effect", ("hugo_symbol", "depmap_id"))
            writer.write("effect", EFFECT[:1], at=[0])
            writer.finish()

    assert "2 of 3 positions not written" in refusal(incomplete)
    assert not list(tmp_path.iterdir())


def test_labels_travel_with_every_group(tmp_path):
    write_truth(tmp_path / "t.h5", {"sigma": ((), 1.0)}, LABELS)
    with h5py.File(tmp_path / "t.h5") as file:
        assert file["index/hugo_symbol"].asstr()[()].tolist() == LABELS["hugo_symbol"]
