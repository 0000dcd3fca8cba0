"""outputs: an objective takes a student's outputs or its logits alone, and terms are given all of them."""

import pytest
import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import TERMS
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective, Phases
from kdcache.objectives.outputs import Outputs
from tests.kits.labels import batch_of, full_labels, real_student, topk_labels, value_and_gradient
from tests.objectives.test_catalogue import ROWS, logits, made

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
    for name in TERMS:
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
