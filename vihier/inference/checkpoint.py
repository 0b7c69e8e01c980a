"""What a stopped or killed fit of a large screen goes on from: a folder beside its output.

`about.json` says of which fit it is, `state.pt` holds the chains (tensors only, loaded with ``weights_only=True``),
`passes/` what is kept of genes from pass to pass, where that is needed, and `blocks/` what the blocks of the last pass
added. Each file is replaced as a whole, so that a kill or a full disk leaves
the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from vihier.errors import VihierError
from vihier.guides.gene_chains import Said
from vihier.guides.streamed_chains import ChainState
from vihier.guides.streamed_fit import Running
from vihier.inference.config import first_difference

FORMAT_VERSION = 3


class Checkpoint:
    """The checkpoint of one output file.

    Parameters
    ----------
    out : Path
        The output that the fit is for.
    screen_hash, config : str
        Of the fit: a checkpoint of another is refused.
    """

    def __init__(self, out: Path, screen_hash: str, config: str) -> None:
        self.folder = out.with_name(f"{out.name}.checkpoint")
        self._about = {"format_version": FORMAT_VERSION, "screen_hash": screen_hash, "config": config}

    def open(self, resume: bool, force: bool) -> Running | None:
        """Return where to go on; None where there is nothing to go on from.

        Raises
        ------
        VihierError
            A checkpoint is there and was not asked for, is of another fit, or is damaged.
        """
        if not (self.folder / "about.json").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        if not resume:
            if force:
                self.remove()
                return None
            raise VihierError(
                f"{self.folder}: the checkpoint of an unfinished fit; go on with --resume (resume=True), or start anew "
                "with --force (force=True)"
            )
        self._check_same()
        return self._load()

    def _check_same(self) -> None:
        try:
            there = json.loads((self.folder / "about.json").read_text())
            if there["format_version"] != FORMAT_VERSION:
                raise VihierError(f"{self.folder}: a checkpoint of another version of vihier; start anew with --force")
            same_screen = there["screen_hash"] == self._about["screen_hash"]
            difference = first_difference(tomllib.loads(there["config"]), tomllib.loads(str(self._about["config"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VihierError(f"{self.folder}: a damaged checkpoint ({error}); start anew with --force") from error
        if not same_screen:
            difference = "a fit of another screen"
        if difference:
            raise VihierError(
                f"{self.folder}: is the checkpoint of {difference}; give that, or start anew with --force"
            )

    def _load(self) -> Running | None:
        path = self.folder / "state.pt"
        if not path.exists():
            return None
        try:
            return _unpacked(torch.load(path, weights_only=True, map_location="cpu"))
        except (OSError, RuntimeError, KeyError, EOFError, ValueError, AttributeError, UnpicklingError) as error:
            text = " ".join(str(error).split())[:120]
            raise VihierError(f"{path}: a damaged checkpoint ({text}); start anew with --force") from error

    def save(self, running: Running) -> None:
        """Keep the chains as they are now.

        Raises
        ------
        VihierError
            The disk is full, or the folder cannot be written; the checkpoint before is as it was.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            _replace(self.folder / "state.pt", lambda path: torch.save(_packed(running), path))
            about = json.dumps(self._about)
            _replace(self.folder / "about.json", lambda path: path.write_text(about))
        except (OSError, RuntimeError) as error:
            # torch's own writer says only that it failed.
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
            raise VihierError(
                f"{self.folder}: the checkpoint cannot be written ({reason}); the one before it is intact: make room, "
                "then go on with --resume"
            ) from error

    def remove(self) -> None:
        """Remove it: the fit is done, or starts anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_same(self) -> None:
        """Remove it if it is of this fit, whose output is there: a kill came before or amid that. Another's stays."""
        if (self.folder / "about.json").exists():
            try:
                self._check_same()
            except VihierError:
                return
        self.remove()


def _replace(path: Path, write: Any) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _packed(running: Running) -> dict[str, Any]:
    column = running.column_sum
    return {
        "theta": dict(running.state.theta),
        "shared": dict(running.state.shared),
        "passes": running.state.passes,
        "moved": torch.zeros(0) if running.state.moved is None else running.state.moved,
        "said": {} if running.said is None else dict(vars(running.said)),
        "kept_theta": [dict(theta) for theta in running.kept_theta],
        "kept_said": [dict(vars(said)) for said in running.kept_said],
        "kept_shared": [dict(shared) for shared in running.kept_shared],
        "own_sum": dict(running.own_sum),
        "own_square": dict(running.own_square),
        "column_sum": torch.zeros(0) if column is None else column,
        "n_own": running.n_own,
        "trace": list(running.trace),
        "rhats": list(running.rhats),
        "finished": running.finished,
    }


def _unpacked(content: Mapping[str, Any]) -> Running:
    column, moved = content["column_sum"], content["moved"]
    return Running(
        state=ChainState(content["theta"], content["shared"], content["passes"], moved if moved.numel() else None),
        said=Said(**content["said"]) if content["said"] else None,
        kept_theta=content["kept_theta"],
        kept_said=[Said(**said) for said in content["kept_said"]],
        kept_shared=content["kept_shared"],
        own_sum=content["own_sum"],
        own_square=content["own_square"],
        column_sum=None if not column.numel() else column,
        n_own=content["n_own"],
        trace=content["trace"],
        rhats=content["rhats"],
        finished=content["finished"],
    )
