"""The configuration in the file: TOML that comes back, and programs told apart."""

from __future__ import annotations

import tomllib
from collections.abc import Callable

import pytest

from vihier.inference.config import fingerprint, to_toml


@pytest.mark.parametrize(
    "text", ["plain", 'quote " and \\ back', "tab\tline\nend", "\x00\x01\x1f\x7f\x80", "ünïcode 🧬", "", "a = 'b' # c"]
)
def test_any_text_comes_back_as_value_and_as_key(text: str) -> None:
    settings = {"value": text, "table": {text: text}}
    assert tomllib.loads(to_toml(settings)) == settings


def test_numbers_and_booleans_come_back_and_none_is_left_out() -> None:
    settings = {"a": 1, "b": -2.5, "c": True, "d": False, "e": 1e300, "f": 1e-7, "g": float("inf"), "h": None}
    assert tomllib.loads(to_toml(settings)) == {key: value for key, value in settings.items() if value is not None}


def scaled(by: float) -> Callable[[float], float]:
    return lambda x: x * by


def test_a_program_is_told_by_its_code_constants_defaults_and_closure() -> None:
    def first(batch: float) -> float:
        return batch + 1.0

    def again(batch: float) -> float:
        return batch + 1.0

    def other(batch: float) -> float:
        return batch + 2.0

    def default(batch: float, by: float = 2.0) -> float:
        return batch + 1.0

    assert fingerprint(first) == fingerprint(again)
    assert len({fingerprint(f) for f in (first, other, default, scaled(1.0), scaled(2.0))}) == 5
