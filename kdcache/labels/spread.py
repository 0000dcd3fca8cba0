"""A spread holds a number for each class of B rows without writing them all out: a few classes have their own.

Shape letters: B any leading axes, K classes with a number of their own, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace

Array = Any  # numpy or torch, as in `reduction`


@dataclass(frozen=True)
class Spread:
    """Numbers [B, C], numpy or torch.

    base [B, 1], the number of all classes of a row, or [B, C]. classes, head [B, K]: the classes of which `head` holds
    the number in its place, and those numbers; None where there are none. num_classes: C.
    """

    base: Array
    classes: Array | None
    head: Array | None
    num_classes: int

    @staticmethod
    def of(values: Array) -> "Spread":
        """The spread of numbers [B, C] that are written out."""
        return Spread(values, None, None, int(values.shape[-1]))

    def dense(self) -> Array:
        """The numbers [B, C]."""
        if self.classes is None:
            return self.base
        xp = array_namespace(self.base)
        return put_at(xp.broadcast_to(self.base, (*self.base.shape[:-1], self.num_classes)), self.classes, self.head)

    def map(self, change: Callable[[Array], Array]) -> "Spread":
        """The same spread of other numbers; `change` works number by number."""
        return replace(self, base=change(self.base), head=None if self.head is None else change(self.head))

    def less_its_mean(self) -> "Spread":
        """The same numbers less the mean over a row's classes."""
        xp = array_namespace(self.base)
        if self.head is None or self.base.shape[-1] > 1:
            mean = xp.mean(self.dense(), axis=-1, keepdims=True)
        else:
            rest = self.num_classes - self.head.shape[-1]
            mean = (rest * self.base + xp.sum(self.head, axis=-1, keepdims=True)) / self.num_classes
        return self.map(lambda values: values - mean)

    def __getitem__(self, rows: slice) -> "Spread":
        """The spread of some rows; the rows lie along the first axis."""
        if self.classes is None or self.head is None:
            return replace(self, base=self.base[rows])
        return replace(self, base=self.base[rows], classes=self.classes[rows], head=self.head[rows])

    def flat(self) -> "Spread":
        """The same rows along one axis."""
        base = self.base.reshape(-1, self.base.shape[-1])
        if self.classes is None or self.head is None:
            return replace(self, base=base)
        k = self.head.shape[-1]
        return replace(self, base=base, classes=self.classes.reshape(-1, k), head=self.head.reshape(-1, k))


def put_at(base: Array, classes: Array, values: Array) -> Array:
    """A copy of `base` with `values` at `classes`. Gradients pass through tensors, as a learned temperature needs."""
    if is_numpy_namespace(array_namespace(base)):
        base = base.copy()
        np.put_along_axis(base, classes.astype(np.int64), values, axis=-1)
        return base
    return base.scatter(-1, classes, values)
