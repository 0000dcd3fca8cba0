"""Rows of logits are taken in pieces that fit the cache.

Shape letters: R rows, C classes.
"""

from collections.abc import Iterator

from torch import Tensor

PIECE = 2**17  # numbers that a core's cache holds a few times
PIECE_ELSEWHERE = 2**25  # an accelerator wants few launches


def pieces(logits: Tensor) -> Iterator[slice]:
    """The rows of logits [R, C] in pieces."""
    rows, classes = logits.shape
    length = max(1, (PIECE if logits.device.type == "cpu" else PIECE_ELSEWHERE) // max(classes, 1))
    return (slice(start, start + length) for start in range(0, max(rows, 1), length))


def tempered(values: Tensor, temperature: float) -> Tensor:
    """Values over a temperature."""
    return values if temperature == 1 else values / temperature
