"""Answers that a teacher gave to rows of views: are they logits, or probabilities, percents, flags, or always the same?

Shape letters: B rows of a batch, n of all, N classes of the network.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.networks.answers import (
    FEW_ROWS,
    SUM_ERROR,
    Kind,
    are_probabilities,
    require_no_probabilities,
    unit_sums,
)

SAME_ROWS = 8  # answers, all of them equal, from which on a network is known to answer nothing else
PERCENT = 100.0


@dataclass
class AskedAnswers:
    """The answers to views, summed up: their `unit_sums` [n], and whether all so far are percents, flags (0 or 1) and
    equal to one another though their views differ."""

    unit_sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    are_percents: bool = True
    are_flags: bool = True
    are_equal: bool = True
    _first: Tensor | None = None

    def add(self, answer_BN: Tensor, views: Tensor) -> None:
        """Add a batch's answers to `views` [B, ch, H, W]."""
        self.unit_sums = np.concatenate([self.unit_sums, unit_sums(answer_BN)])
        values = answer_BN.detach().double()
        in_range = bool(((values >= 0) & (values <= PERCENT * (1 + SUM_ERROR))).all())
        self.are_percents &= in_range and bool(((values.sum(dim=1) - PERCENT).abs() <= PERCENT * SUM_ERROR).all())
        self.are_flags &= bool(((values == 0) | (values == 1)).all())
        self._first = values[:1].nan_to_num() if self._first is None else self._first
        is_same = torch.isclose(values.nan_to_num(), self._first, rtol=1e-6, atol=1e-9).all()
        self.are_equal &= bool(is_same) and bool((views != views[:1]).any())

    def notes(self, kind: Kind, *, is_new: bool) -> tuple[str, ...]:
        """Notes on answers that may not be of this kind. Raises InvalidInputError where they are not, and
        TeacherSuspectError where all are equal; a store that stands (`is_new` false) goes on under a note."""
        sums, rows = self.unit_sums, int((~np.isnan(self.unit_sums)).sum())
        if is_new and self.are_equal and rows >= SAME_ROWS:
            raise TeacherSuspectError(
                f"the teacher gives {rows} views that differ one and the same answer: its weights may be zeros, its "
                "network may be dead, or --mean and --std may make all views alike; check --weights, --mean and --std"
            )
        if kind == "probs":
            if wrong := int((np.abs(sums[~np.isnan(sums)] - 1) > SUM_ERROR).sum()):
                raise InvalidInputError(
                    f"--teacher-answers probs was given, and {wrong} of {rows} rows asked are no probabilities: they "
                    "do not lie in 0..1 and sum to 1; give --teacher-answers logits, or mend the teacher"
                )
            return ()
        if is_new:
            advice = "give --teacher-answers probs, or return the logits before the softmax"
            require_no_probabilities(sums, "teacher", advice)
            self._require_no_other_numbers(rows)
        elif are_probabilities(sums):
            return (
                f"the teacher answers probabilities (all {rows} rows asked lie in 0..1 and sum to 1), and the store "
                "that stands takes them as logits: extract another with --teacher-answers probs",
            )
        if rows >= FEW_ROWS and bool(np.isfinite(sums[~np.isnan(sums)]).all()):
            return (
                f"all answers of {rows} rows lie in 0..1 and do not sum to 1: where they come from a sigmoid a class, "
                "they are no distribution over classes; let the teacher answer logits: z and not sigmoid(z)",
            )
        return ()

    def _require_no_other_numbers(self, rows: int) -> None:
        if rows >= FEW_ROWS and self.are_percents:
            raise InvalidInputError(
                f"the teacher answers percents: all {rows} rows asked lie in 0..100 and sum to 100; return the logits "
                "before the softmax, or a hundredth of them with --teacher-answers probs"
            )
        if rows >= FEW_ROWS and self.are_flags:
            raise InvalidInputError(
                f"the teacher answers flags: all {rows} rows asked hold zeros and ones alone, which are no logits; "
                "return what they are computed from"
            )
