"""Rows that are dicts, as data sets of Hugging Face have them, are rows (image, label) by their keys."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdcache.errors import InvalidInputError
from kdcache.views.label_numbers import ATTRIBUTES, listed

IMAGE_KEYS = ("image", "img", "picture")
LABEL_KEYS = ("label", "labels", "target", "class", "fine_label")
PASSED = ("ids", "class_names", "classes", *ATTRIBUTES)


class DictRows:
    """The rows (image, label) of a data set whose rows are dicts, with its attributes, and with the names of classes
    that its `features` have. `keys`: of the image and of the label, "" for none."""

    def __init__(self, samples: Any, keys: tuple[str, str]) -> None:
        self.samples, self.keys = samples, keys
        features = getattr(samples, "features", None)
        names = getattr(features.get(keys[1]), "names", None) if isinstance(features, Mapping) else None
        if names:
            self.class_names = list(names)
        for name in PASSED:
            if (value := getattr(samples, name, None)) is not None and not callable(value):
                setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self.samples[index]
        return row[self.keys[0]], row[self.keys[1]] if self.keys[1] else None


def keys_of(row: Mapping[Any, Any], name: str, *, labelled: bool) -> tuple[str, str]:
    """The keys of image and label of a row. Raises InvalidInputError, which lists all, where they are not known."""
    image = _key(row, IMAGE_KEYS, "image", name)
    return image, _key(row, LABEL_KEYS, "label", name) if labelled else ""


def _key(row: Mapping[Any, Any], known: Sequence[str], meaning: str, name: str) -> str:
    keys = [key for key in known if key in row]
    if len(keys) == 1 or known[0] in keys:
        return keys[0]
    problem = f"several keys may be its {meaning}: {', '.join(keys)}" if keys else f"none of them is its {meaning}"
    raise InvalidInputError(
        f"data {name}: a row is a dict with {listed([*map(str, row)])}, and {problem}; call it {known[0]!r}, or let "
        "__getitem__ return (image, label)"
    )
