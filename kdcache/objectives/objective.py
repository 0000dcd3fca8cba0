"""An objective is the loss of a student: w_ce times the hard labels plus w_kd times a term that sees the teachers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import Tail
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import BOTH_LABELS, Facts
from kdcache.objectives.hard import hard_cross_entropy, hard_rows
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.ramps import Ramp
from kdcache.objectives.row_means import mean_of_rows
from kdcache.objectives.targets import Combine, Targets, in_dtype, mean_of_teachers, normalised_weights
from kdcache.objectives.tokens import counted_rows

OWN = Facts(topk="as its author has it", full="as its author has it", w_ce=0.0, w_kd=1.0, asks_at=())
"""Facts of a user's own term that states none."""


class Term(Protocol):
    """A term is one idea of a loss: term(outputs, targets, batch) -> scalar in nats, mean over rows. One that also has
    rows(outputs, targets, batch) -> [B], of which it is the mean (`by_rows.ByRows`), can have its rows weighed.
    Hard labels go against `outputs.class_logits`, [B, C] where the student answers subclasses too; a teacher against
    `outputs.logits`."""

    facts: ClassVar[Facts]

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch, /) -> Tensor: ...


class Objective(nn.Module):
    """An objective is `w_ce CE(y, q) + w_kd term(outputs, targets, batch)`.

    It is a module, because some terms learn (CTKD) or remember (TAID): save its state, and train its parameters with
    the student's.

    Args:
        term: One idea of a loss, such as `KD()`, or a callable of your own: see `Term`.
        w_ce: The weight of the hard labels; by default the term's published one, as for w_kd.
        w_kd: The weight of the term.
        tail: The shape of a top-k store's tail: "uniform", "class-mean", "ghost" or "none".
        combine: The way in which several stores become one teacher, see `Targets`; "losses" is the weighted mean of the
            term over the teachers.
        weights: A weight of each store; equal by default.
        over_epochs: Ramps by name, for w_ce, w_kd and the numbers of the term, such as temperature.
        trust: [C] the shares by class at which the teacher is trusted. In place of w_ce and w_kd a row of class y then
            weighs 1 - trust[y] in the cross-entropy and trust[y] in the term; a row without a label learns from the
            teacher alone.
        subclasses: The number of logits, of student and teachers, that stand for each class; the cross-entropy is that
            of the classes.
        label_smoothing: The share of each hard label that is spread over all classes.

    Raises InvalidInputError for weights that are negative or not finite, and for options that the term cannot take.

    Examples:
        >>> objective = Objective(KD(temperature=4.0), w_ce=0.1, w_kd=0.9)
        >>> round(objective(logits, batch).item(), 3)
        0.157
    """

    trust: Tensor | None

    def __init__(
        self,
        term: Term,
        *,
        w_ce: float | None = None,
        w_kd: float | None = None,
        tail: Tail = "uniform",
        combine: Combine = "probabilities",
        weights: tuple[float, ...] = (),
        over_epochs: Mapping[str, Ramp] | None = None,
        trust: Sequence[float] = (),
        subclasses: int = 1,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.term = term
        self.facts = facts if isinstance(facts := getattr(term, "facts", None), Facts) else OWN
        self.w_ce = self.facts.w_ce if w_ce is None else w_ce
        self.w_kd = self.facts.w_kd if w_kd is None else w_kd
        self.tail, self.combine, self.weights = tail, combine, weights
        self.over_epochs, self.subclasses = dict(over_epochs or {}), subclasses
        self.label_smoothing = label_smoothing
        self.register_buffer("trust", torch.tensor(tuple(trust)) if len(trust) else None, persistent=False)
        self._check()

    def forward(self, outputs: Outputs | Tensor, batch: Batch, *, with_term: bool = True) -> Tensor:
        """The loss is a scalar in nats, the mean over the rows.

        Args:
            outputs: The student's outputs, or its logits [B, C] alone, f32 or f64.
            batch: The rows, with hard and soft labels.
            with_term: False for a step in which the hard labels alone count.

        Raises InvalidInputError where the term sees teachers of other subclasses than the objective's, and where the
        batch lacks a teacher, or the outputs a tap, that the term needs.

        Examples:
            >>> round(Objective(KD()).forward(logits, batch, with_term=False).item(), 3)
            0.063
        """
        outputs, batch = counted_rows(replace(Outputs.of(outputs), subclasses=self.subclasses), batch)
        logits = outputs.logits
        if not len(logits):
            return logits.sum()  # no token of these texts counts
        values = {name: ramp(batch.time) for name, ramp in self.over_epochs.items()}
        w_ce, w_kd = values.pop("w_ce", self.w_ce), values.pop("w_kd", self.w_kd) * with_term
        self._require_weighable(batch, counts=bool(w_kd))
        if self.trust is not None:
            return self._trusted(outputs, batch, values, self.trust.to(logits.dtype))
        if not w_ce and not w_kd:
            return logits.sum() * 0.0  # a step of a ramp that begins or ends at 0
        hard = w_ce * hard_cross_entropy(outputs.class_logits, batch, self.label_smoothing) if w_ce else None
        if not w_kd:
            return cast("Tensor", hard)
        soft = w_kd * _one_number(self._term_loss(outputs, batch, values), self.term)
        return soft if hard is None else hard + soft

    def _trusted(self, outputs: Outputs, batch: Batch, values: dict[str, float], trust: Tensor) -> Tensor:
        shares = torch.where(batch.y >= 0, trust[batch.y.clamp_min(0)], 1.0)
        hard = hard_rows(outputs.class_logits, batch, self.label_smoothing)
        soft = self._term_loss(outputs, batch, values, by_row=True)
        return mean_of_rows((1.0 - shares) * hard + shares * soft, batch)

    def gathers(self, epoch: int) -> bool:
        """True where each of several processes needs the whole batch."""
        return self.facts.gathers

    @property
    def counts_by_total(self) -> bool:
        """True where the loss of a step depends on the number of epochs in the whole training."""
        return self.facts.by_total

    @property
    def temperatures(self) -> list[float]:
        """The temperatures at which the term asks the stores, those of ramps included."""
        temperatures: list[float] = []
        for name in self.facts.asks_at:
            value, ramp = getattr(self.term, name), self.over_epochs.get(name)
            temperatures += ramp.values if ramp else value if isinstance(value, tuple) else [value]
        return temperatures

    @property
    def student_taps(self) -> tuple[str, ...]:
        """The student's taps that the term is handed, `features` among them."""
        return getattr(self.term, "student_taps", ("features",) if "features" in self.facts.sees else ())

    @property
    def teacher_taps(self) -> tuple[tuple[str, ...], ...]:
        """The taps of each store that the term is handed; empty where it asks for none."""
        return getattr(self.term, "teacher_taps", ())

    @property
    def negatives(self) -> int:
        """The number of negatives that the term is handed with each batch."""
        return getattr(self.term, "negatives", 0)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network that is trained, validated and saved: a term may answer through a part of its own."""
        wrap = getattr(self.term, "wrap", None)
        return network if wrap is None else wrap(network)

    @property
    def best(self) -> int:
        """The number of best classes that a top-k store must keep."""
        name = self.facts.best
        return getattr(self.term, name) if name else 1

    def _term_loss(self, outputs: Outputs, batch: Batch, values: dict[str, float], *, by_row: bool = False) -> Tensor:
        """The term's loss, or that of each row [B], with the numbers that ramps give it at this step."""
        whole: Any = replace(cast("Any", self.term), **values) if values else self.term
        term: Term = whole.rows if by_row else whole
        if "features" in self.facts.sees and outputs.features is None:
            raise InvalidInputError(
                f"{type(self.term).__name__} needs the student's features and the outputs have none; call the "
                "objective with Outputs(logits, features=...)"
            )
        if not self.facts.teacher:
            return term(outputs, Targets(()), batch)
        self._require_subclasses(batch)
        self._require_log_probs(batch)
        teachers = tuple(in_dtype(teacher, outputs.logits.dtype) for teacher in batch.teachers)
        if not teachers:
            raise InvalidInputError(
                f"{type(self.term).__name__} needs a store: the batch has no teacher; give --store, or set w_kd to 0"
            )
        if self.combine != "losses" or "taps" in self.facts.sees:  # taps of different widths are joined by the term
            return term(outputs, Targets(teachers, self.tail, self.combine, self.weights), batch)
        shares = normalised_weights(self.weights, len(teachers))
        losses = [term(outputs, Targets((teacher,), self.tail), batch) for teacher in teachers]
        return mean_of_teachers(losses, shares)

    def _require_subclasses(self, batch: Batch) -> None:
        for number, teacher in enumerate(batch.teachers):
            if (count := teacher.subclasses) != self.subclasses:
                raise InvalidInputError(
                    f"teacher {number} of the batch has {count} subclasses a class, and the objective has "
                    f"{self.subclasses}; make it by make_objective(..., subclasses={count}) for a student of as many, "
                    "or learn from classes by LabelOptions(by_class=True) and make_objective(..., subclasses=1)"
                )

    def _require_log_probs(self, batch: Batch) -> None:
        if self.facts.by_kl or self.facts is OWN:
            return
        for number, teacher in enumerate(batch.teachers):
            if teacher.DRAWN:
                raise InvalidInputError(
                    f"{type(self.term).__name__} needs log-probabilities by class, and teacher {number} of the batch "
                    f"gives {teacher.draws.shape[-1]} draws a row; use a term that draws serve, such as KD at their "
                    "temperature, or a store that was extracted with --encoding topk or full"
                )

    def _require_weighable(self, batch: Batch, *, counts: bool) -> None:
        if batch.weight is not None and counts and not weighs_rows(self.term):
            raise InvalidInputError(
                f"the rows of the batch are weighed, and {type(self.term).__name__} has no loss of each row; use a "
                "term with a method rows(outputs, targets, batch), such as KD, or a batch without weights"
            )
        if self.trust is not None and batch.y2 is not None:
            raise InvalidInputError(
                "trust by class is of rows with one label, and the batch is mixed; use unmixed views"
            )

    def _check(self) -> None:
        kind, facts = type(self.term).__name__, self.facts
        for name, value in (("w_ce", self.w_ce), ("w_kd", self.w_kd)):
            if not (isfinite(value) and value >= 0):
                raise InvalidInputError(f"{name} of {kind} is {value}; give a finite number of 0 or more")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InvalidInputError(f"label_smoothing of {kind} is {self.label_smoothing}; give 0 or more, below 1")
        if facts.teacher and self.tail not in facts.tails:
            raise InvalidInputError(f"{kind} cannot take tail {self.tail!r}; it can take {', '.join(facts.tails)}")
        if self.trust is not None and not (weighs_rows(self.term) and facts.teacher):
            raise InvalidInputError(
                f"{kind} takes no trust by class: it must see a teacher and have a loss of each row, as KD has"
            )
        if self.subclasses > 1 and facts.teacher and (facts.mixing == BOTH_LABELS or facts.ranks):
            raise InvalidInputError(
                f"{kind} takes the teacher's classes apart by the hard label or by rank, and {self.subclasses} "
                "subclasses stand for each; use another objective, such as KD, or a student of whole classes "
                "(--subclasses 1)"
            )
        if facts.remembers and self.combine == "losses":
            raise InvalidInputError(
                f"{kind} remembers one loss a step; combine the teachers by probabilities or logits"
            )
        fields = getattr(self.term, "__dataclass_fields__", {})  # whole numbers, such as k, cannot change smoothly
        numbers = ["w_ce", "w_kd", *(name for name, field in fields.items() if isinstance(field.default, float))]
        if unknown_names := sorted(self.over_epochs.keys() - set(numbers)):
            raise InvalidInputError(
                f"{kind} has no {', '.join(unknown_names)} to change over epochs; it has {', '.join(numbers)}"
            )


def weighs_rows(term: object) -> bool:
    """True for a term, or the class of one, that has a loss of each row: `rows(outputs, targets, batch)` -> [B]."""
    return callable(getattr(term, "rows", None))


def _one_number(loss: object, term: object) -> Tensor:
    """A term's loss. Raises InvalidInputError where a user's own gives anything but a tensor of one number."""
    name = getattr(term, "__name__", type(term).__name__)
    if not isinstance(loss, Tensor):
        raise InvalidInputError(
            f"{name} gave a {type(loss).__name__}; it must be a tensor of one number, a mean over rows"
        )
    if loss.ndim:
        raise InvalidInputError(
            f"{name} gave a loss of shape {list(loss.shape)}; it must be one number, a mean over rows"
        )
    return loss
