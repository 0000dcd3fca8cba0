"""Clean rows are asked one after another until it is plain whether the teacher is fed rightly.

Another feeding can be right more often only on rows that the teacher as it is gets wrong: where so few are wrong that
none can be surely better, none is asked. Else the others are asked about some of those first, then about a few rows
that are right, of which a useless feeding loses most, and about the rest only where they gain. One that cannot be
surely better any more is dropped. The teacher is asked about the first 64 rows and at most 500 more, counted with each
feeding.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Activity, Progress, silent
from kdcache.labels.reduction import centre, class_logits
from kdcache.networks.asked_answers import AskedAnswers
from kdcache.networks.forward_memory import ForwardMemory, LiveBytes
from kdcache.networks.head_check import HeadCheck
from kdcache.networks.input_trials import (
    SURE,
    InputPreparation,
    other_preparations,
    surely_better,
)
from kdcache.networks.steadiness import CHECKED_ROWS, STEADY_ROWS, require_steady
from kdcache.networks.teacher import Teacher

Flags = npt.NDArray[np.bool_]

CHUNK = CHECKED_ROWS
FURTHER_ROWS = 432  # with the 2 of the first answer and those that are asked again elsewhere, below 500
NAMED_ROWS = 128  # rows from which on the better feeding is named: its accuracy is an estimate
SCREENED, SCREENED_HITS = 12, 8  # misses, and then hits, about which every feeding is asked
TRIAL_ROWS = 16  # of a question about another feeding: what it decides is looked at before the next
LIKELY, LIKELY_MISSES = 1.5, 1.0  # standard deviations by which rates are taken to be higher than they are
LABEL = Activity("checking the teacher", "clean rows")


@dataclass
class Trial:
    """Another feeding's hits [R] so far, where it was `asked` [R]."""

    prepare: InputPreparation
    hits: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))
    asked: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def grow(self, rows: int) -> None:
        more = np.zeros(rows - len(self.hits), dtype=bool)
        self.hits, self.asked = np.concatenate([self.hits, more]), np.concatenate([self.asked, more])


@dataclass
class RowTrials:
    """The questions to a teacher about labelled clean rows, in chunks of 64 that `views` gives one after another.

    labels: [R] of all rows that there are. limit: the accuracy that is asked for. tries_others: other feedings are
    tried, though the accuracy is above the limit. After `run`: `predictions` [n] and `hits` [n] of the teacher as it
    is, what it answered (`answers`), `notes` on its steadiness, and the memory of its first `forward`. `head` is held
    against each answer.
    """

    teacher: Teacher
    views: Iterator[Tensor]
    labels: IntArray
    limit: float
    tries_others: bool
    progress: Progress = silent
    head: HeadCheck | None = None

    def __post_init__(self) -> None:
        self.budget = CHUNK + FURTHER_ROWS
        self.asked_rows = 0
        self.chunks: list[Tensor] = []
        self.predictions = np.empty(0, dtype=np.int64)
        self.answers = AskedAnswers()
        self.trials: dict[str, Trial] = {}
        self.notes: tuple[str, ...] = ()
        self.forward = ForwardMemory()

    @property
    def hits(self) -> Flags:
        return np.asarray(self.predictions == self.labels[: len(self.predictions)])

    def run(self, permuted_gains: Callable[[IntArray, IntArray], int]) -> None:
        """Ask until nothing can change the verdict. `permuted_gains` (predictions, labels) counts the rows that
        permuted classes may gain. Raises TeacherSuspectError for an unsteady teacher."""
        self.progress(f"{LABEL} on up to {self.budget:,} clean rows", 0, 0)
        self._ask_chunk()
        self.trials = {
            name: Trial(prepare) for name, prepare in other_preparations(self.teacher, self.chunks[0]).items()
        }
        while self._ask_next(permuted_gains):
            pass
        self.progress(LABEL, self.asked_rows, self.asked_rows)

    def better(self) -> dict[str, float]:
        """Accuracies of the feedings that are surely right more often than the teacher as it is, by name."""
        accuracies = {}
        for name, trial in self.trials.items():
            rows = self._compared(trial)
            if surely_better(self.hits[:rows], trial.hits[:rows]):
                accuracies[name] = float(trial.hits[:rows].mean())
        return accuracies

    def _ask_next(self, permuted_gains: Callable[[IntArray, IntArray], int]) -> bool:
        """Put the next question; False where none is left that could change the verdict."""
        n, hits = len(self.predictions), self.hits
        accuracy = float(hits.mean())
        tries_others = self.tries_others or accuracy < self.limit
        alive = self._alive() if tries_others else {}
        for trial in alive.values():
            trial.grow(n)
        misses = np.flatnonzero(~hits)
        for rows in (misses[:SCREENED], np.flatnonzero(hits)[:SCREENED_HITS], misses):
            for trial in alive.values():
                if len(rest := rows[~trial.asked[rows]]):
                    return self._ask_trial(trial, rest)
            alive = self._leading(alive)
        promising = [trial for trial in alive.values() if int(trial.hits[misses].sum()) > SURE**2]
        for trial in promising:
            start = self._compared(trial)
            rows = np.flatnonzero(~trial.asked[start : start + CHUNK]) + start
            if len(rows):
                return self._ask_trial(trial, rows)
        if self.better() and n >= NAMED_ROWS:
            return False
        gains = permuted_gains(self.predictions, self.labels[:n]) if tries_others else 0
        can_be_permuted = gains * self._final_rows() / n > SURE**2
        if alive or can_be_permuted or not self._is_decided(accuracy, n):
            return self._ask_chunk()
        return False

    def _ask_chunk(self) -> bool:
        """Ask about the next rows as they are; the first of them again in threes. False where none are left."""
        if self.asked_rows >= self.budget or (views := next(self.views, None)) is None:
            return False
        views = views[: self.budget - self.asked_rows]
        with torch.inference_mode():
            images = self.teacher.preparation(views)
            with LiveBytes() if not self.chunks else nullcontext() as live:
                raw = self.teacher.raw_answer(images)
            if live is not None:
                self.forward = ForwardMemory(len(views), live.peak)
            self._count(len(views))
            logits = self.teacher.answers.logits(raw.logits)
            if self.head is not None and raw.features is not None:
                self.head.add(raw.features.cpu().numpy(), logits.cpu().numpy())
            if not self.chunks:
                self.notes = require_steady(self.teacher, self.teacher.preparation(views[:STEADY_ROWS]), logits)
                self._count(min(STEADY_ROWS, len(views)))
            classes = self._top_classes(logits)
        self.chunks.append(views)
        self.predictions = np.concatenate([self.predictions, classes])
        self.answers.add(raw.logits, views)
        return True

    def _ask_trial(self, trial: Trial, rows: IntArray) -> bool:
        """Ask about some rows [r] under another feeding, as many as the budget allows; False where it is spent."""
        rows = rows[: max(0, min(TRIAL_ROWS, self.budget - self.asked_rows))]
        if not len(rows):
            return False
        views = torch.stack([self.chunks[row // CHUNK][row % CHUNK] for row in rows.tolist()])
        logits = self.teacher.answer_at_once(trial.prepare(views)).logits
        trial.hits[rows] = self._top_classes(logits) == self.labels[rows]
        trial.asked[rows] = True
        self._count(len(rows))
        return True

    def _top_classes(self, logits: Tensor) -> IntArray:
        logits = class_logits(centre(logits, self.teacher.masked_classes), self.teacher.answers.subclasses)
        return np.asarray(logits.argmax(dim=1).cpu().numpy(), dtype=np.int64)

    def _count(self, rows: int) -> None:
        self.asked_rows += rows
        self.progress(LABEL, self.asked_rows, self.budget)

    def _compared(self, trial: Trial) -> int:
        """The number of rows, from the first on, that were all asked under a feeding."""
        return len(trial.asked) if trial.asked.all() else int(trial.asked.argmin())

    def _final_rows(self) -> int:
        """The number of rows about which the teacher and one other feeding can be asked in the end."""
        n = len(self.predictions)
        return min(len(self.labels), n + (self.budget - self.asked_rows) // 2)

    def _alive(self) -> dict[str, Trial]:
        """The feedings that can still be surely better: they gain enough rows at the highest likely rates."""
        n, hits = len(self.predictions), self.hits
        misses = _likely_rate(int((~hits).sum()), n, LIKELY_MISSES) * self._final_rows()
        alive = {}
        for name, trial in self.trials.items():
            trial.grow(n)
            asked_misses = trial.asked & ~hits
            count, gains = int(asked_misses.sum()), int((trial.hits & asked_misses).sum())
            losses = int((hits & trial.asked & ~trial.hits).sum())
            gains_at_most = gains + _likely_rate(gains, count) * max(0.0, misses - count)
            if gains_at_most > SURE**2 and losses < max(gains, SURE):
                alive[name] = trial
        return alive

    def _leading(self, trials: dict[str, Trial]) -> dict[str, Trial]:
        """The feedings whose gains are not plainly behind those of another."""
        misses = ~self.hits
        gains = {name: int((trial.hits & misses & trial.asked).sum()) for name, trial in trials.items()}
        counts = {name: max(1, int((trial.asked & misses).sum())) for name, trial in trials.items()}
        best = max((gains[name] / counts[name] for name in trials), default=0.0)
        return {name: trial for name, trial in trials.items() if _likely_rate(gains[name], counts[name]) >= best}

    def _is_decided(self, accuracy: float, n: int) -> bool:
        """True where the accuracy is so far from the limit that more rows will not change the verdict."""
        share = (self.limit * n + 1) / (n + 2)
        return abs(accuracy - self.limit) > 2 * LIKELY * float(np.sqrt(share * (1 - share) / n))


def _likely_rate(count: int, rows: int, deviations: float = LIKELY) -> float:
    """The highest likely rate of something that was seen `count` times in so many rows."""
    return min(1.0, (count + deviations * float(np.sqrt(count + 1)) + 1) / rows) if rows else 1.0
