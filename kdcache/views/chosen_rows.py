"""Rows of a data set by arguments that every kind takes: a range, a long tail, classes that are joined, noisy labels.

They come in this order: `rows` (a file of ids), `range`, `imbalance`, `groups`, `noise`, `limit`. The result is a data
set of its own, told from others by the digests of its ids, labels and contents.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import floor, isfinite
from typing import Any

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.ranges import SEED_MAX, Range
from kdcache.errors import InvalidInputError
from kdcache.views.data_parts import D, listed_indices, part_of
from kdcache.views.label_numbers import Labels
from kdcache.views.texts import sequence_of

ARGUMENTS = (
    "rows", "range", "imbalance", "imbalance_order", "imbalance_seed", "groups", "noise", "noise_seed", "limit",
)  # fmt: skip
OF_CLASSES = ("groups",)
"""Those of `ARGUMENTS` that change which classes there are."""
OF_LABELS = (*OF_CLASSES, "noise", "noise_seed")
"""Those that keep all rows, and change labels."""
HELPERS = {"imbalance_order": "imbalance", "imbalance_seed": "imbalance", "noise_seed": "noise"}


def chosen_rows(data: D, arguments: Mapping[str, Any], *, classes: int) -> D:
    """The rows that `ARGUMENTS` leave of a data set of so many `classes`, in its order, with the labels that `groups`
    and `noise` give them. Raises InvalidInputError, naming the argument and what the data set has."""
    for helper, name in HELPERS.items():
        if helper in arguments and name not in arguments:
            raise InvalidInputError(f"{helper} is {arguments[helper]!r} and there is no {name}; give {name} too")
    if (sequence := sequence_of(data.samples)) > 1 and (
        wrong := sorted({*OF_CLASSES, "imbalance", "noise"} & set(arguments))
    ):
        raise InvalidInputError(
            f"{wrong[0]} is {arguments[wrong[0]]!r}, and the data set holds texts of {sequence} tokens, whose labels "
            "are their own tokens; choose texts by rows, range or limit"
        )
    if "rows" in arguments:
        data = part_of(data, listed_indices(str(arguments["rows"]), data.ids))
    if "range" in arguments:
        data = part_of(data, _range(arguments["range"], len(data.ids)))
    if "imbalance" in arguments:
        order = _class_order(arguments.get("imbalance_order"), classes)
        seed = _seed(arguments, "imbalance_seed")
        data = part_of(data, long_tail(_labels(data, "imbalance", arguments), arguments["imbalance"], order, seed))
    if "groups" in arguments:
        _labels(data, "groups", arguments)
        data, classes = _grouped(data, arguments["groups"], classes)
    if "noise" in arguments:
        share, seed = arguments["noise"], _seed(arguments, "noise_seed")
        data = replace(data, labels=noisy(_labels(data, "noise", arguments), share, classes, seed))  # type: ignore[type-var]
    return _limited(data, arguments["limit"]) if "limit" in arguments else data


def long_tail(labels: Labels, ratio: Any, order: IntArray, seed: int) -> IntArray:
    """Ascending indices of a long tail of labels [N]: the class of rank r in `order` [C], head first, keeps
    round(n ratio^(-r / (C - 1))) of its rows, chosen by the seed.

    The exponential profile of Cao et al. 2019. n, the rows of the head, is the largest whole number at which every
    class has the rows that its rank asks for; of a data set with equal classes, all rows of one. Rows without a label
    belong to no class and are left out.
    """
    if not _is_number(ratio) or ratio < 1:
        raise InvalidInputError(
            f"imbalance is {ratio!r}; give the ratio of the largest class to the smallest, 1 or more"
        )
    counts = np.bincount(labels[labels >= 0], minlength=len(order))[order]
    if not counts.all():
        raise InvalidInputError(
            f"imbalance is {ratio} over {len(order)} classes, and class {order[counts.argmin()]} has no row; leave "
            "imbalance out, or choose rows of every class"
        )
    shares = [float(ratio) ** (-rank / max(len(order) - 1, 1)) for rank in range(len(order))]
    head = floor(min(count / share for count, share in zip(counts.tolist(), shares, strict=True)) + 1e-9)
    kept = [round(head * share) for share in shares]
    if not all(kept):
        first_empty = kept.index(0)
        raise InvalidInputError(
            f"imbalance is {ratio}: class {order[first_empty]} would keep none of its {counts[first_empty]} rows, "
            f"where class {order[0]} keeps {head}; give a smaller ratio, or more rows"
        )
    permuted = _generator(seed).permutation(len(labels))
    rows = [permuted[labels[permuted] == number][:count] for number, count in zip(order, kept, strict=True)]
    indices: IntArray = np.sort(np.concatenate(rows)).astype(np.int64)
    return indices


def _grouped(data: D, size: Any, classes: int) -> tuple[D, int]:
    """The data set with each `size` consecutive classes as one, named by theirs, and the number of classes that are
    left; the last may have fewer. Raises InvalidInputError unless there are two at least."""
    if not isinstance(size, int) or isinstance(size, bool) or not 2 <= size < classes:
        raise InvalidInputError(
            f"groups is {size!r}, and the data set has {classes} classes; give the number of consecutive classes that "
            f"become one, 2 to {classes - 1}"
        )
    starts = range(0, classes, size)
    names = tuple(" + ".join(data.class_names[start : start + size]) for start in starts if data.class_names)
    labels = np.where(data.labels >= 0, data.labels // size, data.labels).astype(np.int32)
    return replace(data, labels=labels, class_names=names), len(starts)  # type: ignore[type-var]


def noisy(labels: Labels, share: Any, classes: int, seed: int) -> Labels:
    """Labels [N] i32 of which a share is drawn anew, uniformly from all classes, the true one among them: so a share of
    (C - 1) / C of these is wrong on average. Rows without a label keep none. Under one seed the rows of a smaller share
    are among those of a larger one, with equal labels."""
    if not _is_number(share) or not 0 <= share <= 1:
        raise InvalidInputError(f"noise is {share!r}; give the share of labels that are drawn anew, from 0 to 1")
    generator = _generator(seed)
    labelled = np.flatnonzero(labels >= 0)
    drawn = generator.permutation(labelled)[: round(share * len(labelled))]
    random_labels = generator.randint(0, classes, size=len(labels))
    result = labels.copy()
    result[drawn] = random_labels[drawn]
    return result


def _range(value: Any, rows: int) -> IntArray:
    start, colon, stop = str(value).partition(":")
    if not colon or not all(end.isascii() and end.isdecimal() and len(end) <= 15 for end in (start, stop)):
        raise InvalidInputError(f"range is {value!r}; give START:STOP, two indices of which the second is left out")
    if not int(start) < int(stop) <= rows:
        raise InvalidInputError(f"range is {value}; the data set has {rows} samples, 0:{rows}")
    return np.arange(int(start), int(stop))


def _limited(data: D, limit: Any) -> D:
    count = len(data.ids)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= count:
        problem = "" if isinstance(limit, int) and not isinstance(limit, bool) else ": limit must be a whole number"
        raise InvalidInputError(f"limit is {limit!r}{problem}; the data set has {count} samples")
    if sequence_of(data.samples) > 1:
        return part_of(data, np.arange(limit))
    return replace(data, ids=data.ids[:limit], labels=data.labels[:limit])  # type: ignore[type-var]


def _class_order(value: Any, classes: int) -> IntArray:
    """The classes from head to tail: by number, or as `4,8,5,...` or a list names all of them."""
    if value is None:
        return np.arange(classes)
    parts = value if isinstance(value, list) else str(value).split(",")
    texts = [str(part).strip() for part in parts]
    if sorted(texts) != sorted(map(str, range(classes))):
        raise InvalidInputError(
            f"imbalance_order is {value!r}; give the numbers of all {classes} classes from head to tail, 0 to "
            f"{classes - 1}, each once, with commas between"
        )
    return np.array([int(text) for text in texts])


def _labels(data: D, name: str, arguments: Mapping[str, Any]) -> Labels:
    if not (data.labels >= 0).any():
        raise InvalidInputError(
            f"{name} is {arguments[name]!r}, and none of the {len(data)} samples has a label (--labels none takes them "
            f"away); give labels, or leave {name} out"
        )
    return data.labels


def _seed(arguments: Mapping[str, Any], name: str) -> int:
    seed = arguments.get(name, 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= SEED_MAX:
        raise InvalidInputError(f"{name} is {seed!r}; give a whole number {Range(0, SEED_MAX)}")
    return seed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _generator(seed: int) -> np.random.RandomState:
    """numpy's frozen generator: its numbers stay what they are."""
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32])
