"""Many replicates of a study, a JSON line each, over processes; a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from vihier.errors import VihierError

Record = dict[str, Any]
Study = TypeVar("Study")
Task = Callable[[Study, int], Record]
Told = Callable[[int, Record], None]


def read_records(path: Path, settings: Record) -> list[Record]:
    """Read the replicates that are done; a last line cut off by a killed run is left out, and removed from the file.

    Parameters
    ----------
    path
        JSON lines: the settings, then a line a replicate; it is begun where it is not there.
    settings
        What the records depend on, as JSON gives it back.

    Raises
    ------
    VihierError
        The file is another's, or holds replicates of other settings.
    """
    if not path.exists():
        path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return []
    try:
        whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        there = json.loads(whole[0]) if whole else None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VihierError(f"{path}: is no file of replicates; give another --out") from error
    if there != settings:
        raise VihierError(f"{path}: holds replicates of other settings; give another --out")
    path.write_text("".join(whole), encoding="utf-8")
    return [json.loads(line) for line in whole[1:]]


def run_replicates(
    task: Task[Study], study: Study, settings: Record, n: int, path: Path, processes: int, told: Told
) -> list[Record]:
    """Return the records of replicates 0 to n - 1, running those that the file does not have.

    Parameters
    ----------
    task
        `task(study, number)` makes one record, which has its `number`; with several processes, a function of a module.
    study
        Goes to the task; to each process once.
    settings
        See `read_records`.
    told
        Is called with the number that are done and each new record.
    """
    records = read_records(path, settings)
    done = {record["number"] for record in records}
    todo = [number for number in range(n) if number not in done]
    with path.open("a", encoding="utf-8") as file:
        for count, record in enumerate(_each(task, study, todo, processes), start=1):
            file.write(json.dumps(record) + "\n")
            file.flush()
            records.append(record)
            told(len(done) + count, record)
    return sorted((record for record in records if record["number"] < n), key=lambda record: record["number"])


_held: dict[str, Any] = {}


def _hold(task: Any, study: Any) -> None:
    _held.update(task=task, study=study)


def _held_task(number: int) -> Record:
    return _held["task"](_held["study"], number)


def _each(task: Task[Study], study: Study, numbers: Sequence[int], processes: int) -> Iterator[Record]:
    """Yield the records as they are done. Torch's threads do not survive a fork, so workers are spawned."""
    if processes == 1:
        yield from (task(study, number) for number in numbers)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_hold, initargs=(task, study)) as pool:
        for future in as_completed([pool.submit(_held_task, number) for number in numbers]):
            yield future.result()
