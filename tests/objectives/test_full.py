"""objectives on full stores: value and gradient of each equal the dense float64 reference, on logits kept in f16."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from kdcache.labels.full import FullLabels
from kdcache.objectives.catalogue import LOGIT_TERMS, make_objective, parameters_of
from tests.kits.dense_reference import REFERENCES
from tests.kits.dense_teacher import Case, Dense, hard
from tests.kits.labels import batch_of, full_labels, real_student, require_equal, shaped, value_and_gradient

ROWS, CLASSES = 6, 11
HEAD = torch.randn(CLASSES, 5, generator=torch.Generator().manual_seed(3))
DISTANCES = [
    "kd", "function-matching", "ctkd", "dkd", "jsd", "skew-kl", "skew-reverse-kl", "reverse-kl", "symmetric-kl",
    "adaptive-kl", "taid", "mlld", "logit-standardisation", "logit-mse", "dist", "brier", "tvd",
]  # fmt: skip
NO_ZEROS = [name for name, term in LOGIT_TERMS.items() if term.facts.teacher and not term.facts.zeros]
TEMPERED = [name for name in LOGIT_TERMS if "temperature" in parameters_of(name)]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in LOGIT_TERMS),
    *((name, {"temperature": temperature}) for name in TEMPERED for temperature in (0.7, 1.0, 2.0, 3.0, 8.0)),
    ("label-smoothing", {"epsilon": 0.3}),
    ("confidence-penalty", {"beta": 0.7}),
    ("subclass", {"beta": 0.3, "temperature": 0.5}),
    ("kd-topk", {"k": 2}),
    ("kd-sim", {"alpha": 0.3, "beta": 0.5}),
    ("dkd", {"alpha": 0.5, "beta": 2.0, "warmup_epochs": 0.0}),
    ("dkd", {"alpha": 3.0, "beta": 0.0, "warmup_epochs": 0.0}),
    ("nkd", {"gamma": 0.4, "temperature": 3.0}),
    ("dist", {"beta": 2.0, "gamma": 0.5}),
    ("mlld", {"temperatures": (1.0, 4.0), "w_batch": 3.0, "w_class": 0.2}),
    ("mlld", {"temperatures": (2.0,), "w_batch": 0.0}),
    ("ctkd", {"span": 3.0}),
    ("jsd", {"beta": 0.2}),
    ("jsd", {"beta": 0.9}),
    ("skew-kl", {"skew": 0.5}),
    ("skew-reverse-kl", {"skew": 0.3}),
    ("adaptive-kl", {"mu": 0.9}),
    ("taid", {"t_start": 0.0}),
    ("taid", {"t_start": 1.0}),
]


def logits(seed: int = 0, rows: int = ROWS, classes: int = CLASSES) -> npt.NDArray[np.float32]:
    return np.random.RandomState(seed).normal(0, 3, (rows, classes)).astype(np.float32)


def labels(rows: int = ROWS) -> npt.NDArray[np.int64]:
    """One of them missing."""
    hard_labels = np.random.RandomState(5).choice([1, 3, 4, 6, 8, 10], size=rows)
    hard_labels[2] = -1
    return hard_labels.astype(np.int64)


def settings_of(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All settings of a reference: the published defaults, the given ones, and what comes from outside."""
    return parameters_of(name) | {"theta": 1.0} | ({"head": HEAD} if name == "kd-sim" else {}) | given


def made(name: str, given: dict[str, Any]) -> Any:
    return make_objective(name, {"w_ce": 0.0, "w_kd": 1.0, **given}, head=HEAD if name == "kd-sim" else None)


def wanted(name: str, given: dict[str, Any], student: Tensor, z: Tensor, **case: Any) -> tuple[Tensor, Tensor]:
    """Value and gradient of the reference; z [N, C] as the store holds it."""
    teacher, full_case = Dense(z.double()), Case(settings=settings_of(name, given), **case)
    return value_and_gradient(lambda s: REFERENCES[name](s, teacher, full_case), student)


def require_reference(name: str, given: dict[str, Any], teacher: FullLabels, student: Tensor, **case: Any) -> None:
    """The labels of a batch are those of the reference's case."""
    found = value_and_gradient(made(name, given), student, batch_of(teacher, **case))
    require_equal(found, wanted(name, given, student, teacher.logits, **case))


def test_every_objective_has_a_reference() -> None:
    assert set(REFERENCES) == set(LOGIT_TERMS)


def test_it_equals_the_reference(subtests: pytest.Subtests) -> None:
    teacher, student, y = full_labels(logits(), labels()), real_student(logits()), torch.from_numpy(labels())
    for name, given in SETTINGS:
        with subtests.test(name, **given):
            require_reference(name, given, teacher, student, y=y)


def test_real_logits(real_logits: Any, subtests: pytest.Subtests) -> None:
    z, y = real_logits[:6], np.arange(6) * 160
    head = torch.randn(z.shape[1], 4, generator=torch.Generator().manual_seed(3))
    teacher, student = full_labels(z, y), real_student(z)
    for name in LOGIT_TERMS:
        with subtests.test(name):
            loss = make_objective(name, {"w_ce": 0.0, "w_kd": 1.0}, head=head)
            found = value_and_gradient(loss, student, batch_of(teacher, y=torch.from_numpy(y)))
            extra = {"head": head} if name == "kd-sim" else {}
            require_equal(found, wanted(name, extra, student, teacher.logits, y=torch.from_numpy(y)))


def test_mixed_labels(subtests: pytest.Subtests) -> None:
    y = np.stack([labels(), np.roll(labels(), 1)], axis=1)
    teacher, student = full_labels(logits(), y), real_student(logits())
    first, second = torch.from_numpy(y).unbind(dim=1)
    for name in LOGIT_TERMS:
        with subtests.test(name):
            require_reference(name, {}, teacher, student, y=first, y2=second, lam=torch.linspace(0, 1, ROWS))


def test_masked_classes(subtests: pytest.Subtests) -> None:
    masked = (0, 7)
    teacher, student = full_labels(logits(), labels(), masked), real_student(logits())
    assert torch.isneginf(teacher.logits[:, list(masked)]).all()
    for name in LOGIT_TERMS:
        if name not in NO_ZEROS:
            with subtests.test(name):
                require_reference(name, {}, teacher, student, y=torch.from_numpy(labels()))


def test_leading_axes(subtests: pytest.Subtests) -> None:
    student, y = real_student(logits()), np.stack([labels(), np.roll(labels(), 1)], axis=1)
    teacher, lam = full_labels(logits(), y), torch.tensor([0.3, 0.9, 1.0])
    first, second = torch.from_numpy(y).unbind(dim=1)
    batch = batch_of(shaped(teacher, 3, 2), y=first.view(3, 2), y2=second.view(3, 2), lam=lam)
    case = {"y": first, "y2": second, "lam": lam.repeat_interleave(2)}
    for name in LOGIT_TERMS:
        with subtests.test(name):
            found = value_and_gradient(made(name, {}), student.view(3, 2, CLASSES), batch)
            require_equal(found, wanted(name, {}, student, teacher.logits, **case))


def test_the_hard_labels_come_beside_it_with_the_published_weights(subtests: pytest.Subtests) -> None:
    teacher, student, y = full_labels(logits(), labels()), real_student(logits()), torch.from_numpy(labels())
    by_labels = value_and_gradient(lambda s: hard(s, Case(y=y)), student)
    for name, term in LOGIT_TERMS.items():
        with subtests.test(name):
            loss = make_objective(name, head=HEAD if name == "kd-sim" else None)
            by_teacher = wanted(name, {}, student, teacher.logits, y=y)
            value, gradient = (
                term.facts.w_ce * a + term.facts.w_kd * b for a, b in zip(by_labels, by_teacher, strict=True)
            )
            require_equal(value_and_gradient(loss, student, batch_of(teacher, y=y)), (value, gradient))


def test_a_student_that_agrees_up_to_a_constant_has_no_loss(subtests: pytest.Subtests) -> None:
    teacher, y = full_labels(logits(), labels()), torch.from_numpy(labels()).clamp_min(0)
    student = teacher.logits.double() + torch.linspace(-5, 5, ROWS)[:, None]
    for name in DISTANCES:
        with subtests.test(name):
            loss, gradient = value_and_gradient(made(name, {}), student, batch_of(teacher, y=y))
            slack = 1e-4 if name == "dist" else 1e-11  # its 1e-8 in the denominator counts where a column hardly varies
            assert abs(float(loss)) < slack
            assert name in ("tvd", "dist") or float(gradient.norm()) < slack  # total variation has a corner at 0


def test_the_reduction_is_the_mean_over_rows(subtests: pytest.Subtests) -> None:
    """Where rows do not meet, the loss is the mean of the rows' own; and the facts say where they do."""
    student, y = real_student(logits()), torch.from_numpy(labels())
    teacher = full_labels(logits(), labels())
    alone = [full_labels(logits()[row : row + 1], labels()[row : row + 1]) for row in range(ROWS)]
    assert [name for name, term in LOGIT_TERMS.items() if term.facts.couples] == ["subclass", "dist", "mlld"]
    for name in [name for name, term in LOGIT_TERMS.items() if not term.facts.couples]:
        with subtests.test(name):
            rows = [
                made(name, {})(student[row : row + 1], batch_of(one, y=y[row : row + 1])).item()
                for row, one in enumerate(alone)
            ]
            assert made(name, {})(student, batch_of(teacher, y=y)).item() == pytest.approx(np.mean(rows), rel=1e-10)
