"""objectives that learn, remember or change over a training: CTKD, TAID, ramps, phases; and the hard labels beside."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.hard import hard_cross_entropy
from kdcache.objectives.joined import Phases
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective
from kdcache.objectives.ramps import Ramp
from tests.kits.dense_reference import REFERENCES
from tests.kits.dense_teacher import Case, Dense
from tests.kits.labels import batch_of, full_labels, real_student, require_equal, topk_labels, value_and_gradient

ROWS, CLASSES = 6, 30
Z = np.random.RandomState(0).normal(0, 3, (ROWS, CLASSES)).astype(np.float32)
Y = torch.arange(ROWS)
STUDENT = real_student(Z)


def batch(**more: Any) -> Any:
    return batch_of(full_labels(Z, Y.numpy()), y=Y, **more)


def loss_at(theta: float, teacher: Any, tail: Any) -> float:
    loss = make_objective("ctkd", {"w_ce": 0.0, "w_kd": 1.0}, tail=tail).double()
    with torch.no_grad():
        loss.term.theta.fill_(theta)
        return float(loss(STUDENT, batch_of(teacher, y=Y)))


@pytest.mark.parametrize(
    ("k", "tail"),
    [(None, "uniform")] + [(k, tail) for k in (4, 20) for tail in ("uniform", "class-mean", "ghost", "none")],
)
def test_ctkd_climbs_in_theta_while_the_student_descends(k: int | None, tail: Any) -> None:
    """The gradient of theta is that of the loss, by finite differences, times -lambda: Li et al. 2023."""
    teacher = full_labels(Z, Y.numpy()) if k is None else topk_labels(Z, Y.numpy(), k)
    for epoch, loops in [(0, 10.0), (4, 10.0), (9, 10.0), (50, 10.0), (0, 0.0)]:
        strength = 0.5 * (1 - math.cos(math.pi * min((epoch + 1) / loops, 1.0))) if loops else 1.0
        loss = make_objective("ctkd", {"loops": loops, "w_ce": 0.0, "w_kd": 1.0}, tail=tail).double()
        value_and_gradient(loss, STUDENT, batch_of(teacher, y=Y, epoch=epoch))
        slope = (loss_at(1 + 1e-5, teacher, tail) - loss_at(1 - 1e-5, teacher, tail)) / 2e-5
        assert float(loss.term.theta.grad) == pytest.approx(-strength * slope, rel=1e-5)


def test_ctkd_begins_at_theta_one_and_is_trained_with_the_student() -> None:
    loss = make_objective("ctkd", {"span": 20.0})
    assert loss.term.temperature.item() == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    assert [name for name, _ in loss.named_parameters()] == ["term.theta"]
    optimiser = torch.optim.SGD(loss.parameters(), lr=0.1)
    before = loss_at(1.0, full_labels(Z, Y.numpy()), "uniform")
    loss(STUDENT, batch(epoch=20)).backward()
    optimiser.step()
    assert loss_at(loss.term.theta.item(), full_labels(Z, Y.numpy()), "uniform") > before


def taid_by_hand(
    losses: list[float], progress: list[float], start: float, end: float, alpha: float, beta: float
) -> Any:
    """t before each step, in plain numbers. Shing et al. 2025, section 3.3, with the first step of their code: it only
    remembers the loss."""
    t, momentum, last, seen = start, 0.0, None, []
    for loss, done in zip(losses, progress, strict=True):
        seen.append(t)
        if last is not None:
            momentum = beta * momentum + (1 - beta) * (last - loss) / (last + 1e-15)
            step = alpha / (1 + math.exp(-momentum)) * (1 - t)
            t = min(end, max(start + (end - start) * done, t + step))
        last = loss
    return seen, t, momentum


@pytest.mark.parametrize(
    "settings", [{}, {"t_start": 0.1, "t_end": 0.8, "alpha": 0.05, "beta": 0.9}, {"alpha": 0.5, "beta": 0.5}]
)
def test_taid_moves_by_its_rule(settings: dict[str, float]) -> None:
    loss, losses, found, progress = make_objective("taid", settings), [], [], []
    for step in range(50):
        found.append(float(loss.term.t))
        student = STUDENT * (1 + step / 50) + 0.3 * torch.randn(STUDENT.shape, dtype=torch.float64)
        now = batch(epoch=step // 10, step=step % 10, steps=10, epochs=5)
        case = Case(y=Y, settings={"t_start": float(loss.term.t)})
        wanted = REFERENCES["taid"](student, Dense(now.teachers[0].logits.double()), case)
        value = loss(student, now)
        assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
        losses.append(value.item())
        progress.append(step / 50)
    given = {"t_start": 0.4, "t_end": 1.0, "alpha": 5e-4, "beta": 0.99} | settings
    seen, last, momentum = taid_by_hand(losses, progress, *given.values())
    assert found == pytest.approx(seen, rel=1e-5)
    assert float(loss.term.t) == pytest.approx(last, rel=1e-5)
    assert float(loss.term.momentum) == pytest.approx(momentum, rel=1e-3, abs=1e-6)
    assert found == sorted(found)


@pytest.mark.parametrize("name", ["taid", "ctkd"])
def test_state_restored_into_a_fresh_objective_continues_exactly(name: str) -> None:
    def steps(loss: Any, first: int, count: int) -> list[float]:
        rates = torch.optim.SGD(loss.parameters(), lr=0.01) if name == "ctkd" else None
        values = []
        for step in range(first, first + count):
            value = loss(STUDENT.float().requires_grad_() * (1 + step), batch(epoch=step, epochs=12))
            value.backward()
            if rates:
                rates.step()
                rates.zero_grad()
            values.append(value.item())
        return values

    whole, first = make_objective(name), make_objective(name)
    expected = steps(whole, 0, 12)
    assert steps(first, 0, 6) == expected[:6]
    second = make_objective(name)
    second.load_state_dict(first.state_dict())
    assert steps(second, 6, 6) == expected[6:]
    assert expected != steps(make_objective(name), 6, 6)


def test_dkd_warms_up_over_its_first_epochs() -> None:
    values = [
        float(make_objective("dkd", {"w_ce": 0.0, "w_kd": 1.0})(STUDENT, batch(epoch=epoch)))
        for epoch in (0, 9, 19, 40)
    ]
    assert [value / values[-1] for value in values] == pytest.approx([1 / 20, 10 / 20, 1.0, 1.0])


def test_a_ramp_is_piecewise_linear() -> None:
    ramp = Ramp.parse("2:1,4:3,4:10,6:0", "w_kd")
    found = [ramp(time) for time in (0.0, 2.0, 3.0, 3.5, 4.0, 5.0, 6.0, 9.0)]
    assert found == [1.0, 1.0, 2.0, 2.5, 10.0, 5.0, 0.0, 0.0]
    with pytest.raises(InvalidInputError, match="w_kd 'x' is not a ramp"):
        Ramp.parse("x", "w_kd")
    with pytest.raises(InvalidInputError, match="epochs must not fall"):
        Ramp.parse("3:1,2:0", "w_kd")


def test_ramps_change_weights_and_numbers_of_the_term() -> None:
    ramps = {"w_ce": Ramp.parse("0:0,2:1", "w_ce"), "temperature": Ramp.parse("0:1,2:5", "temperature")}
    loss = Objective(KD(), w_ce=9.0, w_kd=0.5, over_epochs=ramps)
    found = value_and_gradient(loss, STUDENT, batch(epoch=1, step=5, steps=10))
    fixed = Objective(KD(temperature=4.0), w_ce=0.75, w_kd=0.5)
    require_equal(found, value_and_gradient(fixed, STUDENT, batch()))


@pytest.mark.parametrize(("name", "ramp"), [("kd", "k"), ("kd-topk", "k"), ("ctkd", "span"), ("kd", "beta")])
def test_what_cannot_change_over_epochs_is_refused(name: str, ramp: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"has no {ramp} to change over epochs; it has w_ce, w_kd"):
        make_objective(name, over_epochs={ramp: Ramp(((0.0, 1.0),))})


def test_phases_switch_between_losses() -> None:
    """ESKD (Cho & Hariharan 2019): KD first, hard labels alone from epoch 3 on."""
    first, second = Objective(KD()), Objective(KD(), w_ce=1.0, w_kd=0.0)
    both = Phases([(0, first), (3, second)])
    for epoch, holds in [(0, first), (2, first), (3, second), (7, second)]:
        require_equal(
            value_and_gradient(both, STUDENT, batch(epoch=epoch)),
            value_and_gradient(holds, STUDENT, batch(epoch=epoch)),
        )
    for starts in ([1], [0, 2, 2], [0, 3, 1]):
        with pytest.raises(InvalidInputError, match="phases begin at epochs"):
            Phases([(start, first) for start in starts])


def test_the_weights_add_up() -> None:
    hard, soft = Objective(KD(), w_ce=1.0, w_kd=0.0), Objective(KD(), w_ce=0.0, w_kd=1.0)
    both = Objective(KD(), w_ce=0.3, w_kd=2.0)(STUDENT, batch())
    assert torch.allclose(both, 0.3 * hard(STUDENT, batch()) + 2.0 * soft(STUDENT, batch()))
    assert torch.allclose(hard(STUDENT, batch()), F.cross_entropy(STUDENT, Y))
    assert float(Objective(KD(), w_ce=0.0, w_kd=0.0)(STUDENT, batch())) == 0.0


def test_mixed_hard_labels_are_weighed_by_lambda() -> None:
    y2, lam = Y.flip(0), torch.linspace(0, 1, ROWS)
    targets = lam[:, None] * F.one_hot(Y, CLASSES) + (1 - lam)[:, None] * F.one_hot(y2, CLASSES)
    mixed = hard_cross_entropy(STUDENT, batch_of(y=Y, y2=y2, lam=lam))
    assert torch.allclose(mixed, F.cross_entropy(STUDENT, targets.double()), atol=1e-7)
    ones = batch_of(y=Y, y2=y2, lam=torch.ones(ROWS))
    assert torch.allclose(hard_cross_entropy(STUDENT, ones), F.cross_entropy(STUDENT, Y))


def test_rows_without_a_label_count_as_zero() -> None:
    y = torch.where(torch.arange(ROWS) < 2, Y, -1)
    loss, gradient = value_and_gradient(hard_cross_entropy, STUDENT, batch_of(y=y))
    assert torch.allclose(loss, F.cross_entropy(STUDENT[:2], y[:2], reduction="sum") / ROWS)
    assert float(gradient[2:].abs().max()) == 0.0
    nobody = torch.full((ROWS,), -1)
    assert float(hard_cross_entropy(STUDENT, batch_of(y=nobody, y2=nobody, lam=torch.ones(ROWS)))) == 0.0
