"""Texts before objectives: tokens that do not count have no part in any loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import LOGIT_TERMS, make_objective
from kdcache.objectives.joined import Joint
from kdcache.training.metrics import Validation
from tests.kits.labels import batch_of, real_student, require_equal, shaped, topk_labels, value_and_gradient
from tests.objectives.test_full import CLASSES, HEAD, logits

TEXTS, SEQUENCE = 3, 4
ROWS = TEXTS * SEQUENCE
MASK = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 1]], dtype=torch.bool)


def of_texts() -> tuple[Batch, Batch, Tensor]:
    """A batch of texts, the batch of their rows that count, and a student's logits [B, S, C]."""
    hard = np.arange(ROWS) * 7 % CLASSES
    z = logits(rows=ROWS)
    soft = topk_labels(z, hard, 5)
    y, rows = torch.from_numpy(hard), MASK.flatten().nonzero()[:, 0]
    batch = batch_of(shaped(soft.to(), TEXTS, SEQUENCE), y=torch.where(MASK, y.view(TEXTS, SEQUENCE), -1))
    batch = replace(batch, mask=MASK, positions=torch.arange(ROWS).view(TEXTS, SEQUENCE))
    return batch, batch_of(soft.to().take(rows), y=y[rows]), real_student(z).view(TEXTS, SEQUENCE, CLASSES)


def test_every_logit_objective_is_that_of_the_tokens_that_count(subtests: pytest.Subtests) -> None:
    batch, rows, student = of_texts()
    for name in LOGIT_TERMS:
        with subtests.test(name):
            head = {"head": HEAD} if name == "kd-sim" else {}
            value, gradient = value_and_gradient(make_objective(name, **head), student, batch)
            only = student.flatten(0, 1)[MASK.flatten()]
            expected, some = value_and_gradient(make_objective(name, **head), only, rows)
            whole = torch.zeros_like(gradient)
            whole[MASK] = some
            require_equal((value, gradient), (expected, whole))


def test_the_parts_of_a_sum_too() -> None:
    batch, rows, student = of_texts()
    joint = Joint([make_objective("kd"), make_objective("dist", {"w_ce": 0.0})])
    assert torch.equal(joint(student, batch), joint(student.flatten(0, 1)[MASK.flatten()], rows))


def test_texts_of_which_nothing_counts_have_no_loss() -> None:
    batch, _, student = of_texts()
    nothing = replace(batch, mask=torch.zeros_like(MASK), y=torch.full_like(batch.y, -1))
    student.requires_grad_()
    loss = make_objective("kd")(student, nothing)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_measures_count_tokens_and_their_bytes() -> None:
    batch, rows, student = of_texts()
    of_tokens, of_rows = Validation(token_bytes=np.arange(CLASSES)), Validation()
    of_tokens.update(student.float(), batch)
    of_rows.update(student.flatten(0, 1)[MASK.flatten()].float(), rows)
    measures, expected = of_tokens.results(), of_rows.results()
    nats, count = expected["nll"], int(MASK.sum())
    perplexity, bits = np.exp(nats), nats * count / np.log(2) / int(rows.y.sum())
    assert measures == pytest.approx(expected | {"perplexity": perplexity, "bits_a_byte": bits})
    unknown = Validation()
    unknown.update(student.float(), batch)
    assert set(measures) - set(unknown.results()) == {"bits_a_byte"}
