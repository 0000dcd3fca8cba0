"""sparse: KL from the head and the sketch alone builds no [B, C] target, and equals the dense form with that tail."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdcache.labels.reduction import reduce_topk
from kdcache.labels.soft_labels import Tail
from kdcache.labels.topk_labels import TopKLabels
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective
from kdcache.objectives.sparse import sparse_kl
from tests.kits.dense_tail import rebuilt
from tests.kits.encoding import labels_of
from tests.kits.labels import batch_of, real_student, shaped, value_and_gradient

ROWS, CLASSES = 6, 40
TAILS: tuple[Tail, ...] = ("uniform", "class-mean", "ghost", "none")
PER_ROW = torch.linspace(1.0, 9.0, ROWS, dtype=torch.float64)
EDGES = [(1, ()), (4, ()), (4, (0, 11)), (CLASSES - 1, ()), (CLASSES - 3, (3, 5)), (CLASSES, ()), (CLASSES - 2, (3, 5))]


def teacher_of(k: int, masked: tuple[int, ...] = (), classes: int = CLASSES, rows: int = ROWS) -> TopKLabels:
    """Unrounded top-k labels in f64, with class means."""
    z = 3 * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = reduce_topk(z, torch.full((rows, 1), -1), k, masked)
    means = torch.randn(classes, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return labels_of(kept, classes, masked, means)


def dense_rows(teacher: TopKLabels, log_q: Tensor, temperature: Any, tail: str) -> Tensor:
    """KL of whole rows; ghost: of k classes and one for the rest, summed up densely."""
    if tail != "ghost":
        log_p = rebuilt(teacher, tail).log_p(temperature)
        return torch.where(log_p.isfinite(), log_p.exp() * (log_p - log_q), 0.0).sum(dim=-1)
    whole = rebuilt(teacher, "uniform")
    p, q = whole.log_p(temperature).exp(), log_q.exp()
    head_p, head_q = p.gather(-1, teacher.classes), q.gather(-1, teacher.classes)
    rest_p, rest_q = ((each * whole.in_tail).sum(dim=-1, keepdim=True) for each in (p, q))
    p, q = torch.cat([head_p, rest_p], dim=-1), torch.cat([head_q, rest_q], dim=-1)
    return torch.where(p > 0, p * (p / q.clamp_min(1e-300)).log(), 0.0).sum(dim=-1)


def require_same_rows(teacher: TopKLabels, student: Tensor, temperature: Any, tail: Tail) -> None:
    column = temperature[:, None] if isinstance(temperature, Tensor) else temperature

    def total(rows: Any) -> Any:
        return lambda s: rows(teacher, torch.log_softmax(s / column, dim=-1), temperature, tail).sum()

    found, wanted = (value_and_gradient(total(rows), student) for rows in (sparse_kl, dense_rows))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_it_equals_the_dense_form(subtests: pytest.Subtests) -> None:
    """Value and gradient, for every tail, from one class to all; also with a temperature for each row."""
    generator = torch.Generator().manual_seed(3)
    for (k, masked), tail, temperature in product(EDGES, TAILS, [1.0, 1.7, 4.0, 9.0, PER_ROW]):
        with subtests.test(k=k, masked=masked, tail=tail, temperature=temperature):
            student = 3 * torch.randn(ROWS, CLASSES, dtype=torch.float64, generator=generator)
            require_same_rows(teacher_of(k, masked), student, temperature, tail)


def test_positions_of_a_sequence(subtests: pytest.Subtests) -> None:
    """[B, S, K] labels give the loss of their B S rows, by the sparse way and by the dense one (k near C)."""
    student, y = real_student(np.random.RandomState(0).normal(size=(ROWS, CLASSES))), torch.arange(ROWS)
    for (k, masked), tail in product([(3, (2,)), (CLASSES - 1, ())], TAILS):
        with subtests.test(k=k, tail=tail):
            teacher, loss = teacher_of(k, masked), Objective(KD(), tail=tail)
            flat = value_and_gradient(loss, student, batch_of(teacher, y=y))
            deep = value_and_gradient(
                loss, student.view(2, 3, CLASSES), batch_of(shaped(teacher, 2, 3), y=y.view(2, 3))
            )
            torch.testing.assert_close(deep[0], flat[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(deep[1].reshape(ROWS, CLASSES), flat[1], rtol=0, atol=1e-12)


class Allocations(TorchDispatchMode):
    """Counts tensors of `size` or more elements in new memory, and those among them that owe nothing to the student."""

    def __init__(self, size: int, student: Tensor) -> None:
        super().__init__()
        self.size, self.kept = size, [student]
        self.student = {student.untyped_storage()._cdata}
        self.memory = set(self.student)
        self.count, self.strangers = 0, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        ours = any(each.untyped_storage()._cdata in self.student for each in given)
        for each in tree_leaves(result):
            if not isinstance(each, Tensor):
                continue
            self.kept.append(each)  # memory that is kept is never handed out again under the same name
            memory = each.untyped_storage()._cdata
            large = each.numel() >= self.size
            if large and memory not in self.memory:
                self.count += 1
            if large and not ours and memory not in self.student:
                self.strangers.append(str(func))
            if ours:
                self.student.add(memory)
            self.memory.add(memory)
        return result


def forward(compute: Any, student: Tensor) -> tuple[Allocations, int]:
    """What the forward pass allocates, and how many tensors of the student's size wait for the backward pass."""
    leaf, waiting = student.clone().requires_grad_(), []

    def keep(tensor: Tensor) -> Tensor:
        waiting.append(tensor.untyped_storage()._cdata if tensor.numel() >= student.numel() else None)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Allocations(leaf.numel(), leaf) as seen:
        compute(leaf).backward()
    return seen, len({each for each in waiting if each})


@pytest.mark.parametrize("tail", ["uniform", "class-mean", "none"])
def test_no_dense_target_is_built(tail: Any) -> None:
    """At C = 32,000 the loss allocates in its forward pass what log_softmax does, saves what it saves, and no large
    tensor comes from anywhere but the student's."""
    rows, classes = 4, 32_000
    teacher = teacher_of(50, classes=classes, rows=rows).to()
    student = torch.randn(rows, classes)
    batch = batch_of(teacher, y=torch.zeros(rows, dtype=torch.int64))
    plain, plain_saved = forward(lambda s: torch.log_softmax(s / 4.0, dim=-1).sum(), student)
    loss, loss_saved = forward(lambda s: Objective(KD(), w_ce=0.0, w_kd=1.0, tail=tail)(s, batch), student)
    assert loss.strangers == plain.strangers
    assert loss_saved == plain_saved == 1
    dense, _ = forward(lambda s: dense_loss(s, batch, tail), student)
    assert len(dense.strangers) > len(plain.strangers), "the counter sees a dense target"


def dense_loss(student: Tensor, batch: Any, tail: Any) -> Tensor:
    target = batch.teachers[0].dense(4.0, tail=tail)
    return torch.nn.functional.kl_div(torch.log_softmax(student / 4.0, dim=-1), target, reduction="batchmean")


@pytest.mark.parametrize("tail", TAILS)
def test_f32_is_close_to_f64_at_many_classes(tail: Any) -> None:
    """Sums over the tail are differences of sums over all classes: they must not cancel."""
    teacher = teacher_of(50, classes=32_000)
    student = torch.randn(ROWS, 32_000, dtype=torch.float64)
    rows64 = sparse_kl(teacher, torch.log_softmax(student / 2.0, dim=-1), 2.0, tail)
    rows32 = sparse_kl(teacher.to(), torch.log_softmax(student.float() / 2.0, dim=-1), 2.0, tail)
    torch.testing.assert_close(rows32.double(), rows64, rtol=2e-5, atol=2e-5)
