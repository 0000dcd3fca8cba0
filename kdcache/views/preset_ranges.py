"""Ranges of the presets' arguments, which are looked at before a transform is made."""

from math import isfinite
from typing import Any

from kdcache.errors import InvalidInputError

SIDE_MAX = 65535  # pixels
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "nearest-exact", "box", "hamming", "lanczos")
MAGNITUDES = 31  # strengths of RandAugment, from 0


def require_ranges(name: str, arguments: dict[str, Any]) -> None:
    """Raises InvalidInputError, naming argument and range, for a value that the preset `name` cannot draw by."""
    least_size = 1 if name in ("imagenet", "center") else 0
    whole = {
        "size": (least_size, SIDE_MAX),
        "resize": (0, SIDE_MAX),
        "padding": (0, SIDE_MAX),
        "num_ops": (0, 100),
        "magnitude": (0, MAGNITUDES - 1),
    }
    for argument, value in arguments.items():
        text = ""
        if argument in whole:
            low, high = whole[argument]
            is_right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            text = "" if is_right else f"a whole number from {low} to {high}"
        elif argument == "flip" and not (_is_number(value) and 0 <= value <= 1):
            text = "a probability from 0 to 1"
        elif argument == "interpolation" and value not in INTERPOLATIONS:
            text = " or ".join(INTERPOLATIONS)
        elif argument == "squash" and not isinstance(value, bool):
            text = "true or false"
        elif argument == "scale" and not _is_scale(value):
            text = "two shares of the image's area above 0, the smaller one first, as [0.08, 1]"
        if text:
            raise InvalidInputError(f"transform {name}: {argument} is {value!r}; give {text}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_scale(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        return False
    return bool(0 < value[0] <= min(1, value[1]))
