"""Options of a command from a TOML file: what the command line gives as well, the command line decides."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from vihier.errors import VihierError

# Other names of options: those of the fit's own configuration and of `vihier.fit`.
ALSO = {"priors": "prior", "columns": "column", "json": "as_json"}
# What a fit notes in its configuration, and nobody asks for.
NOTED = {"init_created_at"}


def take_run_file(context: typer.Context, path: Path | None) -> Path | None:
    """Take a file's settings for the options that the command line does not give.

    Keys are the names of options, with `-` or `_`, and of arguments; a table, as [priors], stands for an option of
    NAME=VALUE. Values are read as those on a command line are; paths start from the working directory.

    Raises
    ------
    VihierError
        A file that is not TOML, a key that is no option, a value of another kind.
    """
    if path is None or context.resilient_parsing:
        return path
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VihierError(f"{path}: not TOML: {error}") from error
    known = {str(option.name): option for option in context.command.params if option.name != "config"}
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        name = ALSO.get(name, name)
        if name in NOTED:
            continue
        if name not in known:
            near = get_close_matches(name, known, 1)
            cure = (
                f"did you mean {near[0]}?" if near else f"leave it out; 'vihier {context.info_name} --help' lists all"
            )
            raise VihierError(f"{path}: {key}: no option of this command; {cure}")
        if name in found:
            raise VihierError(f"{path}: {key}: is there under two names; keep one")
        found[name] = _as_typed(f"{path}: {key}", value, known[name])
    context.default_map = found
    return path


def _as_typed(what: str, value: Any, option: Any) -> str | bool | list[str]:
    """Return a value as a command line would give it."""
    is_flag, many = getattr(option, "is_flag", False), getattr(option, "multiple", False)
    if is_flag != isinstance(value, bool):
        raise VihierError(
            f"{what}: {value!r} does not fit; give {'true or false' if is_flag else 'a number or a text'}"
        )
    if is_flag:
        return bool(value)
    if not many and isinstance(value, list | Mapping):
        raise VihierError(f"{what}: takes one value; give it as a number or a text")
    if isinstance(value, Mapping):
        return [f"{key}={_text(what, each)}" for key, values in value.items() for each in _listed(values)]
    return [_text(what, each) for each in _listed(value)] if many else _text(what, value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(what: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise VihierError(f"{what}: {value!r} is not a number or a text")
    return str(value)
