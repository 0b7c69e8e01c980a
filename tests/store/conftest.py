"""Chunks, groups and pieces so small that small tables have many."""

from __future__ import annotations

import pytest

from vihier.store import chunks, rows, sorting, tables


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chunks, tables):
        monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    monkeypatch.setattr(sorting, "GROUP_ROWS", 3)
    monkeypatch.setattr(rows, "PIECE_ROWS", 3)
