"""A label is the number of a class: a whole number of any form, -1 or None for none; all else says what is wrong."""

import numbers
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

NONE = -1  # in place of a label
LARGEST = 2**31 - 1
ATTRIBUTES = ("labels", "targets")  # of a data set object, either of which may hold its labels
NAMED = 5  # names that a message lists
Labels = npt.NDArray[np.int32]

WHOLE = "a label is the number of a class: give whole numbers, or use the soft labels alone (--labels none)"


def label_attribute(samples: Any, rows: int) -> tuple[str, Any] | None:
    """Name and value of the attribute that holds the labels: of several the first with one for each of the rows."""
    values: list[tuple[str, Any]] = [(name, getattr(samples, name, None)) for name in ATTRIBUTES]
    attributes = [(name, value) for name, value in values if value is not None and not callable(value)]
    fitting = [(name, value) for name, value in attributes if hasattr(value, "__len__") and len(value) == rows]
    return next(iter(fitting or attributes), None)


def class_number(label: Any) -> int:
    """A label as a number, -1 for None. Raises ValueError, which says what is wrong, for one that numbers no class."""
    if label is None:
        return NONE
    if isinstance(label, Tensor | np.ndarray | np.generic):
        size = label.numel() if isinstance(label, Tensor) else label.size
        if size != 1:
            raise ValueError(f"it holds {size} values; give one number, as argmax(-1) does of one-hot labels")
        if isinstance(label, np.ma.MaskedArray) and np.ma.getmaskarray(label).all():
            return NONE
        return class_number(label.item())
    if isinstance(label, str | bytes):
        raise ValueError("it is a word; give the number of its class, and the names in order as `class_names`")
    if not isinstance(label, numbers.Number) or isinstance(label, complex):
        raise ValueError(f"it is a {type(label).__name__}; {WHOLE}")
    try:
        number = int(label)  # type: ignore[call-overload]
    except (ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"it is no number of a class ({error}); give -1 or None for no label") from error
    if number != label:
        raise ValueError(f"it is no whole number; {WHOLE}")
    if number < NONE:
        raise ValueError("it is negative; give -1 or None for no label")
    if number > LARGEST:
        raise ValueError(f"the largest label is {LARGEST}; {WHOLE}")
    return int(number)


def label_notes(labels: Labels) -> tuple[str, ...]:
    """A note on how many rows have no label, where others have one."""
    count, unlabelled = len(labels), int((labels < 0).sum())
    return (f"{unlabelled:,} of {count:,} rows have no label",) if 0 < unlabelled < count else ()


def absent_notes(labels: Labels, class_names: Sequence[str]) -> tuple[str, ...]:
    """A note on the classes, by name or up to the largest label, that no row has."""
    present = set(np.unique(labels[labels >= 0]).tolist())
    classes = len(class_names) or max(present, default=NONE) + 1
    if not present or len(present) == classes:
        return ()
    absent = list(islice((number for number in range(classes) if number not in present), NAMED))
    texts = [class_names[number] if class_names else str(number) for number in absent]
    count = classes - len(present)
    return (f"{count:,} of {classes:,} classes have no row: {listed(texts, count=count)}",)


def listed(names: Sequence[str], most: int = NAMED, count: int = 0) -> str:
    """The first names of a list, and how many there are beside, of `count` where the list is cut."""
    rest = max(count, len(names)) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def shown_label(label: Any) -> str:
    """A label as text, cut where it is long."""
    text = repr(label).replace("\n", " ")
    return text if len(text) <= 80 else f"{text[:77]}..."
