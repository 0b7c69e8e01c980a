"""Pictures of the documentation, small enough to be kept beside it."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

TONE = 5


def write_small(drawn: str | Path | IO[bytes], path: Path) -> None:
    """Write a picture with 52 tones a channel in the place of 256.

    It takes a third off the file, and nobody sees it; a palette would turn rare colours into common ones.
    """
    tones = np.asarray(Image.open(drawn).convert("RGB"), dtype=np.int16)
    tones = (tones + TONE // 2) // TONE * TONE
    Image.fromarray(tones.astype(np.uint8)).save(path, optimize=True)
