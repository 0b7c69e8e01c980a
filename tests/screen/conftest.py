"""A small screen table as text and as a frame, and a way to save it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

HEADER = "sgrna,hugo_symbol,depmap_id,lineage,replicate_id,lfc\n"
ROWS = (
    "AAA,KRAS,ACH-1,skin,A,0.5\n",
    "AAA,KRAS,ACH-1,skin,B,0.25\n",
    "CCC,KRAS,ACH-1,skin,A,-0.5\n",
    "GGG,BRAF,ACH-2,lung,A,-1.5\n",
)


@pytest.fixture
def text() -> str:
    """Two genes, three sgRNAs, two lines, four rows: the header is line 1, the last row line 5."""
    return HEADER + "".join(ROWS)


@pytest.fixture
def frame(text: str) -> pd.DataFrame:
    """The same table as a frame."""
    return pd.read_csv(io.StringIO(text))


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file and return its path; text as UTF-8, line ends as they are."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
