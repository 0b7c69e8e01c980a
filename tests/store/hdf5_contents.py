"""What an HDF5 file holds, for comparison."""

from __future__ import annotations

from pathlib import Path

import h5py


def datasets(path: Path) -> dict[str, bytes]:
    """Every dataset of a file: its type, shape and bits."""
    found: dict[str, bytes] = {}

    def look(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            values = node[()]
            bits = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
            found[name] = f"{node.dtype} {node.shape} ".encode() + bits

    with h5py.File(path) as file:
        file.visititems(look)
    return found
