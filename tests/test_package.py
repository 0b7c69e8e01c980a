"""What `import vihier` promises: the public names, and nothing slow."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

import vihier

SLOW_TO_IMPORT = ("torch", "pandas", "arviz", "pyro", "xarray", "scipy", "matplotlib", "pyarrow", "numpy", "h5py")


def modules_after(code: str) -> set[str]:
    code += "\nimport sys; print('MODULES', *sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import vihier; dir(vihier)",
        "from vihier.cli import main; main(['--help'])",
        "from vihier.cli import main; main(['fit', '--help'])",
        "from vihier.cli import main; main([])",
    ],
)
def test_nothing_slow_is_imported(code: str) -> None:
    assert modules_after(code).isdisjoint(SLOW_TO_IMPORT)


@pytest.mark.skipif(os.name != "posix", reason="needs the processor time of children")
def test_help_answers_at_once() -> None:
    command = [sys.executable, "-m", "vihier", "--help"]
    seconds = []
    for _ in range(5):
        before = os.times()
        subprocess.run(command, capture_output=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    # Processor time, which is the wall time of an idle machine (0.28 s here), and the best of five: other tests may
    # run on the same cores.
    assert min(seconds) < 0.5


def test_every_public_name_resolves_and_is_listed() -> None:
    for name in vihier.__all__:
        assert getattr(vihier, name).__name__ == name
    assert set(vihier.__all__) <= set(dir(vihier))


def test_the_version_is_that_of_the_distribution() -> None:
    assert vihier.__version__ == version("vihier")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        vihier.nonsense  # noqa: B018
