"""Steadiness: a row's answer hangs neither on its neighbours in a batch nor on chance.

Shape letters: B rows of a batch, R of them that are asked again, C classes.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kdcache.errors import TeacherSuspectError
from kdcache.networks.answer import Answer
from kdcache.networks.precision import Precision

STEADY_ROWS = 32
CHECKED_ROWS = 64  # of the batch that the checks hold against threes
ROWS_AGAIN = 15  # of a larger batch
STEADY: dict[Precision, float] = {"float32": 0.03, "bfloat16": 0.05, "float16": 0.05}
"""Of the logits' spread, the RMS difference of two answers to the same rows. bfloat16 stays below 0.02, also where a
network computes in it by itself."""
NOTED = {"cpu": 1e-3}  # of the spread, for float32 by device: what other batches do to sums that are added up
NOTED_ELSEWHERE = 5e-3
TINY = 1e-4  # nats: a difference that no soft label shows


class Asked(Protocol):
    """What is asked of a teacher."""

    precision: Precision
    masked_classes: tuple[int, ...]
    forward_rows: int | None

    def answer(self, images: Tensor, /) -> Answer: ...

    def answer_at_once(self, images: Tensor, /) -> Answer: ...


def require_steady(teacher: Asked, inputs: Tensor, batch_logits: Tensor) -> tuple[str, ...]:
    """Ask the teacher about network input [R, ch, H, W], the first rows of a batch, again in threes. Returns a note
    where its answers differ slightly from `batch_logits` [B, C], those to the whole batch.

    Raises TeacherSuspectError where they differ by more: by dropout or by batch norm over the batch, as in train mode,
    a row's soft labels would depend on its neighbours."""
    parts = [teacher.answer_at_once(inputs[row : row + 3].clone()).logits for row in range(0, len(inputs), 3)]
    classes = [c for c in range(batch_logits.shape[1]) if c not in teacher.masked_classes]
    whole, current = batch_logits[:, classes], torch.cat(parts)[:, classes]
    expected = whole[: len(current)]
    if not bool(torch.isfinite(expected).all() and torch.isfinite(current).all()):
        return ()  # refused when it is written, with the names of the samples
    spread = float((expected - expected.mean(dim=1, keepdim=True)).square().mean().sqrt())
    difference = float((expected - current).square().mean().sqrt())
    rows = teacher.forward_rows
    problem = (
        f"the teacher answers the same {len(inputs)} views otherwise in batches of 3 than in "
        f"{f'one batch of {len(whole)}' if rows is None else f'batches of {rows}'}: the logits differ by "
        f"{difference:.2g}, their spread is {spread:.2g}"
    )
    limit = STEADY[teacher.precision] * spread
    if difference > max(limit, TINY):
        if _is_reordered(whole, current, limit):
            raise TeacherSuspectError(
                f"{problem}; they are the answers to other rows of the batch: the network sorts, reverses or shuffles "
                "its rows; it must answer row by row in the order in which they came"
            )
        raise TeacherSuspectError(
            f"{problem}; it seems to be in train mode: look for dropout that is always on (F.dropout without "
            "training=self.training), for batch norm without running statistics, and for noise"
        )
    noted = NOTED.get(inputs.device.type, NOTED_ELSEWHERE)
    if teacher.precision == "float32" and difference > max(noted * spread, TINY):
        return (f"{problem}: a row's answer hangs a little on its batch or on chance",)
    return ()


@dataclass
class SteadyBatches:
    """Batches of an extraction. One whose forward is larger than any before is held against the answers to some of its
    rows in threes; `largest`: the number of rows that the checks before block 0 held so."""

    teacher: Asked
    largest: int = CHECKED_ROWS

    def answer(self, images: Tensor) -> Answer:
        """The teacher's answer to network input [B, ch, H, W]. Raises TeacherSuspectError as `require_steady` does."""
        if (self.teacher.forward_rows or len(images)) <= self.largest:
            return self.teacher.answer(images)
        self.largest = len(images)
        rows = images[:ROWS_AGAIN].clone()  # the network may write into its input
        answer = self.teacher.answer(images)
        require_steady(self.teacher, rows, answer.logits)
        return answer


def _is_reordered(whole: Tensor, current: Tensor, limit: float) -> bool:
    """True where every answer to a few rows [R, C] is one of those to the whole batch [B, C]."""
    distances = torch.cdist(current.double(), whole.double()).min(dim=1).values / current.shape[1] ** 0.5
    return bool((distances <= limit / 10).all())
