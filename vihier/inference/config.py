"""The exact configuration of a fit: written into its file as TOML, and compared with what is asked for now."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from vihier.errors import VihierError
from vihier.posterior.reader import Posterior, open_posterior

Value = str | int | float | bool


def to_toml(settings: Mapping[str, Value | Mapping[str, Value] | None]) -> str:
    """Write scalars and tables of scalars as TOML; None is left out.

    Examples
    --------
    >>> print(to_toml({"model": "additive", "draws": 100, "priors": {"mu": "Normal(0, 3)"}}), end="")
    model = "additive"
    draws = 100
    <BLANKLINE>
    [priors]
    mu = "Normal(0, 3)"
    """
    lines = [f"{_key(k)} = {_scalar(v)}" for k, v in settings.items() if v is not None and not isinstance(v, Mapping)]
    for name, table in settings.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_scalar(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()
    return name if bare else _scalar(name)


def _scalar(value: Value) -> str:
    if isinstance(value, str):
        # A JSON string is a TOML one, but for DEL and lone surrogates, which a path of odd bytes can hold.
        return json.dumps(value.encode("utf-8", "backslashreplace").decode(), ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    return str(value)


def fingerprint(function: Callable[..., Any]) -> str:
    """Return what tells one program of a user's from another: a hash of its code, constants and defaults.

    Of what the code refers to (globals, modules) only the names count.
    """
    target: Any = function
    if not hasattr(target, "__code__"):
        target = getattr(type(function), "forward", None) or type(function).__call__
    target = getattr(target, "__wrapped__", target)
    code = getattr(target, "__code__", None)
    described = f"{type(function).__module__}.{type(function).__qualname__}" if code is None else _describe(code)
    cells = getattr(target, "__closure__", None) or ()
    described += repr([_value(cell.cell_contents) for cell in cells])
    described += repr([_value(value) for value in getattr(target, "__defaults__", None) or ()])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _describe(code: CodeType) -> str:
    constants = [_describe(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _value(value: Any) -> str:
    # The repr of most objects holds their address, which differs between runs.
    if isinstance(value, str | int | float | bool | tuple | type(None)):
        return repr(value)
    return (
        f"{type(value).__qualname__} {_describe(value.__code__)}"
        if hasattr(value, "__code__")
        else type(value).__qualname__
    )


def open_if_same(path: Path, screen_hash: str, config: str) -> Posterior | None:
    """Open the fit at `path` if it is the one asked for.

    Returns
    -------
    Posterior or None
        None where there is no file.

    Raises
    ------
    VihierError
        If there is another file: it names the first difference.
    """
    if not path.exists():
        return None
    cure = "give another --out, or --force (force=True) to replace it"
    try:
        posterior = open_posterior(path)
    except VihierError as error:
        raise VihierError(f"{error}; or {cure}") from error
    try:
        difference = _difference(posterior, screen_hash, config)
    except (tomllib.TOMLDecodeError, KeyError) as error:
        difference = f"a fit of unknown configuration ({error})"
    if difference:
        posterior.close()
        raise VihierError(f"{path}: holds {difference}; {cure}")
    return posterior


def _difference(posterior: Posterior, screen_hash: str, config: str) -> str:
    there, wanted = tomllib.loads(posterior.attrs["config"]), tomllib.loads(config)
    # The hash is of the columns that are read, which the model and its terms decide.
    same = all(there.get(name) == wanted.get(name) for name in ("model", "covariates"))
    if same and posterior.attrs["screen_hash"] != screen_hash:
        return "a fit of another screen"
    return first_difference(there, wanted)


def first_difference(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say how a configuration differs from another, both read from TOML; nothing where it does not."""
    priors = there.pop("priors", {}), wanted.pop("priors", {})
    for (has, wants), kind in (((there, wanted), ""), (priors, "prior of ")):
        for name in [*wants, *(name for name in has if name not in wants)]:
            if has.get(name) != wants.get(name):
                return f"a fit with {kind}{name} {_told(has, name)}, and {_told(wants, name)} was asked for"
    return ""


def _told(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "the default"
