"""Draws are unbiased: over many of them KD's loss and gradient are those of all logits, by z-scores.

Rows are photographs' under an ImageNet teacher, ids those that a store gives back. A z-score is the mean over sets of
draws less the exact value, by the standard error of that mean; of a gradient its projections on fixed directions count.

Shape letters: D sets of draws, B rows, C classes, P directions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from kdcache.labels.encoding import LabelSpace
from kdcache.labels.sampled import SampledEncoding, probabilities
from kdcache.labels.sampled_labels import SampledLabels
from kdcache.objectives.catalogue import make_objective
from kdcache.store.plan import draw_words
from tests.kits.labels import batch_of, real_student, value_and_gradient

Array = npt.NDArray[Any]

ROWS, DRAWS, SETS, DIRECTIONS = 12, 20, 400, 24
BOUND = 4.0


def sets_of_draws(logits: Array, temperature: float) -> list[SampledLabels]:
    """What stores of one teacher hold of the same rows in so many views: their words alone differ."""
    encoding, space = SampledEncoding(draws=DRAWS, draw_temperature=temperature), LabelSpace(logits.shape[1])
    labels = logits.argmax(axis=1)[:, None]
    decoded = []
    for view in range(SETS):
        words = draw_words(11, np.arange(len(logits)), view)
        fields = encoding.reduce(logits, labels, space) | encoding.draw(logits, words, space)
        arrays = encoding.encode({name: values[None] for name, values in fields.items()}, space).arrays
        decoded.append(encoding.decode({name: values[0] for name, values in arrays.items()}, space).to())
    return decoded


def exact(logits: Array, student: Tensor, temperature: float, factor: float, tau: float) -> tuple[Tensor, Tensor]:
    """factor times the cross-entropy of softmax(student / tau) against p_T, mean over rows, and its gradient [B, C]."""
    p = torch.from_numpy(probabilities(logits, temperature))
    log_q = torch.log_softmax(student / tau, dim=-1)
    value = -factor * (p * log_q).sum(dim=-1).mean()
    return value, factor * (log_q.exp() - p) / tau / len(student)


def z_scores(values: Tensor, mean: Tensor) -> Tensor:
    """Of values [D, ...] whose expectation is said to be `mean`."""
    return (values.mean(dim=0) - mean) / (values.std(dim=0) / len(values) ** 0.5)


CASES = {"kd": (4.0, 16.0, 4.0), "kd at T = 1": (1.0, 1.0, 1.0), "function-matching": (1.0, 1.0, 1.0),
         "ttm": (2.0, 1.0, 1.0)}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_unbiased_on_photographs(real_logits: Array, name: str) -> None:
    temperature, factor, tau = CASES[name]
    logits = real_logits[:ROWS]
    student = real_student(logits)
    objective = make_objective(name.split()[0], {"temperature": temperature, "w_ce": 0.0, "w_kd": 1.0})
    y = torch.full((ROWS,), -1)
    results = [value_and_gradient(objective, student, batch_of(soft, y=y))
               for soft in sets_of_draws(logits, temperature)]  # fmt: skip
    values = torch.stack([value for value, _ in results])
    gradients_DBC = torch.stack([gradient for _, gradient in results])
    value, gradient_BC = exact(logits, student, temperature, factor, tau)
    assert abs(float(z_scores(values, value))) < BOUND
    generator = torch.Generator().manual_seed(5)
    directions_PBC = torch.randn(DIRECTIONS, *gradient_BC.shape, generator=generator, dtype=torch.float64)
    features_BE = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64)  # of a student's linear head
    tops_BC = torch.nn.functional.one_hot(torch.from_numpy(logits.argmax(axis=1)), logits.shape[1]).double()
    projections: dict[str, Callable[[Tensor], Tensor]] = {
        "directions": lambda g: torch.einsum("...bc,pbc->...p", g, directions_PBC),
        "a head's weights": lambda g: torch.einsum("...bc,be,c->...e", g, features_BE, directions_PBC[0, 0]),
        "the best class": lambda g: (g * tops_BC).sum(dim=-1),
        "the student's logits": lambda g: (g * student).sum(dim=(-1, -2)),
    }
    for projected in projections.values():
        z = z_scores(projected(gradients_DBC), projected(gradient_BC))
        assert float(z.abs().max()) < BOUND
    z = z_scores(projections["directions"](gradients_DBC), projections["directions"](gradient_BC))
    assert 0.4 < float(z.square().mean()) < 2.0  # as z-scores are: the bound is neither loose nor lucky
    _, wrong_BC = exact(logits, student, 1.25 * temperature, factor, tau)
    z = z_scores(projections["the best class"](gradients_DBC), projections["the best class"](wrong_BC))
    assert float(z.abs().max()) > BOUND  # a temperature that is a quarter off is seen


def test_ids_are_drawn_as_often_as_the_teacher_finds_them_likely(real_logits: Array) -> None:
    """Counts of each row's ten best classes over all sets are binomial."""
    logits = real_logits[:ROWS]
    p = probabilities(logits, 2.0)
    best = np.argsort(-p, axis=1)[:, :10]
    counts = np.zeros_like(p)
    for soft in sets_of_draws(logits, 2.0):
        assert (soft.counts.sum(dim=-1) == DRAWS).all()
        np.add.at(counts, (np.arange(ROWS)[:, None], soft.draws.numpy()), soft.counts.numpy())
    total = SETS * DRAWS
    shares = np.take_along_axis(p, best, axis=1)
    z = (np.take_along_axis(counts, best, axis=1) - total * shares) / np.sqrt(total * shares * (1 - shares))
    assert np.abs(z).max() < BOUND
    assert 0.6 < np.square(z).mean() < 1.6


def test_the_label_s_probability_is_stored_to_1_64(real_logits: Array) -> None:
    """So kd-pt, which asks for no other, has on draws the loss that it has on all logits, but for that step."""
    logits = real_logits[:ROWS]
    y = torch.from_numpy(logits.argmax(axis=1))
    soft = sets_of_draws(logits, 4.0)[0]
    student = real_student(logits)
    objective = make_objective("kd-pt", {"temperature": 4.0, "w_ce": 0.0, "w_kd": 1.0})
    value, gradient = value_and_gradient(objective, student, batch_of(soft, y=y))
    p_y = torch.from_numpy(probabilities(logits, 4.0)).gather(1, y[:, None])
    p = ((1 - p_y) / 999).expand(-1, 1000).scatter(1, y[:, None], p_y)
    log_q = torch.log_softmax(student / 4.0, dim=-1)
    assert float(value) == pytest.approx(16 * float((p * (p.log() - log_q)).sum(dim=-1).mean()), rel=0.02)
    wanted = 16 * (log_q.exp() - p) / 4.0 / ROWS
    assert float((gradient - wanted).norm() / wanted.norm()) < 0.02
