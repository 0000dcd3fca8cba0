"""outputs: an objective takes a student's outputs or its logits alone; a term of one's own sees what it states."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import LOGIT_TERMS
from kdcache.objectives.facts import Facts
from kdcache.objectives.joined import Phases
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets
from tests.kits.labels import batch_of, full_labels, real_student, topk_labels, value_and_gradient
from tests.objectives.test_catalogue import CLASSES, ROWS, logits, made

Y = torch.arange(ROWS)


class OfOutputs:
    """An objective that is handed a student's logits as its outputs."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        loss: Tensor = self.objective(Outputs(logits), batch)
        return loss


def test_a_tensor_and_outputs_give_equal_bits(subtests: pytest.Subtests) -> None:
    teachers = {"full": full_labels(logits(), Y.numpy()), "topk": topk_labels(logits(), Y.numpy(), 5)}
    for name in LOGIT_TERMS:
        for encoding, teacher in teachers.items():
            with subtests.test(name, encoding=encoding):
                batch, student = batch_of(teacher, y=Y), real_student(logits())
                by_logits = value_and_gradient(made(name), student, batch)
                by_outputs = value_and_gradient(OfOutputs(made(name)), student, batch)
                assert torch.equal(by_logits[0], by_outputs[0])
                assert torch.equal(by_logits[1], by_outputs[1])


def test_phases_take_outputs_as_well() -> None:
    batch = batch_of(topk_labels(logits(), Y.numpy(), 5), y=Y, epoch=1, epochs=2)
    phases = Phases([(0, Objective(KD())), (1, Objective(KD(temperature=2.0)))])
    expected = Objective(KD(temperature=2.0))(real_student(logits()), batch)
    assert torch.equal(phases(Outputs(real_student(logits())), batch), expected)


@dataclass(frozen=True)
class ThroughHead:
    """KL(p || softmax(features @ head^T)): the student's features [B, D] answer through the teacher's classifier."""

    facts: ClassVar[Facts] = Facts(topk="exact", w_ce=0.0, w_kd=1.0, needs=("head",), sees=("features",), asks_at=())
    head: Tensor

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        assert outputs.features is not None
        return targets.kl_of_logits(outputs.features @ self.head.T, 1.0).mean()


def test_a_term_of_one_s_own_trains_on_features(subtests: pytest.Subtests) -> None:
    head = torch.randn(CLASSES, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    batch = batch_of(topk_labels(logits(), Y.numpy(), 5), y=Y)
    for combine in ("probabilities", "losses"):
        with subtests.test(combine):
            features = torch.zeros(ROWS, 4, dtype=torch.float64, requires_grad=True)
            objective = Objective(ThroughHead(head), combine=combine)
            losses = []
            for _ in range(20):
                loss = objective(Outputs(real_student(logits()), features), batch)
                (gradient,) = torch.autograd.grad(loss, features)
                with torch.no_grad():
                    features -= 0.5 * gradient
                losses.append(float(loss.detach()))
            assert losses[-1] < losses[0] - 0.01
            assert gradient.abs().sum() > 0


def test_a_term_that_sees_features_is_refused_without_them() -> None:
    objective = Objective(ThroughHead(torch.ones(CLASSES, 4)))
    batch = batch_of(topk_labels(logits(), Y.numpy(), 5), y=Y)
    message = r"ThroughHead needs the student's features and the outputs have none; .* Outputs\(logits, features=...\)"
    for answer in (real_student(logits()), Outputs(real_student(logits()))):
        with pytest.raises(InvalidInputError, match=message):
            objective(answer, batch)
