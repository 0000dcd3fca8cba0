"""Facts state a measure's unit, formula, source, needs and exactness; a group makes several measures of common sums.

A new measure is one function of a group's sums and one entry in that group's file. A new group is one file and one
entry in `catalogue.GROUPS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from kdcache.base.records import Record

if TYPE_CHECKING:
    from kdcache.measures.rows import Rows

Floats = npt.NDArray[np.float64]
Sums = Mapping[str, Any]
"""Sums over rows by name: arrays in f64, or `counts.Counts`, so that those of parts add up. `rows` [] counts rows."""

Exactness = Literal["exact", "sketch", "bound", "estimate"]
"""exact: up to the steps in which a store keeps its numbers. sketch: from what a top-k store tells of the whole tail.
bound: a lower bound, the least that agrees with all that it tells. estimate: drawn, or dependent on the batches."""

Need = Literal["labels", "teacher", "baseline", "taps", "maps", "heads", "network", "results"]


@dataclass(frozen=True)
class Facts:
    """Facts of one measure.

    unit: of its value. formula: p is the teacher, q the student, both at T = 1; y the hard label, B rows, C classes.
    source: where it comes from. needs: what it is computed from, beside the student's logits where rows are counted.
    topk: how exact it is where the teacher's soft labels have a tail of several classes. full: on all others.
    """

    unit: str
    formula: str
    source: str
    needs: tuple[Need, ...]
    topk: Exactness = "exact"
    full: Exactness = "exact"

    @property
    def exactness(self) -> str:
        """In words, as the table of docs/measures.md has it."""
        return self.full if self.topk == self.full else f"{self.full}; {self.topk} on top-k"


@dataclass(frozen=True)
class Measure:
    """A measure of rows: its facts, and its value from the sums of its group over one row or more.

    value: NaN where it is not defined on these rows. by_class: [C] values of each class, NaN for one without rows.
    Where `facts.topk` is not exact, the group's sum `inexact` counts the rows that are not.
    """

    facts: Facts
    value: Callable[[Any], float]
    by_class: Callable[[Any], Floats] | None = None


@dataclass(frozen=True)
class Group:
    """Measures of common sums. needs: what the rows must have. sums: of one batch."""

    needs: tuple[Need, ...]
    sums: Callable[["Rows"], dict[str, Any]]
    measures: dict[str, Measure]


class Value(Record):
    """A value is the number that a measure has on some rows. It is infinite where the teacher masks a class to which
    the student gives probability.

    Attributes:
        value: The number.
        unit: Its unit, such as "share" or "nats".
        rows: The number of rows that it was measured on.
        exactness: "exact"; "sketch", from a top-k store's knowledge of the tail; "bound", a lower bound; or "estimate".
        inexact_rows: The number of the rows that are not exact.
        by_class: Values of each class, None for a class without rows; empty where the measure has none.

    Examples:
        >>> tally = Tally(["accuracy"])
        >>> tally.update(logits, soft, y)
        >>> tally.result()["accuracy"].rows
        2
    """

    value: float
    unit: str
    rows: int
    exactness: Exactness = "exact"
    inexact_rows: int = 0
    by_class: tuple[float | None, ...] = ()


def mean_of(name: str) -> Callable[[Sums], float]:
    """The value that is a sum over the number of rows."""

    def value(sums: Sums) -> float:
        return float(sums[name] / sums["rows"])

    return value
