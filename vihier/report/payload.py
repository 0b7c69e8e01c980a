"""Data in a page: arrays as base64, and JSON that cannot end the script element that it stands in."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

_TYPES = {"f": ("f32", "<f4"), "i": ("i32", "<i4"), "u": ("u8", "u1"), "b": ("u8", "u1")}
MISSING = -32768
# Log2 fold changes are within [-20, 20], so that thousandths fit 16 bits.
THOUSANDTHS = 1000


def packed(values: np.ndarray) -> dict[str, str] | list[str]:
    """Return an array as the page's script reads it, flattened in C order: numbers as base64, labels as a list.

    Floats become float32, the precision of a posterior file; integers int32; truth values bytes.

    Examples
    --------
    >>> packed(np.array([1.0, -2.0]))
    {'f32': 'AACAPwAAAMA='}
    >>> packed(np.array(["KRAS", "BRAF"]))
    ['KRAS', 'BRAF']
    """
    if values.dtype.kind not in _TYPES:
        return [str(value) for value in values.ravel()]
    name, kind = _TYPES[values.dtype.kind]
    return {name: base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")}


def packed_thousandths(values: np.ndarray) -> dict[str, str]:
    """Return log2 fold changes within [-32, 32] as 16-bit thousandths, -32768 where there is none (NaN).

    Examples
    --------
    >>> packed_thousandths(np.array([0.001, np.nan]))
    {'i16': 'AQAAgA=='}
    """
    scaled = np.where(np.isfinite(values), np.rint(values * THOUSANDTHS), MISSING)
    return {"i16": base64.b64encode(scaled.astype("<i2").tobytes()).decode("ascii")}


def script_json(data: Mapping[str, Any]) -> Markup:
    r"""Return JSON to stand in a script element: no label in it can close the element or open a comment.

    Raises
    ------
    ValueError
        A number that JSON does not have (NaN, infinity).

    Examples
    --------
    >>> print(script_json({"gene": "</script>"}))
    {"gene":"\u003c/script\u003e"}
    """
    return htmlsafe_json_dumps(data, dumps=json.dumps, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
