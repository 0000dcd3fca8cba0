"""Runs and stores are asked for the held-out rows: measures are counted, and each row's decision is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Activity, Progress
from kdcache.errors import InvalidInputError
from kdcache.labels.full import FullLabels
from kdcache.labels.soft_labels import SoftLabels
from kdcache.measures.facts import Value
from kdcache.measures.tally import Tally, total
from kdcache.measures.two_results import fidelity_gap
from kdcache.objectives.targets import Combine, Targets, in_dtype
from kdcache.pipelines.compare.comparison import Answers
from kdcache.pipelines.compare.networks import AskedNetwork
from kdcache.training.batch_stream import BatchStream
from kdcache.training.joined_rows import joined_labels

CUT = 1e-6  # of a probability under the logit
PARTS = 20  # of the rows, one of which a jackknife leaves out
PIECE = 2_000_000  # probabilities that are counted at once, as rows x classes
OF_TEACHER = ("accuracy", "ece", "overconfidence")  # what a top-k store tells of its teacher exactly
OF_OTHERS = ("agreement", "kl_to_teacher")


@dataclass(frozen=True)
class Taught:
    """Rows with what their teachers say: soft labels of each teacher that is compared with, as tensors, hard labels y
    [B], -1 for none, and positions [B] in the store's order."""

    teachers: tuple[SoftLabels, ...]
    y: Tensor
    positions: IntArray

    @classmethod
    def of(cls, soft: Sequence[SoftLabels], y: Tensor, positions: IntArray, combine: Combine | None) -> "Taught":
        """By `combine` all teachers are one, which holds all logits."""
        teachers = tuple(in_dtype(each, torch.float32) for each in soft)
        if combine is not None and len(teachers) > 1:
            log_p = Targets(teachers, combine=combine).log_probs(1.0)
            logits, label = log_p - log_p.max(dim=-1, keepdim=True).values, torch.full_like(log_p[:, 0], torch.nan)
            teachers = (FullLabels(logits, label, log_p.shape[1]),)
        return cls(teachers, y, positions)

    def take(self, rows: slice) -> "Taught":
        """Some of the rows."""
        teachers = tuple(each.map(lambda values: values[rows]) for each in self.teachers)
        return Taught(teachers, self.y[rows], self.positions[rows])

    @classmethod
    def joined(cls, pieces: "Sequence[Taught]") -> "Taught":
        """The rows of all, one after another."""
        teachers = tuple(joined_labels(same) for same in zip(*(piece.teachers for piece in pieces), strict=True))
        y, positions = torch.cat([piece.y for piece in pieces]), np.concatenate([piece.positions for piece in pieces])
        return cls(teachers, y, positions)


@dataclass
class Asked:
    """The answers of one network or store: tallies of pieces of the rows, of its agreement with other teachers over all
    rows, and each row's answer by its position."""

    place: str
    parts: list[Tally] = field(default_factory=list)
    others: list[Tally] = field(default_factory=list)
    rows: list[tuple[npt.NDArray[Any], ...]] = field(default_factory=list)
    further: dict[str, Value] = field(default_factory=dict)

    def count(self, log_q: Tensor, rows: Taught) -> None:
        """Count one piece's log-probabilities [B, C]."""
        teachers = rows.teachers
        self.parts.append(Tally())
        try:
            self.parts[-1].update(log_q, teachers[0], rows.y)
        except InvalidInputError as error:
            raise InvalidInputError(f"{self.place}: {error}") from error
        self.others += [Tally(OF_OTHERS) for _ in teachers[len(self.others) + 1 :]]
        for tally, teacher in zip(self.others, teachers[1:], strict=True):
            tally.update(log_q, teacher)
        self.rows.append(decided(log_q, teachers[0]))

    def answers(self) -> Answers:
        """The answer of each row, in the order in which rows were asked."""
        return Answers(*map(np.concatenate, zip(*self.rows, strict=True)))

    def measures(self, names: Sequence[str]) -> dict[str, Value]:
        """All measures, and of each further teacher, by its name, the agreement, the KL and what the agreement with the
        first one is above it."""
        values = total(self.parts).result()
        for name, tally in zip(names, self.others, strict=True):
            results = tally.result()
            for measure, value in results.items():
                values[f"{measure} {name}"] = value
            gap = fidelity_gap(values["agreement"].value, results["agreement"].value)
            values[f"fidelity_gap {name}"] = values["agreement"].model_copy(update={"value": gap})
        return {**values, **self.further}


def logit(log_prob_B: Tensor) -> npt.NDArray[np.float32]:
    """[B] log(u / (1 - u)) of probabilities u = exp(log_prob), cut at 1e-6."""
    u = log_prob_B.double().exp().clamp(CUT, 1 - CUT)
    return np.asarray((u / (1 - u)).log().float().cpu().numpy())


@dataclass
class Pieces:
    """Rows are collected and counted many at once, since small pieces cost more than they count: by the teacher, and by
    each of several networks. `part`: pieces have exactly so many rows, but the last."""

    asked: Sequence[Asked]
    teacher: "Teacher"
    part: int | None
    rows: Taught | None = None
    answers: list[Tensor] = field(default_factory=list)

    def add(self, rows: Taught, answers: list[Tensor]) -> None:
        """Add a batch with the log-probabilities [B, C] of each."""
        if self.rows is None:
            self.rows, self.answers = rows, answers
        else:
            self.rows = Taught.joined([self.rows, rows])
            self.answers = [torch.cat(pair) for pair in zip(self.answers, answers, strict=True)]
        size = self.part or largest_piece(answers[0].shape[1])
        while self.rows is not None and len(self.rows.y) >= size:
            self.count(size)

    def count(self, size: int | None = None) -> None:
        """Count the first rows of what is collected, all by default."""
        if self.rows is None:
            return
        size = len(self.rows.y) if size is None else size
        head, rest = self.rows.take(slice(0, size)), self.rows.take(slice(size, None))
        self.teacher.count(head)
        for each, log_q in zip(self.asked, self.answers, strict=True):
            each.count(log_q[:size], head)
        self.rows = rest if len(rest.y) else None
        self.answers = [log_q[size:] for log_q in self.answers]


def largest_piece(classes: int) -> int:
    """Rows that are counted at once."""
    return max(1, PIECE // classes)


def decided(log_q: Tensor, teacher: SoftLabels) -> tuple[npt.NDArray[Any], ...]:
    """Decisions, confidence and the logit of the teacher's top class [B] of log-probabilities [B, C]."""
    best = log_q.max(dim=-1)
    at_teacher = log_q.gather(-1, teacher.top_class[:, None].long())[:, 0]
    return best.indices.cpu().numpy().astype(np.int32), best.values.exp().cpu().numpy(), logit(at_teacher)


def log_probs_of(soft: SoftLabels) -> Tensor:
    """[B, C] f32 log-probabilities of all classes; a tail is spread evenly."""
    return Targets((in_dtype(soft, torch.float32),)).log_probs(1.0)


@dataclass
class Teacher:
    """The teacher's own answers and measures, and which rows there are: positions in the store's order."""

    tally: Tally = field(default_factory=lambda: Tally(OF_TEACHER))
    rows: list[Taught] = field(default_factory=list)
    decided: list[tuple[npt.NDArray[Any], ...]] = field(default_factory=list)

    def count(self, rows: Taught) -> None:
        """Count one batch."""
        log_p = log_probs_of(rows.teachers[0])
        self.tally.update(log_p, hard=rows.y)
        self.decided.append(decided(log_p, rows.teachers[0]))
        self.rows.append(rows)

    def answers(self) -> Answers:
        """The answer of each row, in the order in which rows were asked."""
        return Answers(*map(np.concatenate, zip(*self.decided, strict=True)))

    @property
    def positions(self) -> IntArray:
        """[N] of the rows, in the order in which they were asked."""
        return np.concatenate([rows.positions for rows in self.rows])

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """[N] hard labels, -1 for none, in the order in which rows were asked."""
        return np.concatenate([rows.y.cpu().numpy() for rows in self.rows]).astype(np.int32)


def ask_runs(
    networks: Sequence[AskedNetwork],
    batches: BatchStream,
    combine: Combine | None,
    part: int | None,
    progress: Progress,
) -> tuple[list[Asked], Teacher]:
    """Ask networks for every row, in eval mode and one pass; `part`: in parts of so many rows."""
    asked, teacher, steps = [Asked(network.run.place) for network in networks], Teacher(), len(batches)
    pieces = Pieces(asked, teacher, part)
    for step, batch in enumerate(batches):
        rows = Taught.of(batch.teachers, batch.y, batch.positions.numpy(), combine)
        pieces.add(rows, [torch.log_softmax(network.answer(batch).float(), dim=-1) for network in networks])
        progress(Activity("asking the networks", "batches"), (step + 1) * len(networks), steps * len(networks))
    pieces.count()
    for network, each in zip(networks, asked, strict=True):
        each.further = network.result()
    return asked, teacher
