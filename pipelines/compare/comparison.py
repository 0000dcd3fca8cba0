"""A comparison as data: what the answers of runs and stores on held-out rows have in common, and where they differ."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kdcache.measures.facts import Value

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

Kind = Literal["run", "store"]
By = Literal["seeds", "rows", "none"]
"""The units that an interval is over: the runs of a group, rows of a single one by a jackknife, or none."""


@dataclass(frozen=True)
class Answers:
    """The answers of one network on the N rows that are compared, in their order.

    decisions [N]: the class it finds most likely. confidence [N]: that class's probability. at_teacher [N]: the
    logarithm of u / (1 - u), u its probability of the class that the teacher finds most likely, cut at 1e-6.
    """

    decisions: Ints
    confidence: Floats
    at_teacher: Floats


@dataclass(frozen=True)
class Member:
    """A run, or a store, whose answers are compared.

    name: its folder's, told apart from others. place: as it was given. settings: train's, flat (`student_set.width`);
    empty for a store. measures: by name, see docs/measures.md. curves: a run's lines of metrics.jsonl.
    bytes_a_row: of the soft labels that it learned from, where that is known. views: how many of them it learned from.
    """

    name: str
    place: str
    kind: Kind
    seed: int | None
    settings: Mapping[str, Any]
    measures: Mapping[str, Value]
    answers: Answers
    curves: tuple[Mapping[str, Any], ...] = ()
    bytes_a_row: float | None = None
    views: int | None = None


@dataclass(frozen=True)
class Spread:
    """A mean over n members (or of one), and its 95 % interval, None where there is none."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """Members that differ in nothing but the seed.

    name: its settings that differ from those of other groups, for people, such as `objective hint, lr 0.1`. settings:
    the same by name. cells: the spread of each measure. differences: of each measure, to the baseline's, paired by seed
    where the seeds are the same (`is_paired`); empty for the baseline itself.
    """

    name: str
    settings: Mapping[str, Any]
    members: tuple[Member, ...]
    cells: Mapping[str, Spread]
    differences: Mapping[str, Spread] = field(default_factory=dict)
    is_paired: bool = True


@dataclass(frozen=True)
class Picture:
    """A row that the baseline has right and a group wrong, or the reverse: its picture [H, W, 3] u8."""

    sample: str
    label: int
    pixels: npt.NDArray[np.uint8]
    decisions: Mapping[str, int]
    """Of the first member of each group, by the group's name."""
    teacher: int


@dataclass(frozen=True)
class Comparison:
    """Groups of members beside a teacher on the same held-out rows.

    labels [N]: -1 for none. class_names: empty where nobody names them. teacher: its answers; teacher_measures are its
    accuracy, ece and the like. measures: their names, in order. intervals: what they are over. warnings: what a reader
    must know first, such as rows that the runs were trained on. common: settings that all runs share.
    """

    teacher_name: str
    teacher: Answers
    teacher_measures: Mapping[str, Value]
    labels: Ints
    sample_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    groups: tuple[Group, ...]
    baseline: str
    measures: tuple[str, ...]
    intervals: By
    data: str
    common: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def is_asked(self) -> bool:
        """False where no row was asked, and measures are those of the runs' own validation."""
        return len(self.teacher.decisions) > 0
