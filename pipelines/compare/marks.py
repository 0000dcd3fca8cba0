"""A mark is how a page shows a group wherever it appears: a letter, one of eight hues, a marker and a dash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.pipelines.compare.comparison import Answers, Comparison, Group

HUES = 8
LETTERS = "ABCDEFGHIJKLMNOPQRSUVWXYZ"  # T is the teacher
MARKERS = "osD^vPX*"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
PANELS = 12  # groups that figures with a panel or a line for each show at most


@dataclass(frozen=True)
class Mark:
    """A group's mark. letter: A, B, ... AA. hue: 1 to 8, 0 for the teacher, which is drawn in ink."""

    letter: str
    hue: int
    marker: str = "o"
    dash: Any = "-"


@dataclass(frozen=True)
class Marked:
    """A group and its mark."""

    group: Group
    mark: Mark
    is_baseline: bool

    @property
    def answers(self) -> tuple[Answers, ...]:
        """Of all members."""
        return tuple(member.answers for member in self.group.members)


TEACHER = Mark("T", 0)


def mark(number: int) -> Mark:
    """The mark of a group by its number in the comparison; hues come back after eight, with another dash."""
    return Mark(_letter(number), 1 + number % HUES, MARKERS[number % HUES], DASHES[(number // HUES) % len(DASHES)])


def _letter(number: int) -> str:
    ahead, last = divmod(number, len(LETTERS))
    return (_letter(ahead - 1) if ahead else "") + LETTERS[last]


def marked_groups(comparison: Comparison) -> tuple[Marked, ...]:
    """All groups that have members, in their order."""
    return tuple(
        Marked(group, mark(number), group.name == comparison.baseline)
        for number, group in enumerate(comparison.groups)
        if group.members
    )


def drawn_groups(groups: Sequence[Marked]) -> tuple[Marked, ...]:
    """The groups that have a panel of their own: at most 12, the baseline and those of highest accuracy (agreement
    where there are no labels), in their order."""
    best = sorted(groups, key=lambda marked: (not marked.is_baseline, -_quality(marked)))[:PANELS]
    letters = {marked.mark.letter for marked in best}
    return tuple(marked for marked in groups if marked.mark.letter in letters)


def _quality(marked: Marked) -> float:
    cells = marked.group.cells
    return next((cells[name].mean for name in ("accuracy", "agreement") if name in cells), 0.0)


@dataclass(frozen=True)
class Truth:
    """The classes that decisions are held against: hard labels, or the teacher's decisions where there are none.

    classes [N]: -1 for a row without one. word: of a row that fits.
    """

    classes: npt.NDArray[np.int64]
    is_labels: bool

    @property
    def word(self) -> str:
        return "accuracy" if self.is_labels else "agreement"

    @property
    def count(self) -> int:
        """One more than the largest class."""
        return int(self.classes.max(initial=-1)) + 1


def truth(comparison: Comparison) -> Truth:
    """Labels where any row has one, or where runs were measured by labels and no row was asked."""
    is_labels = bool((comparison.labels >= 0).any()) or (not comparison.is_asked and "accuracy" in comparison.measures)
    classes = comparison.labels if is_labels else comparison.teacher.decisions
    return Truth(np.asarray(classes, np.int64), is_labels)
