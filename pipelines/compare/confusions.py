"""Confusions: what a group errs on where the teacher is right, as pairs of the class that fits and the one decided."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdcache.pipelines.compare.comparison import Answers, Comparison
from kdcache.pipelines.compare.marks import Marked, Truth
from kdcache.pipelines.compare.page_text import class_name

SHOWN = 8  # pairs a group

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """A confusion: rows of class `fits` that are decided as `decided`, counted a run."""

    fits: str
    decided: str
    rows: float
    baseline_rows: float | None


@dataclass(frozen=True)
class Confusions:
    """A group's most frequent pairs, and how many of the rows that the teacher has right it errs on, a run. decimals:
    of counts."""

    marked: Marked
    pairs: tuple[Pair, ...]
    errors: float
    rows: int
    decimals: int


def confusions(comparison: Comparison, groups: Sequence[Marked], truth: Truth) -> tuple[Confusions, ...]:
    """Of each group; empty where the teacher has no row right."""
    chosen = (truth.classes >= 0) & (comparison.teacher.decisions == truth.classes)
    fits = truth.classes[chosen]
    if not len(fits):
        return ()
    base = next((_counts(marked.answers, chosen, fits) for marked in groups if marked.is_baseline), None)
    tables = []
    for marked in groups:
        counts = _counts(marked.answers, chosen, fits)
        most = sorted(counts, key=lambda pair: (-counts[pair], pair))[:SHOWN]
        pairs = tuple(
            Pair(
                class_name(comparison.class_names, pair[0]), class_name(comparison.class_names, pair[1]), counts[pair],
                None if base is None or marked.is_baseline else base.get(pair, 0.0),
            )
            for pair in most
        )  # fmt: skip
        tables.append(Confusions(marked, pairs, sum(counts.values()), len(fits), int(len(marked.answers) > 1)))
    return tuple(tables)


def _counts(answers: Sequence[Answers], chosen: npt.NDArray[np.bool_], fits: Ints) -> dict[tuple[int, int], float]:
    """Wrong rows a run by pair of classes."""
    decisions = np.concatenate([one.decisions[chosen] for one in answers]).astype(np.int64)
    repeated = np.tile(fits, len(answers))
    is_wrong = decisions != repeated
    pairs, counts = np.unique(np.stack([repeated[is_wrong], decisions[is_wrong]]), axis=1, return_counts=True)
    return {
        (int(fit), int(decided)): count / len(answers)
        for (fit, decided), count in zip(pairs.T, counts.tolist(), strict=True)
    }
