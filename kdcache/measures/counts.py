"""Counts say how often each key came: a table that is too wide to hold its zeros, such as pairs of classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
Piece = tuple[Keys, Keys]  # keys, ascending and unique, and how often each came


class Counts:
    """Counts by i64 key. Adding keeps pieces, each over twice the next, so that n keys cost n log n in all."""

    def __init__(self, pieces: tuple[Piece, ...] = ()) -> None:
        self._pieces = pieces

    @classmethod
    def of(cls, keys: npt.NDArray[Any]) -> "Counts":
        """Each of the keys [n], once for every time that it stands there."""
        unique, counts = np.unique(keys.astype(np.int64), return_counts=True)
        return cls(((unique, counts.astype(np.int64)),) if len(unique) else ())

    @classmethod
    def of_pairs(cls, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> "Counts":
        """Pairs of ids [n] below 2^31."""
        return cls.of((first.astype(np.int64) << 32) | second.astype(np.int64))

    def __add__(self, other: "Counts") -> "Counts":
        pieces = sorted((*self._pieces, *other._pieces), key=lambda piece: -len(piece[0]))
        while len(pieces) > 1 and len(pieces[-2][0]) <= 2 * len(pieces[-1][0]):
            pieces[-2:] = [_merged(pieces[-2], pieces[-1])]
            pieces.sort(key=lambda piece: -len(piece[0]))
        return Counts(tuple(pieces))

    def items(self) -> Piece:
        """All keys [n], ascending, with their counts [n]."""
        whole: Piece = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        for piece in reversed(self._pieces):
            whole = _merged(whole, piece)
        return whole

    def pairs(self) -> tuple[Keys, Keys, Keys]:
        """First ids [n], second ids [n] and counts [n] of `of_pairs`."""
        keys, counts = self.items()
        return keys >> 32, keys & 0xFFFFFFFF, counts


def _merged(a: Piece, b: Piece) -> Piece:
    keys, places = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
    counts = np.bincount(places, weights=np.concatenate([a[1], b[1]]), minlength=len(keys))
    return keys, counts.astype(np.int64)
