"""A tally counts rows for many measures at once; the tallies of batches, blocks and processes add up.

    tally = Tally()
    for images, soft, y in batches:
        tally.update(student(images), soft, y)
    tally.result()["kl_to_teacher"].value

docs/measures.md lists the measures, `catalogue` holds them.
"""

from collections.abc import Sequence
from functools import reduce
from math import isnan
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.measures.catalogue import GROUPS, ROW_MEASURES
from kdcache.measures.facts import Group, Measure, Value
from kdcache.measures.rows import Rows


class Tally:
    """A tally holds sums over rows, in f64, of the measures that it is made for; the tallies of batches, blocks and
    processes add up. It holds numpy arrays and can be pickled, so that processes can send theirs.

    Args:
        names: Names of `catalogue.ROW_MEASURES`; all of them by default.
        k: The number of classes whose overlap and order are compared; by default 5, or all that soft labels hold where
            these are fewer, fixed by the first batch with a teacher.

    Raises InvalidInputError for an unknown name, listing all.

    Examples:
        >>> tally = Tally(["accuracy", "agreement"])
        >>> tally.update(logits, soft, y)
        >>> tally.result()["agreement"].value
        1.0
    """

    def __init__(self, names: Sequence[str] | None = None, *, k: int | None = None) -> None:
        self.names = tuple(ROW_MEASURES if names is None else names)
        if unknown := [name for name in self.names if name not in ROW_MEASURES]:
            raise InvalidInputError(f"measure {', '.join(unknown)} is unknown; known are {', '.join(ROW_MEASURES)}")
        self.k = k
        self.classes: int | None = None
        self._sums: dict[str, dict[str, Any]] = {}

    @torch.no_grad()
    def update(
        self,
        logits: Tensor,
        soft: SoftLabels | None = None,
        hard: Tensor | None = None,
        *,
        baseline: Tensor | None = None,
    ) -> None:
        """Count one batch. Measures that lack one of the arguments do not count it.

        Args:
            logits: [B, C] the student's, of any float dtype, on any device; f32 work, f64 for f64 logits.
            soft: The teacher's soft labels of the same rows, numpy or torch.
            hard: [B] integers, hard labels, -1 for none.
            baseline: [B] integers, the decisions of another run on the same rows.

        Raises InvalidInputError for logits that are not finite, shapes or classes that do not fit, a k above the number
        of classes that the soft labels hold, and draws, which tell no class's probability.
        """
        rows = Rows(logits, soft, hard, baseline, k=self.k)
        self._require_equal("classes", self.classes, rows.classes)
        self.classes = rows.classes
        if soft is not None:
            self.k = rows.k
        for name, group in self._groups().items():
            if rows.has(group.needs):
                self._sums[name] = _added(self._sums.get(name, {}), group.sums(rows))

    def __add__(self, other: "Tally") -> "Tally":
        """The tally of the rows of both. Raises InvalidInputError where they count different things."""
        self._require_equal("measures", self.names, other.names)
        self._require_equal("classes", self.classes, other.classes)
        self._require_equal("top classes (k)", self.k, other.k)
        total = Tally(self.names, k=other.k if self.k is None else self.k)
        total.classes = other.classes if self.classes is None else self.classes
        total._sums = {
            name: _added(self._sums.get(name, {}), other._sums.get(name, {}))
            for name in self._groups()
            if name in self._sums or name in other._sums
        }
        return total

    def result(self) -> dict[str, Value]:
        """The measures by name. One without rows, or not defined on these rows, is left out."""
        values = {}
        for group_name, group in self._groups().items():
            sums = self._sums.get(group_name)
            if sums is None or not sums["rows"]:
                continue
            for name, measure in group.measures.items():
                if name in self.names and not isnan(number := measure.value(sums)):
                    values[name] = _value(measure, sums, number)
        return {name: values[name] for name in self.names if name in values}

    def _groups(self) -> dict[str, Group]:
        return {name: group for name, group in GROUPS.items() if set(group.measures) & set(self.names)}

    def _require_equal(self, noun: str, first: Any, second: Any) -> None:
        if first is not None and second is not None and first != second:
            raise InvalidInputError(
                f"the {noun} of a tally are {first}, and {second} were to be added; use two tallies"
            )


def total(tallies: Sequence[Tally]) -> Tally:
    """The tally of all rows of one or more."""
    return reduce(add, tallies)


def _added(sums: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {name: sums[name] + more[name] for name in sums} if sums and more else sums or more


def _value(measure: Measure, sums: dict[str, Any], number: float) -> Value:
    facts = measure.facts
    inexact = int(sums["inexact"]) if facts.topk != facts.full else 0
    by_class = np.zeros(0) if measure.by_class is None else measure.by_class(sums)
    return Value(
        value=number,
        unit=facts.unit,
        rows=int(sums["rows"]),
        exactness=facts.topk if inexact else facts.full,
        inexact_rows=inexact,
        by_class=tuple(None if isnan(entry) else entry for entry in by_class.tolist()),
    )
