"""Rows that are weighed: a weighted mean is the mean of the rows that count; terms without a loss a row refuse it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import BY_ROWS, LOGIT_TERMS, TERMS, make_objective, name_of
from kdcache.objectives.joined import objectives_in
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets, in_dtype
from tests.kits.labels import batch_of, full_labels, topk_labels

ROWS, CLASSES = 6, 9
RNG = np.random.RandomState(3)
TEACHER = RNG.normal(size=(ROWS, CLASSES)).astype(np.float32) * 2
STUDENT = torch.from_numpy(RNG.normal(size=(ROWS, CLASSES))).float()
Y = torch.tensor([0, 3, 8, 1, -1, 5])
COUNTING = torch.tensor([1.0, 0, 1, 1, 1, 0])


def batch(rows: torch.Tensor | None = None, **more: Any) -> Batch:
    """The batch, or these rows of it."""
    kept = torch.arange(ROWS) if rows is None else rows
    soft = topk_labels(TEACHER[kept.numpy()], Y[kept].numpy(), 4).to()
    return batch_of(soft, y=Y[kept], **more)


def objective(name: str) -> Any:
    head = torch.from_numpy(RNG.normal(size=(CLASSES, 5))).float() if name == "kd-sim" else None
    return make_objective(name, {"w_ce": 0.5, "w_kd": 1.0, **({"k": 3} if name == "kd-topk" else {})}, head=head)


def test_the_terms_that_can_be_weighed_are_the_sums_over_rows() -> None:
    assert set(LOGIT_TERMS) - set(BY_ROWS) == {"subclass", "dist", "mlld", "taid"}
    assert set(BY_ROWS) <= set(LOGIT_TERMS)
    assert all(not TERMS[name].facts.couples and not TERMS[name].facts.remembers for name in BY_ROWS)
    assert name_of(KD()) == "kd"


@pytest.mark.parametrize("name", BY_ROWS)
def test_weights_of_0_and_1_give_the_mean_over_the_rows_that_count(name: str) -> None:
    loss, kept = objective(name), COUNTING.nonzero()[:, 0]
    whole, part = STUDENT.clone().requires_grad_(), STUDENT[kept].requires_grad_()
    weighed, expected = loss(whole, batch(weight=COUNTING)), loss(part, batch(kept))
    assert torch.allclose(weighed, expected, rtol=1e-5)
    (gradient,), (expected_gradient,) = torch.autograd.grad(weighed, whole), torch.autograd.grad(expected, part)
    assert torch.allclose(gradient[kept], expected_gradient, atol=1e-6)
    assert not gradient[COUNTING == 0].any()
    assert torch.allclose(loss(STUDENT, batch(weight=torch.full((ROWS,), 3.0))), loss(STUDENT, batch()), rtol=1e-5)
    assert loss(STUDENT, batch(weight=torch.zeros(ROWS))).item() == 0.0


@pytest.mark.parametrize("name", ["dist", "mlld", "taid"])
def test_a_term_whose_rows_meet_or_that_remembers_refuses_weights_by_name(name: str) -> None:
    loss = objective(name)
    (part,) = objectives_in(loss)
    with pytest.raises(InvalidInputError, match=f"weighed, and {type(part.term).__name__} has no loss of each row"):
        loss(STUDENT, batch(weight=COUNTING))


def test_a_batch_takes_its_weights_along() -> None:
    weighed = batch(weight=COUNTING)
    assert "weighed" in repr(weighed)
    assert weighed.to("meta").weight.device.type == "meta"  # type: ignore[union-attr]


def test_trust_weighs_hard_labels_against_the_teacher_by_class() -> None:
    trust = np.linspace(0, 1, CLASSES)
    shares = torch.tensor([trust[y] if y >= 0 else 1.0 for y in Y.tolist()]).float()
    hard = F.cross_entropy(STUDENT, Y.clamp_min(0), reduction="none") * (Y >= 0)
    for soft in (full_labels(TEACHER, Y.numpy()).to(), topk_labels(TEACHER, Y.numpy(), 4).to()):
        taught = batch_of(soft, y=Y)
        rows = torch.stack([KD()(Outputs(STUDENT[[n]]), _targets(soft, n), taught) for n in range(ROWS)])
        loss = Objective(KD(), trust=trust.tolist())
        expected = (1 - shares) * hard + shares * rows
        assert torch.allclose(loss(STUDENT, taught), expected.mean(), rtol=1e-5)
        weighed = loss(STUDENT, replace(taught, weight=COUNTING))
        assert torch.allclose(weighed, (COUNTING * expected).sum() / COUNTING.sum(), rtol=1e-5)
        assert loss.state_dict() == {}


def _targets(soft: Any, row: int) -> Targets:
    return Targets((in_dtype(soft.take(torch.tensor([row])), torch.float32),))


def test_trust_is_refused_where_it_means_nothing() -> None:
    for name in ("dist", "label-smoothing"):
        with pytest.raises(InvalidInputError, match="takes no trust by class"):
            make_objective(name, trust=(0.5,) * CLASSES)
    with pytest.raises(InvalidInputError, match=r"trust by class weighs one objective, and kd\+dkd is 2"):
        make_objective("kd+dkd", trust=(0.5,) * CLASSES)
    mixed = batch_of(topk_labels(TEACHER, Y.numpy(), 4).to(), y=Y, y2=Y.flip(0), lam=torch.ones(ROWS))
    with pytest.raises(InvalidInputError, match="rows with one label, and the batch is mixed"):
        Objective(KD(), trust=(0.5,) * CLASSES)(STUDENT, mixed)
