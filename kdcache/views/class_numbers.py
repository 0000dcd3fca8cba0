"""Classes by name: a data set is numbered by the names of another, whatever numbers its own labels have."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.store.store import Store
from kdcache.views.data import Data
from kdcache.views.label_numbers import NONE, absent_notes, listed

ADVICE = "name its classes as training does, or give training these classes too"


def numbered_by(data: Data, class_names: Sequence[str]) -> Data:
    """The validation data with its labels numbered by training's class names, and notes of training's classes that it
    lacks.

    It stays as it is where one of them has no names, or where its labels have these numbers already. Raises
    InvalidInputError, with both lists, for a labelled class that training lacks or names twice.
    """
    if not data.is_labelled or not (class_names or data.class_names):
        return data
    if not (class_names and data.class_names):
        nameless = "training" if data.class_names else "validation"
        return replace(data, notes=(*data.notes, f"{nameless} names no classes: validation is taken by number"))
    numbers = _numbers(data.class_names, class_names)
    used = np.unique(data.labels[data.labels >= 0])
    if strangers := [data.class_names[number] for number in used[numbers[used] == NONE].tolist()]:
        raise InvalidInputError(
            f"validation has classes that training has not, or not once: {listed(strangers)}; training has "
            f"{_all(class_names)}; validation has {_all(data.class_names)}; {ADVICE}"
        )
    notes = tuple(note for note in data.notes if note not in absent_notes(data.labels, data.class_names))
    if len(absent := np.setdiff1d(np.arange(len(class_names)), numbers[used])):
        names = listed([class_names[number] for number in absent.tolist()])
        notes += (f"validation has no row of {len(absent):,} of training's {len(class_names):,} classes: {names}",)
    if (numbers[used] == used).all():
        return replace(data, notes=notes)
    labels = np.where(data.labels >= 0, numbers[data.labels], NONE).astype(np.int32)
    notes += ("validation numbers its classes otherwise than training: they are matched by name",)
    return replace(data, labels=labels, class_names=tuple(class_names), notes=notes)


def require_alike(names: Sequence[str], class_names: Sequence[str], *, classes: int, store: str) -> None:
    """Raises InvalidInputError where a store of `classes` classes numbers them by `names` otherwise than training does
    by `class_names`: its soft labels would be taken for other classes."""
    if not names or not class_names:
        return
    same = [*map(_form, names)] == [*map(_form, class_names[: len(names)])]
    if not same or classes < len(class_names):
        raise InvalidInputError(
            f"{store} numbers its classes otherwise than training: it has {_all(names)}; training has "
            f"{_all(class_names)}; extract it from data of training's classes, or leave it out"
        )


def is_unlabelled(store: Store) -> bool:
    """True for a store without any hard label and without names of classes, as --labels none makes it."""
    return not store.identity.dataset.class_names and not bool((store.labels >= 0).any())


def _numbers(names: Sequence[str], class_names: Sequence[str]) -> IntArray:
    """The number [n] of each name among these, -1 where none or several of them have it."""
    if tuple(names) == tuple(class_names):
        return np.arange(len(names))
    forms = [*map(_form, class_names)]
    counts, numbers = Counter(forms), {form: number for number, form in enumerate(forms)}
    return np.array([numbers[form] if counts[form] == 1 else NONE for form in map(_form, names)])


def _form(name: str) -> str:
    """A name in one form of Unicode: file systems store an accent in one of two."""
    return unicodedata.normalize("NFC", name)


def _all(names: Sequence[str]) -> str:
    return f"{len(names):,} classes ({listed(names, most=12)})"
