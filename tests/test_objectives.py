"""objectives: KD without dense targets equals KD with them, in value and gradient; ensembles, masks, mixed labels."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdcache.batch import Batch
from kdcache.errors import InvalidInputError
from kdcache.objectives import KD
from kdcache.objectives.hard import hard_cross_entropy
from kdcache.objectives.kd import combined_log_probs, normalised_weights
from kdcache.reduction import centre, reduce_topk
from kdcache.softlabels import FullLabels, SoftLabels, Tail, TopKLabels

ROWS, CLASSES = 7, 12


def logits_of(seed: int, *, scale: float = 3.0) -> Tensor:
    """Logits [B, C] f64."""
    return scale * torch.randn(ROWS, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def topk_of(logits: Tensor, k: int, masked: tuple[int, ...] = ()) -> TopKLabels:
    kept = reduce_topk(logits, torch.full((ROWS, 1), -1), k, masked)
    return TopKLabels(kept.classes, -kept.distances, kept.tail, kept.label[:, 0], CLASSES, masked)


def full_of(logits: Tensor, masked: tuple[int, ...] = ()) -> FullLabels:
    return FullLabels(centre(logits, masked), torch.full((ROWS,), torch.nan), CLASSES, masked)


def batch_of(
    *teachers: SoftLabels, y: Tensor | None = None, y2: Tensor | None = None, lam: Tensor | None = None
) -> Batch:
    labels = torch.arange(ROWS) % CLASSES if y is None else y
    return Batch(torch.empty(ROWS, 0), labels, y2, lam, torch.arange(ROWS), 0, 0, 0, teachers)


def value_and_gradient(loss: Any, student: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = loss(student, batch)
    value.backward()
    assert student.grad is not None
    return value.detach(), student.grad


def reference_kd(probabilities: Tensor, temperature: float) -> Any:
    """T^2 KL(p || softmax(s / T)) of PyTorch's own."""

    def loss(student: Tensor, batch: Batch) -> Tensor:
        log_q = F.log_softmax(student / temperature, dim=-1)
        return temperature**2 * F.kl_div(log_q, probabilities, reduction="batchmean")

    return loss


def require_equal(loss: Any, expected: Any, batch: Batch) -> None:
    student = logits_of(99)
    for found, wanted in zip(
        value_and_gradient(loss, student, batch), value_and_gradient(expected, student, batch), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 1.7, 4.0])
@pytest.mark.parametrize("tail", ["uniform", "none"])
@pytest.mark.parametrize(
    ("k", "masked"), [(1, ()), (4, ()), (4, (0, 11)), (CLASSES - 1, ()), (CLASSES, ()), (CLASSES - 2, (3, 5))]
)
def test_topk_equals_its_dense_form(temperature: float, tail: Tail, k: int, masked: tuple[int, ...]) -> None:
    teacher = topk_of(logits_of(1), k, masked)
    loss = KD(w_ce=0.0, w_kd=1.0, temperature=temperature, tail=tail)
    require_equal(loss, reference_kd(teacher.dense(temperature, tail=tail), temperature), batch_of(teacher))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("masked", [(), (2, 7)])
def test_full_equals_pytorch(temperature: float, masked: tuple[int, ...]) -> None:
    logits = logits_of(1)
    visible = logits.clone()
    visible[:, list(masked)] = -torch.inf
    loss = KD(w_ce=0.0, w_kd=1.0, temperature=temperature)
    expected = reference_kd(torch.softmax(visible / temperature, dim=-1), temperature)
    require_equal(loss, expected, batch_of(full_of(logits, masked)))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_topk_of_all_classes_equals_full(temperature: float) -> None:
    loss = KD(w_ce=0.0, w_kd=1.0, temperature=temperature)
    logits, student = logits_of(1), logits_of(2)
    found = loss(student, batch_of(topk_of(logits, CLASSES)))
    assert torch.allclose(found, loss(student, batch_of(full_of(logits))), atol=1e-10)


def test_a_student_that_answers_as_the_teacher_does_has_no_loss() -> None:
    logits = logits_of(1)
    loss, gradient = value_and_gradient(KD(w_ce=0.0, w_kd=1.0), logits + 5.0, batch_of(full_of(logits)))
    assert abs(float(loss)) < 1e-12
    assert float(gradient.abs().max()) < 1e-12


def test_the_weights_add_up() -> None:
    student, batch = logits_of(2), batch_of(full_of(logits_of(1)))
    hard, soft = KD(w_ce=1.0, w_kd=0.0)(student, batch), KD(w_ce=0.0, w_kd=1.0)(student, batch)
    assert torch.allclose(KD(w_ce=0.3, w_kd=2.0)(student, batch), 0.3 * hard + 2.0 * soft)
    assert torch.allclose(hard, F.cross_entropy(student, batch.y))
    assert float(KD(w_ce=0.0, w_kd=0.0)(student, batch)) == 0.0


@pytest.mark.parametrize("weights", [(), (3.0, 1.0), (0.0, 2.0)])
@pytest.mark.parametrize("combine", ["probabilities", "logits"])
@pytest.mark.parametrize("masked", [(), (4,)])
def test_an_ensemble_is_a_mean_of_probabilities_or_of_logits(
    weights: tuple[float, ...], combine: Any, masked: tuple[int, ...]
) -> None:
    logits, temperature = [logits_of(seed) for seed in (1, 2)], 2.0
    shares = torch.tensor(weights or (1.0, 1.0), dtype=torch.float64)
    shares = shares / shares.sum()
    for each in logits:
        each[:, list(masked)] = -torch.inf
    if combine == "probabilities":
        p = sum(w * torch.softmax(z / temperature, dim=-1) for w, z in zip(shares, logits, strict=True))
    else:
        p = torch.softmax(sum(w * z / temperature for w, z in zip(shares, logits, strict=True) if w > 0), dim=-1)
    loss = KD(w_ce=0.0, w_kd=1.0, temperature=temperature, combine=combine, weights=weights)
    require_equal(loss, reference_kd(p, temperature), batch_of(*(full_of(z, masked) for z in logits)))


def test_an_ensemble_may_mix_encodings() -> None:
    first, second = topk_of(logits_of(1), 3), full_of(logits_of(2))
    p = 0.5 * first.dense(4.0) + 0.5 * second.dense(4.0)
    require_equal(KD(w_ce=0.0, w_kd=1.0), reference_kd(p, 4.0), batch_of(first, second))


def test_an_ensemble_of_one_teacher_twice_is_that_teacher() -> None:
    teacher = topk_of(logits_of(1), 4)
    for combine in ("probabilities", "logits"):
        log_p = combined_log_probs((teacher, teacher), 4.0, "uniform", combine, ())  # type: ignore[arg-type]
        assert torch.allclose(log_p.exp(), teacher.dense(4.0), atol=1e-12)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (-1.0, 2.0), (0.0, 0.0)])
def test_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInputError, match="do not fit 2 stores; give one at or above 0 for each"):
        normalised_weights(weights, 2)


def test_weights_are_shares() -> None:
    assert normalised_weights((), 4) == (0.25,) * 4
    assert normalised_weights((3.0, 1.0), 2) == (0.75, 0.25)


def test_no_teacher_and_no_temperature_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"KD needs a store.*--store, or set w_kd to 0"):
        KD()(logits_of(1), batch_of())
    with pytest.raises(InvalidInputError, match=r"temperature 0\.5 was asked for; it must be 1 or more"):
        KD(temperature=0.5)(logits_of(1), batch_of(topk_of(logits_of(1), 3)))
    assert torch.isfinite(KD(w_kd=0.0)(logits_of(1), batch_of()))


def test_f32_logits_of_any_size_stay_finite() -> None:
    student = logits_of(1, scale=300.0).float()
    for teacher in (topk_of(logits_of(2, scale=300.0), 3).torch(), full_of(logits_of(2, scale=300.0)).torch()):
        loss, gradient = value_and_gradient(KD(temperature=1.0), student, batch_of(teacher))
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert bool(torch.isfinite(gradient).all())


def test_mixed_labels_are_weighed_by_lambda() -> None:
    student, y, y2 = logits_of(1), torch.arange(ROWS), torch.arange(ROWS).flip(0)
    lam = torch.linspace(0, 1, ROWS)
    targets = lam[:, None] * F.one_hot(y, CLASSES) + (1 - lam)[:, None] * F.one_hot(y2, CLASSES)
    expected = F.cross_entropy(student, targets.double())
    assert torch.allclose(hard_cross_entropy(student, batch_of(y=y, y2=y2, lam=lam)), expected, atol=1e-7)
    ones = batch_of(y=y, y2=y2, lam=torch.ones(ROWS))
    assert torch.allclose(hard_cross_entropy(student, ones), F.cross_entropy(student, y))


def test_rows_without_a_label_count_as_zero() -> None:
    student, y = logits_of(1), torch.arange(ROWS)
    y[2:] = -1
    expected = F.cross_entropy(student[:2], y[:2], reduction="sum") / ROWS
    loss, gradient = value_and_gradient(hard_cross_entropy, student, batch_of(y=y))
    assert torch.allclose(loss, expected)
    assert float(gradient[2:].abs().max()) == 0.0
    nobody = torch.full((ROWS,), -1)
    assert float(hard_cross_entropy(student, batch_of(y=nobody, y2=nobody, lam=torch.ones(ROWS)))) == 0.0
