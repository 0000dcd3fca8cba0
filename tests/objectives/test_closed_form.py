"""closed_form: divergences and squared errors equal autograd's gradient of the plain form, and finite differences."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from kdcache.objectives import pieces, targets
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets, in_dtype
from tests.kits.labels import batch_of, value_and_gradient
from tests.objectives.test_fused import CLASSES, ROWS, full, random, topk

NAMES = ("reverse-kl", "symmetric-kl", "jsd", "skew-kl", "skew-reverse-kl", "tvd", "brier", "logit-mse")
PIECES = (2 * CLASSES, 2**17)  # two rows at a time, or all at once
TEACHERS = (topk(4), topk(4, (0, 11)), topk(CLASSES), full(), full((2, 9)))
NO_ZEROS = ("reverse-kl", "symmetric-kl")  # infinite where a teacher's probability is 0


def rows_of(name: str, teacher: Any, student: Tensor, tail: Any = "uniform") -> Tensor:
    term: Any = make_objective(name, {} if name == "logit-mse" else {"temperature": 2.5}, tail=tail).term
    batch = batch_of(teacher, y=torch.zeros(student.shape[:-1], dtype=torch.int64))
    rows: Tensor = term.rows(Outputs(student), Targets((teacher,), tail), batch)
    return rows


CASES = [
    (name, teacher, tail)
    for name, teacher, tail in product(NAMES, TEACHERS, ("uniform", "class-mean", "none"))
    if not (name in NO_ZEROS and (teacher.masked or tail == "none")) and not (name == "logit-mse" and tail == "none")
]


def test_it_equals_the_plain_form(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    student, weights = random(ROWS, CLASSES, seed=3), random(ROWS, seed=4)

    def weighed(z: Tensor, name: str, teacher: Any, tail: Any) -> Tensor:
        return (weights * rows_of(name, teacher, z, tail)).sum()

    results = []
    for piece, closed in ((PIECES[0], True), (PIECES[1], True), (PIECES[1], False)):
        monkeypatch.setattr(pieces, "PIECE", piece)
        monkeypatch.setattr(targets, "fits", lambda *_, closed=closed: closed)
        results.append([value_and_gradient(partial(weighed, name=n, teacher=t, tail=s), student) for n, t, s in CASES])
    for case, *found, wanted in zip(CASES, *results, strict=True):
        name, teacher, tail = case
        with subtests.test(name, teacher=type(teacher).__name__, masked=teacher.masked, tail=tail):
            for one in found:
                torch.testing.assert_close(one, wanted, rtol=1e-12, atol=1e-12)


def test_first_and_second_derivative_by_finite_differences(subtests: pytest.Subtests) -> None:
    student = random(ROWS, CLASSES, seed=3).requires_grad_()
    for name, teacher in product(NAMES, (topk(4), full())):
        with subtests.test(name, teacher=type(teacher).__name__):
            rows = partial(rows_of, name, teacher)
            assert torch.autograd.gradcheck(rows, student, fast_mode=True)
            assert torch.autograd.gradgradcheck(rows, student, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_may_be_walked_twice_and_functions_may_transform_it(name: str) -> None:
    student = random(ROWS, CLASSES, seed=3).requires_grad_()
    rows = rows_of(name, topk(4), student).sum()
    first, second = (torch.autograd.grad(rows, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    transformed = torch.func.grad(lambda z: rows_of(name, topk(4), z).sum())(student.detach())
    torch.testing.assert_close(transformed, first)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_that_is_sure_and_wrong_has_a_finite_loss_and_gradient(name: str) -> None:
    """Its probabilities of all other classes are 0 in f32."""
    student = torch.zeros(ROWS, CLASSES)
    student[:, 0] = 300.0
    teacher = in_dtype(topk(3), torch.float32)
    loss, gradient = value_and_gradient(lambda z: rows_of(name, teacher, z).sum(), student)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient.sum(dim=-1), torch.zeros(ROWS), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_sequences_and_no_rows(name: str) -> None:
    teacher, student = topk(4), random(ROWS, CLASSES, seed=3)
    pairs = teacher.take(torch.arange(6)).map(lambda values: values.reshape(2, 3, *values.shape[1:]))
    wanted = rows_of(name, teacher, student)[:6].reshape(2, 3)
    torch.testing.assert_close(rows_of(name, pairs, student[:6].reshape(2, 3, CLASSES)), wanted)
    none = rows_of(name, teacher.take(torch.arange(0)), student[:0].requires_grad_())
    none.sum().backward()
    assert none.shape == (0,)
