"""Every file that cannot be trusted is refused in one line that says what it is."""

import os
import pickle

import h5py
import numpy as np
import pytest

from vihier import open_posterior


def _copy(fit_file, tmp_path, change):
    path = tmp_path / "changed.h5"
    path.write_bytes(fit_file.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_missing_directory_and_empty(refusal, tmp_path):
    assert "no such file" in refusal(open_posterior, tmp_path / "none.h5")
    assert "no such file" in refusal(open_posterior, str(tmp_path / "nowhere" / "none.h5"))
    assert "is a directory" in refusal(open_posterior, tmp_path)
    (tmp_path / "empty.h5").touch()
    assert "is empty" in refusal(open_posterior, tmp_path / "empty.h5")


@pytest.mark.parametrize(
    "content", [b"sgrna,hugo_symbol\nA,KRAS\n", b"\x00" * 4096, b"\x89", b"PAR1" * 10, b"CDF\x01" + b"\0" * 99]
)
def test_files_that_are_not_hdf5(content, refusal, tmp_path):
    path = tmp_path / "table.h5"
    path.write_bytes(content)
    assert "not HDF5" in refusal(open_posterior, path)


def test_a_pickle_is_never_loaded(refusal, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "trap.h5"
    path.write_bytes(pickle.dumps(Trap()))
    assert "not HDF5" in refusal(open_posterior, path)
    assert not (tmp_path / "sprung").exists()


def test_hdf5_that_is_not_ours(refusal, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["posterior/gamma"] = np.zeros(3)
    assert "not a posterior file" in refusal(open_posterior, tmp_path / "other.h5")


def test_unreadable_file(fit_file, refusal, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = tmp_path / "fit.h5"
    path.write_bytes(fit_file.read_bytes())
    path.chmod(0)
    assert "Permission denied" in refusal(open_posterior, path)


def test_truncated_at_any_byte(fit_file, refusal, tmp_path):
    whole = fit_file.read_bytes()
    path = tmp_path / "cut.h5"
    rng = np.random.default_rng(0)
    for length in [
        1,
        7,
        8,
        9,
        40,
        95,
        96,
        97,
        512,
        len(whole) // 2,
        len(whole) - 1,
        *rng.integers(100, len(whole), 60),
    ]:
        path.write_bytes(whole[:length])
        message = refusal(open_posterior, path)
        assert "truncated" in message or "not HDF5" in message or "damaged" in message


def test_damage_in_the_middle_never_shows_as_anything_but_one_line(known, fit_file, tmp_path):
    """Overwritten bytes: what can be read without noticing is read, everything else is one line."""
    from vihier.errors import VihierError

    whole = fit_file.read_bytes()
    path = tmp_path / "damaged.h5"
    rng = np.random.default_rng(1)
    refused = 0
    for start in rng.integers(0, len(whole) - 64, 25):
        path.write_bytes(whole[:start] + rng.bytes(64) + whole[start + 64 :])
        try:
            with open_posterior(path) as post:
                post.summary("gamma", hugo_symbol="KRAS", lineage="skin")
                post.draws("alpha")
        except VihierError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 0


def test_unfinished(fit_file, refusal, tmp_path):
    path = _copy(fit_file, tmp_path, lambda file: file.attrs.modify("complete", np.int8(0)))
    assert "unfinished" in refusal(open_posterior, path)


def test_newer_format(fit_file, refusal, tmp_path):
    path = _copy(fit_file, tmp_path, lambda file: file.attrs.modify("format_version", 2))
    assert "has format 2, and this vihier reads up to 1; upgrade vihier" in refusal(open_posterior, path)


CHANGES = {
    "no posterior": (lambda file: file.move("posterior", "elsewhere"), "no group 'posterior'"),
    "no index": (lambda file: file.pop("index"), "damaged"),
    "no model": (lambda file: file.attrs.pop("model"), "'model'"),
    "priors not JSON": (lambda file: file.attrs.modify("priors", "{"), "damaged"),
    "priors too deep": (lambda file: file.attrs.modify("priors", "[" * 200_000), "damaged"),
    "version not a number": (lambda file: file.attrs.create("format_version", "one"), "damaged"),
    "regenerated not there": (lambda file: file.attrs.modify("regenerated", '["delta"]'), "damaged"),
    "group among variables": (lambda file: file.create_group("posterior/net"), "damaged"),
    "no scale": (lambda file: file["posterior/gamma"].dims[2].detach_scale(file["posterior/hugo_symbol"]), "damaged"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_contents_that_do_not_hold_together(change, fit_file, refusal, tmp_path):
    alter, expected = CHANGES[change]
    assert expected in refusal(open_posterior, _copy(fit_file, tmp_path, alter))


def test_moments_that_are_gone_are_one_line_when_they_are_asked_for(fit_file, refusal, tmp_path):
    path = _copy(fit_file, tmp_path, lambda file: file["moments"].pop("gamma_sd"))
    with open_posterior(path) as post:
        assert "damaged" in refusal(post.summary, "gamma")
        assert len(post.summary("alpha")) == 9
