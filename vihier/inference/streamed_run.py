"""Fit a screen too large for memory, or that comes from a store, and write its posterior."""

from __future__ import annotations

import errno
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vihier.errors import Stopped, VihierError
from vihier.guides.block import Theta
from vihier.guides.cell_file import CellFile
from vihier.guides.kept_draws import KeptFit
from vihier.guides.pass_sums import blocks_of_worker
from vihier.guides.streamed_draws import StreamedFit
from vihier.guides.streamed_fit import Running, fit_streamed
from vihier.guides.structure import Structure, check_structure, read_structure, refusal
from vihier.inference.batches import GeneBlocks, genes_in_block
from vihier.inference.checkpoint import Checkpoint
from vihier.inference.device import run_on
from vihier.inference.draws import DrawPlan, genes_at_once, write_draws, write_groups
from vihier.inference.progress import Progress
from vihier.inference.sites import Sites
from vihier.inference.stopping import Asked, noting_signals
from vihier.inference.streamed_write import FinalPass, Recipe, bytes_of_kept, bytes_of_pairs
from vihier.inference.workers import ALONE, Workers
from vihier.models.batch import Batch
from vihier.models.program import Program
from vihier.posterior.layout import REGENERATION
from vihier.posterior.writer import PosteriorWriter
from vihier.screen import Screen

if TYPE_CHECKING:
    from vihier.store.store import ScreenStore

BLOCK_PAIRS, ROW_BLOCK_PAIRS = 64_000, 16_000
GB = 1e9


def blocks_of(
    screen: Screen | ScreenStore, genes_per_block: int, device: torch.device, dtype: torch.dtype
) -> GeneBlocks:
    """Cut a screen into gene blocks; those of a store are read one ahead."""
    if isinstance(screen, Screen):
        return GeneBlocks(screen, genes_per_block, device, dtype)
    from vihier.store.blocks import StoreBlocks

    return StoreBlocks(screen, genes_per_block, device, dtype)


def genes_per_block(screen: Screen | ScreenStore, asked: int | None, is_plain: bool = True) -> int:
    """Return how many genes are worked on together; `is_plain` where rows are Normal with one noise scale."""
    return min(screen.n_genes, asked or max(1, (BLOCK_PAIRS if is_plain else ROW_BLOCK_PAIRS) // screen.n_lines))


@dataclass(frozen=True)
class StreamedRun:
    """A fit of a large screen, settled but for the screen's structure.

    Attributes
    ----------
    attrs
        Root attributes of the file; the reason for convergence is added.
    draws_disk_gb
        Draws of variables over genes and lines are stored where they take no more, else made again when asked for.
    checkpoint_every
        Minutes between checkpoints; None for no checkpoint.
    resume, force
        Go on from a checkpoint that is there; or throw it away.
    workers
        Who fit it together: each reads and visits the blocks of its part, and the first writes the file.
    """

    program: Program
    screen: Screen | ScreenStore
    sites: Sites
    draws: int
    seed: int
    device: torch.device
    dtype: torch.dtype
    batch_size: int | None
    max_steps: int | None
    init: Theta | None
    draws_disk_gb: float
    attrs: Mapping[str, Any]
    checkpoint_every: float | None
    resume: bool
    force: bool
    workers: Workers = ALONE

    def write(self, path: Path, progress: Progress) -> StreamedFit | KeptFit:
        """Fit, and write the file.

        Raises
        ------
        VihierError
            A program outside the family of the guide, or one whose draws would have to be stored and do not fit; a
            checkpoint that is of another fit, or cannot be written.
        Stopped
            A signal asked to stop, and a checkpoint is written.
        """
        checkpoint = Checkpoint(path, str(self.attrs["screen_hash"]), str(self.attrs["config"]))
        running = None
        if self.checkpoint_every is not None:
            running = self.workers.in_turn(lambda: checkpoint.open(self.resume, self.force))
        probe = GeneBlocks(self.screen, 2, "cpu", torch.float64)[0]
        with run_on(torch.device("cpu"), torch.float64):
            structure = read_structure(self.program.model, probe)
            if structure.counts is not None or structure.design is not None:
                raise refusal(structure.observed, "a screen this large needs rows of fold changes without covariates")
            plan = DrawPlan.of(self.program, self.sites, self.screen, probe)
        if not self.program.known:  # it may treat other genes than the two that were looked at in another way
            looked_at = blocks_of(self.screen, genes_in_block(self.screen), torch.device("cpu"), torch.float64)
            for number in self.workers.share(len(looked_at)):
                check_structure(structure, self.program.model, looked_at[number])
        bytes_needed = bytes_of_pairs(plan, self.screen.n_genes, self.screen.n_lines, self.draws)
        pairs_stored = bytes_needed <= self.draws_disk_gb * GB
        recipe = _recipe(plan, structure, self.seed, probe, pairs_stored)
        if not structure.is_plain:
            self._check_kept(structure, recipe, pairs_stored)
        size = genes_per_block(self.screen, self.batch_size, structure.is_plain)
        batches = blocks_of(self.screen, size, self.device, torch.float64)
        with noting_signals() as asked:
            saver = _Saver(checkpoint, asked, self.checkpoint_every, self.workers)
            progress.start("reading", len(blocks_of_worker(self.workers, len(batches))))
            cells = CellFile(
                structure, batches, self.dtype, path.parent, lambda n: saver.look(progress, n), self.workers
            )
            try:
                with saver.folder_of("passes", path) as passes:
                    fitted = fit_streamed(
                        structure,
                        cells,
                        draws=self.draws,
                        seed=self.seed,
                        max_steps=self.max_steps,
                        init=self.init,
                        progress=progress,
                        running=running,
                        after_pass=saver.after_pass,
                        folder=passes,
                    )
                    self._write(path, plan, recipe, fitted, cells, pairs_stored, saver, progress)
            except OSError as error:
                raise self._no_room(path, error) from error
            finally:
                cells.close()
        if self.workers.is_first:
            checkpoint.remove()
        self.workers.wait()
        return fitted

    def _check_kept(self, structure: Structure, recipe: Recipe | None, pairs_stored: bool) -> None:
        """Refuse where draws over genes and lines have to be kept, and are not of one table or have no room."""
        if recipe is None or not structure.table(("gene", "line")):
            raise refusal(
                structure.observed, "a screen this large needs one table over genes and lines, or Normal rows"
            )
        size = bytes_of_kept(self.screen.n_genes, self.screen.n_lines, self.draws) / GB
        if not pairs_stored and size > self.draws_disk_gb:
            most = max(1, int(self.draws * self.draws_disk_gb / size))
            raise VihierError(
                f"draws: {self.draws} draws over genes and lines take {size:.1f} GB of disk, which rows that are not "
                f"Normal with one noise scale need; give --draws-disk-gb {math.ceil(size)}, or --draws {most} or fewer"
            )

    def _no_room(self, path: Path, error: OSError) -> Exception:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        kept = (
            ""
            if self.checkpoint_every is None
            else "; what is done so far is kept: make room, then go on with --resume"
        )
        return VihierError(f"{path.parent}: {error.strerror}{kept}")

    def _write(
        self,
        path: Path,
        plan: DrawPlan,
        recipe: Recipe | None,
        fitted: StreamedFit | KeptFit,
        cells: CellFile,
        pairs_stored: bool,
        saver: _Saver,
        progress: Progress,
    ) -> None:
        attrs = {**self.attrs, "reason": fitted.reason}
        if recipe is None:  # a program that is more than sums
            assert isinstance(fitted, StreamedFit)
            if self.workers.is_first:
                self._write_all(path, plan, fitted, attrs, progress)
            return
        with saver.folder_of("blocks", path) as folder:
            last = FinalPass(plan, recipe, fitted, cells, folder, pairs_stored=pairs_stored)
            with last.shelf:
                last.run(progress, saver.after_block)
                self.workers.wait()
                if not self.workers.is_first:
                    return
                if not pairs_stored:
                    attrs[REGENERATION] = recipe.regeneration.to_json()
                with PosteriorWriter(path, labels=plan.labels, n_draws=self.draws, attrs=attrs) as writer:
                    last.write(writer, self.screen.index.gene_of_sgrna, progress)
                    self._finish(writer, fitted)

    def _write_all(
        self, path: Path, plan: DrawPlan, fitted: StreamedFit, attrs: dict[str, Any], progress: Progress
    ) -> None:
        with PosteriorWriter(path, labels=plan.labels, n_draws=self.draws, attrs=attrs) as writer:
            with run_on(self.device, self.dtype):
                blocks = blocks_of(self.screen, genes_at_once(self.screen, self.draws), self.device, self.dtype)
                write_draws(writer, plan, fitted, blocks, self.draws, progress)
            self._finish(writer, fitted)

    def _finish(self, writer: PosteriorWriter, fitted: StreamedFit | KeptFit) -> None:
        write_groups(writer, self.screen, fitted, {})
        writer.finish(converged=fitted.converged, not_identified=dict(self.program.not_identified))


class _Saver:
    """Writes checkpoints when it is time or a signal asks, and stops the fit in the latter case."""

    def __init__(self, checkpoint: Checkpoint, asked: Asked, every: float | None, workers: Workers) -> None:
        self.checkpoint, self.asked, self.every, self.workers = checkpoint, asked, every, workers
        self._last = time.monotonic()

    def look(self, progress: Progress, done: int) -> None:
        """Report how many blocks are read, and stop where a signal asks: there is nothing to keep yet."""
        progress.update(done)
        if self.asked.by:
            raise self._stopped("there was nothing to keep yet: run it again")

    def after_pass(self, running: Running) -> None:
        """Write a checkpoint if it is time, if a signal asks, or if this was the last pass."""
        asked = self.workers.any(bool(self.asked.by))
        due = self.every is not None and time.monotonic() - self._last >= 60 * self.every
        if self.every is not None and self.workers.is_first and (due or asked or running.finished):
            running.keep()
            self.checkpoint.save(running)
            self._last = time.monotonic()
        if asked:
            self.workers.wait()  # whoever ends first has the launcher end the others: not before all is kept
            raise self._stopped()

    def after_block(self) -> None:
        """Stop where a signal asks; blocks keep themselves."""
        if self.asked.by:
            raise self._stopped()

    def _stopped(self, how: str = "go on with --resume (resume=True)") -> Stopped:
        how = how if self.every is not None else "without checkpoints nothing is kept"
        return Stopped(f"stopped by {self.asked.by or 'a signal to another worker'}; {how}")

    @contextmanager
    def folder_of(self, what: str, path: Path) -> Iterator[Path]:
        """Give the folder where blocks or passes wait: the checkpoint's, or a temporary one."""
        if self.every is not None:
            yield self.checkpoint.folder / what
            return
        with ExitStack() as stack:

            def made() -> str:
                return stack.enter_context(tempfile.TemporaryDirectory(prefix=f".vihier-{what}-", dir=path.parent))

            yield Path(self.workers.by_first(made))


def _recipe(plan: DrawPlan, structure: Structure, seed: int, probe: Batch, pairs_stored: bool) -> Recipe | None:
    """Return how variables follow from each other; None where they do not, and all their draws can be stored."""
    try:
        with run_on(torch.device("cpu"), torch.float64):
            return Recipe.of(plan, structure, seed, probe)
    except VihierError:
        if pairs_stored:
            return None
        raise
