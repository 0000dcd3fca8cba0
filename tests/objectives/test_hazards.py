"""objectives: heavy class means in f32, masked classes under a ghost tail and KD-sim, steps whose weights are 0."""

import numpy as np
import pytest
import torch

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import reduce_topk
from kdcache.labels.soft_labels import Tail
from kdcache.labels.topk_labels import TopKLabels
from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.joined import Phases
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective
from kdcache.objectives.ramps import Ramp
from kdcache.objectives.sparse import ghost_pair, sparse_kl
from kdcache.objectives.targets import kl_rows
from tests.kits.encoding import labels_of as reduced_labels

ROWS, CLASSES = 64, 100


def labels_of(
    logits: torch.Tensor, k: int, masked: tuple[int, ...] = (), means: torch.Tensor | None = None
) -> TopKLabels:
    kept = reduce_topk(logits, torch.full((len(logits), 1), -1), k, masked)
    return reduced_labels(kept, logits.shape[-1], masked, means)


def batch_of(*teachers: TopKLabels, epoch: int = 0, epochs: int = 4, y: torch.Tensor | None = None) -> Batch:
    rows = len(teachers[0].classes)
    labels = torch.zeros(rows, dtype=torch.int64) if y is None else y
    return Batch(torch.empty(rows, 0), labels, None, None, torch.arange(rows), 0, epoch, 0, teachers, (), 2, epochs)


@pytest.mark.parametrize("height", [5.0, 20.0, 40.0, 120.0])
def test_classes_that_are_nearly_always_kept_do_not_drown_the_others(height: float) -> None:
    """Two classes lie far above the rest, and are in the head of most rows: their class means are as far above."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64)
    logits[:, :2] += 30.0
    logits[::10, 5] += 60.0  # now and then another class pushes one of them into the tail
    means = torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    means[:2] += height
    log_q = torch.log_softmax(torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64), dim=-1)
    exact = labels_of(logits, 2, means=means)
    wanted = kl_rows(exact.log_dense(1.0, tail="class-mean"), log_q)
    single = labels_of(logits.float(), 2, means=means.float())
    found = sparse_kl(single, log_q.float(), 1.0, "class-mean")
    assert bool(found.isfinite().all())
    assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-4)
    per_row = sparse_kl(single, log_q.float(), torch.ones(ROWS), "class-mean")
    assert torch.allclose(per_row.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [10, 30, 70, 98, 99])
@pytest.mark.parametrize("tail", ["uniform", "class-mean"])
def test_f32_stays_near_f64_however_few_classes_are_left(k: int, tail: Tail) -> None:
    generator = torch.Generator().manual_seed(2)
    logits, student = (4.0 * torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64) for _ in range(2))
    means = torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    log_q = torch.log_softmax(student, dim=-1)
    wanted = kl_rows(labels_of(logits, k, means=means).log_dense(2.0, tail=tail), log_q)
    found = sparse_kl(labels_of(logits.float(), k, means=means.float()), log_q.float(), 2.0, tail)
    assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_ghost_counts_what_the_student_gives_to_masked_classes() -> None:
    logits = torch.randn(ROWS, 12, generator=torch.Generator().manual_seed(1))
    teacher = labels_of(logits, 3, masked=(4, 7))
    student = torch.zeros(ROWS, 12)
    student[:, [4, 7]] = 5.0
    log_p, log_q = ghost_pair(teacher, torch.log_softmax(student, dim=-1), 1.0)
    assert torch.allclose(log_q.exp().sum(dim=-1), torch.ones(ROWS))
    assert torch.allclose(log_p.exp().sum(dim=-1), torch.ones(ROWS))
    losses = []
    for height in (0.0, 5.0):
        student[:, [4, 7]] = height
        losses.append(float(make_objective("skew-reverse-kl", tail="ghost")(student, batch_of(teacher))))
    assert 0 <= losses[0] < losses[1]


def test_kd_sim_asks_for_no_masked_class() -> None:
    teacher = labels_of(torch.randn(ROWS, 12), 3, masked=(4, 7))
    loss = make_objective("kd-sim", {"w_ce": 0.0, "w_kd": 1.0}, head=torch.randn(12, 5))
    student = torch.zeros(ROWS, 12, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(student, batch_of(teacher)), student)
    assert bool((gradient[:, [4, 7]] > 0).all())  # only the softmax pushes them, and down


def test_a_step_without_weight_trains_nothing_and_fails_nowhere() -> None:
    teacher = labels_of(torch.randn(ROWS, 12), 3)
    loss = Objective(KD(), w_ce=0.0, w_kd=0.0)
    student = torch.randn(ROWS, 12, requires_grad=True)
    loss(student, batch_of(teacher)).backward()
    assert student.grad is not None
    assert float(student.grad.abs().max()) == 0.0


@pytest.mark.parametrize("wrong", [{"w_ce": -1.0}, {"w_kd": float("nan")}, {"w_kd": float("inf")}])
def test_weights_are_finite_and_not_negative(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="give a finite number of 0 or more"):
        Objective(KD(), **wrong)  # type: ignore[arg-type]


def test_a_ramp_is_held_to_the_bounds_of_what_it_changes() -> None:
    with pytest.raises(InvalidInputError, match=r"jsd: beta over epochs is 1.0"):
        make_objective("jsd", over_epochs={"beta": Ramp(((0.0, 0.5), (1.0, 1.0)))})


def test_a_phase_counts_from_its_own_beginning() -> None:
    """DKD's warm-up begins where DKD does; TAID's teacher is half way in the middle of its phase."""
    teacher, student = labels_of(torch.randn(ROWS, 12), 3), torch.randn(ROWS, 12)
    dkd = make_objective("dkd", {"warmup_epochs": 4, "w_ce": 0.0})
    both = Phases([(0, Objective(KD())), (2, dkd)])
    y = torch.from_numpy(np.arange(ROWS) % 12)
    late, early = (batch_of(teacher, epoch=epoch, y=y) for epoch in (2, 0))
    assert torch.equal(both(student, late), dkd(student, early))
    taid = make_objective("taid")
    phases = Phases([(0, Objective(KD())), (2, taid)])
    for _ in range(2):
        phases(student, batch_of(teacher, epoch=3, epochs=4))
    assert float(taid.term.get_buffer("t")) == pytest.approx(0.7, abs=1e-3)  # type: ignore[attr-defined]
