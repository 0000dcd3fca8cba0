"""objectives on full stores: value and gradient of each equal the dense float64 reference, on logits kept in f16."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from kdcache.objectives.catalogue import TERMS, make_objective, parameters_of
from tests.kits.dense_reference import REFERENCES
from tests.kits.dense_teacher import Case, Dense, hard
from tests.kits.labels import batch_of, full_labels, real_student, require_equal, shaped, value_and_gradient

ROWS, CLASSES = 6, 11
HEAD = torch.randn(CLASSES, 5, generator=torch.Generator().manual_seed(3))
NO_ZEROS = [name for name, term in TERMS.items() if term.facts.teacher and not term.facts.zeros]
TEMPERED = [name for name in TERMS if "temperature" in parameters_of(name)]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TERMS),
    *((name, {"temperature": temperature}) for name in TEMPERED for temperature in (0.7, 1.0, 2.0, 3.0, 8.0)),
    ("label-smoothing", {"epsilon": 0.3}),
    ("confidence-penalty", {"beta": 0.7}),
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


def made(name: str, given: dict[str, Any], **common: Any) -> Any:
    return make_objective(name, given, head=HEAD if name == "kd-sim" else None, **({"w_ce": 0.0, "w_kd": 1.0} | common))


def wanted(name: str, given: dict[str, Any], student: Tensor, z: Tensor, **case: Any) -> tuple[Tensor, Tensor]:
    """Value and gradient of the reference; z [N, C] as the store holds it."""
    teacher, full_case = Dense(z.double()), Case(settings=settings_of(name, given), **case)
    return value_and_gradient(lambda s: REFERENCES[name](s, teacher, full_case), student)


def test_every_objective_has_a_reference() -> None:
    assert set(REFERENCES) == set(TERMS)


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=str)
def test_it_equals_the_reference(name: str, given: dict[str, Any]) -> None:
    student, y = real_student(logits()), labels()
    teacher = full_labels(logits(), y)
    found = value_and_gradient(made(name, given), student, batch_of(teacher, y=torch.from_numpy(y)))
    require_equal(found, wanted(name, given, student, teacher.logits, y=torch.from_numpy(y)))


@pytest.mark.parametrize("name", TERMS)
def test_real_logits(name: str, real_logits: Any) -> None:
    z = real_logits[:6]
    head = torch.randn(z.shape[1], 4, generator=torch.Generator().manual_seed(3))
    student, y = real_student(z), np.arange(6) * 160
    teacher = full_labels(z, y)
    loss = make_objective(name, head=head, w_ce=0.0, w_kd=1.0)
    found = value_and_gradient(loss, student, batch_of(teacher, y=torch.from_numpy(y)))
    extra = {"head": head} if name == "kd-sim" else {}
    require_equal(found, wanted(name, extra, student, teacher.logits, y=torch.from_numpy(y)))


@pytest.mark.parametrize("name", TERMS)
def test_mixed_labels(name: str) -> None:
    student, y = real_student(logits()), np.stack([labels(), np.roll(labels(), 1)], axis=1)
    lam = torch.linspace(0, 1, ROWS)
    teacher = full_labels(logits(), y)
    first, second = torch.from_numpy(y).unbind(dim=1)
    found = value_and_gradient(made(name, {}), student, batch_of(teacher, y=first, y2=second, lam=lam))
    require_equal(found, wanted(name, {}, student, teacher.logits, y=first, y2=second, lam=lam))


@pytest.mark.parametrize("name", [name for name in TERMS if name not in NO_ZEROS])
def test_masked_classes(name: str) -> None:
    student, y, masked = real_student(logits()), labels(), (0, 7)
    teacher = full_labels(logits(), y, masked)
    assert torch.isneginf(teacher.logits[:, list(masked)]).all()
    found = value_and_gradient(made(name, {}), student, batch_of(teacher, y=torch.from_numpy(y)))
    require_equal(found, wanted(name, {}, student, teacher.logits, y=torch.from_numpy(y)))


@pytest.mark.parametrize("name", TERMS)
def test_leading_axes(name: str) -> None:
    student, y = real_student(logits()), np.stack([labels(), np.roll(labels(), 1)], axis=1)
    teacher, lam = full_labels(logits(), y), torch.tensor([0.3, 0.9, 1.0])
    first, second = torch.from_numpy(y).unbind(dim=1)
    batch = batch_of(shaped(teacher, 3, 2), y=first.view(3, 2), y2=second.view(3, 2), lam=lam)
    found = value_and_gradient(made(name, {}), student.view(3, 2, CLASSES), batch)
    case = {"y": first, "y2": second, "lam": lam.repeat_interleave(2)}
    require_equal(found, wanted(name, {}, student, teacher.logits, **case))


@pytest.mark.parametrize("name", TERMS)
def test_the_hard_labels_come_beside_it_with_the_published_weights(name: str) -> None:
    student, y = real_student(logits()), torch.from_numpy(labels())
    teacher = full_labels(logits(), labels())
    facts = TERMS[name].facts
    loss = make_objective(name, head=HEAD if name == "kd-sim" else None)
    found = value_and_gradient(loss, student, batch_of(teacher, y=y))
    case = Case(y=y, settings=settings_of(name, {}))

    def whole(s: Tensor) -> Tensor:
        return facts.w_ce * hard(s, case) + facts.w_kd * REFERENCES[name](s, Dense(teacher.logits.double()), case)

    require_equal(found, value_and_gradient(whole, student))


@pytest.mark.parametrize(
    "name",
    ["kd", "function-matching", "ctkd", "dkd", "jsd", "skew-kl", "skew-reverse-kl", "reverse-kl", "symmetric-kl",
     "adaptive-kl", "taid", "mlld", "logit-standardisation", "logit-mse", "dist", "brier", "tvd"],
)  # fmt: skip
def test_a_student_that_agrees_up_to_a_constant_has_no_loss(name: str) -> None:
    teacher = full_labels(logits(), labels())
    student = teacher.logits.double() + torch.linspace(-5, 5, ROWS)[:, None]
    loss, gradient = value_and_gradient(
        made(name, {}), student, batch_of(teacher, y=torch.from_numpy(labels()).clamp_min(0))
    )
    slack = 1e-4 if name == "dist" else 1e-11  # its 1e-8 in the denominator counts where a column hardly varies
    assert abs(float(loss)) < slack
    assert name in ("tvd", "dist") or float(gradient.norm()) < slack  # total variation has a corner at 0


@pytest.mark.parametrize("name", [name for name in TERMS if name not in ("dist", "mlld")])
def test_the_reduction_is_the_mean_over_rows(name: str) -> None:
    """Twice the rows, the same loss; where rows do not meet, the loss is the mean of the rows' own."""
    student, y = real_student(logits()), torch.from_numpy(labels())
    teacher, assembled = full_labels(logits(), labels()), []
    for row in range(ROWS):
        alone = full_labels(logits()[row : row + 1], labels()[row : row + 1])
        assembled.append(made(name, {})(student[row : row + 1], batch_of(alone, y=y[row : row + 1])).item())
    assert made(name, {})(student, batch_of(teacher, y=y)).item() == pytest.approx(np.mean(assembled), rel=1e-10)
    assert TERMS[name].facts.couples is False


@pytest.mark.parametrize("name", ["dist", "mlld"])
def test_where_rows_meet_the_facts_say_so(name: str) -> None:
    assert TERMS[name].facts.couples
