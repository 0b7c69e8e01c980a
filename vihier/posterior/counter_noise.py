"""Standard normals from a counter: the same key and place give the same number, in any order and company.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter of four words into
four words that pass the usual tests of randomness; Box and Muller (1958) make them normal.
"""

from __future__ import annotations

import zlib

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
LANES = 4
"""Numbers that one counter gives."""


def key_of(seed: int, site: str) -> tuple[int, int]:
    """Return the two words that stand for a seed and a site."""
    words = np.random.SeedSequence([seed, zlib.crc32(site.encode())]).generate_state(2, np.uint32)
    return int(words[0]), int(words[1])


def philox(key: tuple[int, int], counter: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return four words for each counter of four words.

    Parameters
    ----------
    key : tuple of int
        Two words of 32 bits.
    counter : tuple of ndarray
        Four arrays of uint64 below 2^32 that broadcast against each other.

    Examples
    --------
    >>> zero = np.zeros(1, dtype=np.uint64)
    >>> [hex(int(word[0])) for word in philox((0, 0), (zero,) * 4)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = counter
    low, high = key
    for number in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        keys = np.uint64((low + number * _WEYL[0]) & 0xFFFFFFFF), np.uint64((high + number * _WEYL[1]) & 0xFFFFFFFF)
        a, b = (second >> _HALF) ^ b ^ keys[0], second & _LOW
        c, d = (first >> _HALF) ^ d ^ keys[1], first & _LOW
    return a, b, c, d


def normals(key: tuple[int, int], genes: np.ndarray, nodes: np.ndarray, n_draws: int) -> np.ndarray:
    """Return standard normals, float32 [len(genes), len(nodes), n_draws].

    Parameters
    ----------
    key : tuple of int
        From `key_of`.
    genes, nodes : int arrays
        What the numbers belong to.
    """
    n_counters = -(-n_draws // LANES)
    gene = np.asarray(genes, dtype=np.uint64)[:, None, None]
    node = np.asarray(nodes, dtype=np.uint64)[None, :, None]
    draw = np.arange(n_counters, dtype=np.uint64)[None, None]
    shape = (gene.shape[0], node.shape[1], n_counters)
    words = philox(key, tuple(np.broadcast_to(x, shape) for x in (draw, node, gene, np.zeros_like(draw))))
    out = np.empty((*shape, LANES), dtype=np.float32)
    for pair in (0, 2):
        # Never 0, whose logarithm is not finite; 2^-33 is the smallest.
        uniform = (words[pair].astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
        radius = np.sqrt(np.float32(-2) * np.log(uniform))
        angle = words[pair + 1].astype(np.float32) * np.float32(2 * np.pi * 2.0**-32)
        out[..., pair] = radius * np.cos(angle)
        out[..., pair + 1] = radius * np.sin(angle)
    return out.reshape(*shape[:2], -1)[..., :n_draws]
