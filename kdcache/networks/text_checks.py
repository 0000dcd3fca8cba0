"""Checks before block 0 of texts: the teacher answers each token by those before it alone, and knows its language.

Shape letters: T texts, S tokens of a text, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.networks.answers import are_probabilities, unit_sums
from kdcache.networks.first_views import first_views
from kdcache.networks.forward_memory import ForwardMemory, LiveBytes
from kdcache.networks.steadiness import STEADY
from kdcache.networks.teacher_check import TeacherCheck, twice_chance
from kdcache.networks.text_teacher import TextTeacher
from kdcache.views.draw import ViewDataset
from kdcache.views.view_stack import ViewRequest

STEADY_ROWS = 64  # of a text, whose answers are held against each other
CHECK_TOKENS = 4096  # that count, at most
LABEL = Activity("checking the teacher", "tokens")


def check_text_teacher(
    teacher: TextTeacher,
    *,
    dataset: ViewDataset,
    labels: IntArray,
    view: int,
    texts: int,
    min_accuracy: float | None,
    progress: Progress = silent,
) -> TeacherCheck:
    """Ask the teacher about its first texts, in forwards of `texts`; `labels` [N] by position.

    Raises InvalidInputError where it answers probabilities, and TeacherSuspectError where a token's answer hangs on
    later tokens or on other texts of the batch, or where its top-1 accuracy on the tokens that follow is below
    `min_accuracy` (default: twice chance).
    """
    sequence, forward, total, classes = dataset.sequence, ForwardMemory(), 0, 0
    hits: list[IntArray] = []
    most = max(1, -(-CHECK_TOKENS // sequence))
    for start in range(0, min(len(dataset.order), most), texts):
        positions = np.arange(start, min(start + texts, len(dataset.order)))
        tokens = teacher.prepared(dataset[ViewRequest(ViewSpan.of(view), positions)].images[0])
        with first_views(teacher.network, tokens, "teacher", precision=teacher.precision), LiveBytes() as live:
            for row, chunk in teacher.chunks(tokens):  # one at a time: all of them may be gigabytes
                if not start and not row:
                    _require_logits(teacher, chunk)
                classes = int(chunk.shape[-1])
                row_labels = labels[start * sequence + row :][: len(chunk)]
                counted = np.flatnonzero(row_labels >= 0)
                hits.append(chunk.argmax(dim=-1).cpu().numpy()[counted] == row_labels[counted])
        if not start:
            forward = ForwardMemory(tokens.numel(), live.peak)
            _require_steady(teacher, tokens)
        total += tokens.numel()
        progress(LABEL, total, min(len(dataset.order), most) * sequence)
    known = np.concatenate(hits)
    if not len(known):
        return TeacherCheck(None, teacher.text_notes, forward)
    accuracy, limit = float(known.mean()), min_accuracy
    limit = twice_chance(classes) if limit is None else limit
    if accuracy < limit:
        raise TeacherSuspectError(
            f"the teacher's top-1 accuracy on the next of {len(known):,} tokens is {accuracy:.3f}, below {limit:.3f}: "
            "check --weights, and that the tokenizer is the teacher's own; or lower --min-accuracy"
        )
    return TeacherCheck(accuracy, teacher.text_notes, forward)


def _require_logits(teacher: TextTeacher, chunk: Tensor) -> None:
    if teacher.answers.kind == "logits" and are_probabilities(unit_sums(chunk[:64])):
        raise InvalidInputError(
            "the teacher answers probabilities: all rows asked lie in 0..1 and sum to 1; let it answer the logits "
            "before the softmax, or say --teacher-answers probs"
        )


def _require_steady(teacher: TextTeacher, tokens: Tensor) -> None:
    """Raises TeacherSuspectError where the first half of a text is answered otherwise alone, in a batch of one, than
    before its second half: by later tokens, by its neighbours, or by chance."""
    half = tokens.shape[1] // 2
    first = max(0, half - STEADY_ROWS)  # the rows that a look ahead reaches first
    whole = _rows(teacher, tokens, first, half)
    changed = tokens.clone()
    changed[0, half:] = torch.where(tokens[0, half:] > 0, tokens[0, half:] - 1, 1)  # another id, each of them
    spread = float((whole - whole.mean(dim=-1, keepdim=True)).square().mean().sqrt())
    limit = max(STEADY[teacher.precision] * spread, 1e-4)
    if not bool(torch.isfinite(whole).all()):
        return  # refused when it is written, with the names of the texts
    cases = (
        ("where later tokens are others: it looks ahead, and its answer holds the label; use a causal language model",
         changed),
        ("in a batch of one text: it hangs on its neighbours, or on chance, as in train mode; look for dropout that is "
         "always on", tokens[:1]),
    )  # fmt: skip
    for problem, inputs in cases:
        rows = (_rows(teacher, inputs, first, half) - whole).square().mean(dim=-1).sqrt()
        difference = float(rows.max())  # a look at one later token shows in one row alone
        if difference > limit:
            raise TeacherSuspectError(
                f"the teacher answers tokens {first} to {half - 1} of a text otherwise {problem} (the logits differ by "
                f"{difference:.2g}, their spread is {spread:.2g})"
            )


def _rows(teacher: TextTeacher, tokens: Tensor, first: int, stop: int) -> Tensor:
    """The logits [stop - first, C] of some tokens of a batch's first text."""
    parts = []
    for row, chunk in teacher.chunks(tokens):
        if row >= stop:
            break
        parts.append(chunk[max(first - row, 0) : stop - row])
    return torch.cat(parts)
