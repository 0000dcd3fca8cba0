"""fused: the closed form equals autograd's gradient of the plain form, in pieces or whole, and its own derivative."""

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from kdcache.labels.full import FullLabels
from kdcache.labels.reduction import reduce_topk
from kdcache.labels.soft_labels import SoftLabels
from kdcache.labels.topk_labels import TopKLabels
from kdcache.objectives import fused, pieces
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective
from kdcache.objectives.targets import Targets, in_dtype
from tests.kits.encoding import labels_of
from tests.kits.labels import batch_of, value_and_gradient

ROWS, CLASSES = 7, 30
TAILS = ("uniform", "class-mean", "ghost", "none")
CASES = [(1, ()), (4, ()), (4, (0, 11)), (CLASSES - 1, ()), (CLASSES - 3, (3, 5)), (CLASSES, ())]
PIECES = (2 * CLASSES, 2**17)  # two rows at a time, or all at once
PER_ROW = torch.linspace(1.0, 6.0, ROWS, dtype=torch.float64)


def random(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def topk(k: int, masked: tuple[int, ...] = ()) -> TopKLabels:
    kept = reduce_topk(random(ROWS, CLASSES, seed=1), torch.full((ROWS, 1), -1), k, masked)
    means = random(CLASSES, seed=2)
    return labels_of(kept, CLASSES, masked, means)


def full(masked: tuple[int, ...] = ()) -> SoftLabels:
    logits = random(ROWS, CLASSES, seed=1)
    logits[:, list(masked)] = -torch.inf
    return in_dtype(FullLabels(logits, logits[:, 0], CLASSES, masked), torch.float64)


def require_plain(teacher: SoftLabels, temperature: Any, tau: float, tail: Any) -> None:
    targets, weights = Targets((teacher,), tail), random(ROWS, seed=4)
    student = random(ROWS, CLASSES, seed=3)
    assert fused.fits(teacher, student, temperature)

    def closed(z: Tensor) -> Tensor:
        return (weights * targets.kl_of_logits(z, temperature, tau=tau)).sum()

    def plain(z: Tensor) -> Tensor:
        return (weights * targets.kl(torch.log_softmax(z / tau, dim=-1), temperature)).sum()

    for found, wanted in zip(value_and_gradient(closed, student), value_and_gradient(plain, student), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_topk(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    for piece, temperature, tail, (k, masked) in product(PIECES, [1.0, 1.7, 4.0, PER_ROW], TAILS, CASES):
        with subtests.test(piece=piece, temperature=temperature, tail=tail, k=k, masked=masked):
            monkeypatch.setattr(pieces, "PIECE", piece)
            require_plain(topk(k, masked), temperature, 2.5, tail)


def test_full(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    for piece, temperature, masked in product(PIECES, [0.5, 4.0, PER_ROW], [(), (2, 9)]):
        with subtests.test(piece=piece, temperature=temperature, masked=masked):
            monkeypatch.setattr(pieces, "PIECE", piece)
            require_plain(full(masked), temperature, 2.5, "uniform")


@pytest.mark.parametrize("tail", TAILS)
def test_first_and_second_derivative_by_finite_differences(tail: Any) -> None:
    student = random(ROWS, CLASSES, seed=3).requires_grad_()
    for teacher in (topk(4, (0, 11)), full((2, 9))):
        rows = partial(Targets((teacher,), tail).kl_of_logits, temperature=3.0, tau=3.0)
        assert torch.autograd.gradcheck(rows, student, fast_mode=True)
        assert torch.autograd.gradgradcheck(rows, student, fast_mode=True)


def test_the_graph_may_be_walked_twice() -> None:
    student = random(ROWS, CLASSES, seed=3).requires_grad_()
    rows = Targets((topk(4),)).kl_of_logits(student, 2.0, tau=2.0).sum()
    first, second = (torch.autograd.grad(rows, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("tail", TAILS)
def test_a_student_that_is_sure_and_wrong_keeps_its_gradient(tail: Any) -> None:
    """Its probabilities of all other classes are 0 in f32; the gradient must still lead back."""
    teacher = in_dtype(topk(3), torch.float32)
    student = torch.zeros(ROWS, CLASSES)
    student[:, 0] = 300.0
    _, gradient = value_and_gradient(lambda z: Targets((teacher,), tail).kl_of_logits(z, 1.0).sum(), student)
    away = (teacher.classes != 0).all(dim=-1) if isinstance(teacher, TopKLabels) else torch.ones(ROWS, dtype=torch.bool)
    assert gradient.isfinite().all()
    assert (gradient[away, 0] > 0.3).all()
    torch.testing.assert_close(gradient.sum(dim=-1), torch.zeros(ROWS), rtol=0, atol=1e-5)


def test_logits_far_from_zero() -> None:
    """A constant added to a row changes nothing but rounding."""
    teacher = in_dtype(topk(4), torch.float32)
    student = random(ROWS, CLASSES, seed=3).float()
    near = value_and_gradient(lambda z: Targets((teacher,)).kl_of_logits(z, 4.0, tau=4.0).sum(), student)
    far = value_and_gradient(lambda z: Targets((teacher,)).kl_of_logits(z, 4.0, tau=4.0).sum(), student + 1000.0)
    torch.testing.assert_close(far, near, rtol=1e-3, atol=1e-3)


def test_a_learned_temperature_and_learned_labels_take_the_plain_way() -> None:
    student, teacher = random(ROWS, CLASSES, seed=3), topk(4)
    learned = torch.tensor(2.7, dtype=torch.float64, requires_grad=True)
    assert not fused.fits(teacher, student, learned)
    (slope,) = torch.autograd.grad(Targets((teacher,)).kl_of_logits(student, learned).sum(), learned)
    step = 1e-6
    above, below = (Targets((teacher,)).kl_of_logits(student, 2.7 + each).sum() for each in (step, -step))
    torch.testing.assert_close(slope, (above - below) / (2 * step), rtol=1e-5, atol=1e-6)
    assert not fused.fits(replace(teacher, logits=teacher.logits.requires_grad_()), student, 2.0)
    assert not fused.fits(teacher, student.half(), 2.0)


@pytest.mark.parametrize("tail", TAILS)
def test_under_autocast(tail: Any) -> None:
    """Student logits in f32 give the very loss that they give without autocast."""
    batch = batch_of(in_dtype(topk(4), torch.float32), y=torch.arange(ROWS))
    student, loss = random(ROWS, CLASSES, seed=3).float(), Objective(KD(), tail=tail)
    wanted = value_and_gradient(loss, student, batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradient(loss, student, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_functional_gradients_and_inference_mode() -> None:
    student, targets = random(ROWS, CLASSES, seed=3), Targets((topk(4),))
    loss, gradient = value_and_gradient(lambda z: targets.kl_of_logits(z, 2.0).sum(), student)
    torch.testing.assert_close(torch.func.grad(lambda z: targets.kl_of_logits(z, 2.0).sum())(student), gradient)
    with torch.inference_mode():
        torch.testing.assert_close(targets.kl_of_logits(student, 2.0).sum(), loss)


def test_no_rows() -> None:
    teacher = topk(4)
    none = replace(teacher, classes=teacher.classes[:0], logits=teacher.logits[:0], tail=teacher.tail[:0])
    loss, gradient = value_and_gradient(
        lambda z: Targets((none,)).kl_of_logits(z, 2.0).sum(), torch.zeros(0, CLASSES, dtype=torch.float64)
    )
    assert (float(loss), gradient.shape) == (0.0, (0, CLASSES))
