"""Selection by reward: the policy's gradient, what it remembers, and that it turns off a term that harms."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.facts import Facts
from kdcache.objectives.joined import Joint
from kdcache.objectives.objective import Objective
from kdcache.objectives.selection import RATE, Selection, policy_gradient
from tests.kits.labels import batch_of, full_labels, real_student

OWN_FACTS = Facts(topk="exact", teacher=False, w_ce=0.0, w_kd=1.0)


def test_the_policy_s_gradient_is_that_of_the_log_probability_of_what_was_chosen() -> None:
    preferences, chosen = np.array([0.3, -1.2, 2.0]), np.array([True, False, True])
    variable = torch.tensor(preferences, requires_grad=True)
    log_p = torch.distributions.Bernoulli(logits=variable).log_prob(torch.tensor(chosen, dtype=torch.float64)).sum()
    (0.7 * log_p).backward()
    assert np.allclose(policy_gradient(preferences, chosen, 0.7), variable.grad.numpy(), atol=1e-12)


def test_three_rewards_move_the_policy_as_computed_by_hand() -> None:
    policy = Selection(("a", "b"), rate=0.5)
    policy.chosen = np.array([True, False])
    policy.learn(1.0)  # the baseline, and nothing else
    assert policy.preferences.tolist() == [0.0, 0.0]
    policy.learn(3.0)  # advantage 2, spread 2: 1 x (a - 1/2), by half
    assert policy.preferences.tolist() == [0.25, -0.25]
    policy.chosen = np.array([True, True])
    policy.learn(0.2)  # baseline 1 + .1 x 2 = 1.2: advantage -1, spread 2 - .1 x (2 - 1) = 1.9
    p = 1 / (1 + math.exp(-0.25))
    assert policy.preferences == pytest.approx([0.25 - 0.5 / 1.9 * (1 - p), -0.25 - 0.5 / 1.9 * p])
    for _ in range(200):
        policy.learn(-10.0 - abs(policy.baseline or 0) * 2)
    assert policy.preferences.min() >= -3
    assert 0.04 < policy.probabilities.min() < 0.05


def test_a_choice_holds_for_its_steps_and_is_counted() -> None:
    policy, asked = Selection(("a", "b", "c"), steps=4, seed=5), []

    def loss() -> float:
        asked.append(policy.steps_done)
        return 1.0 / len(asked)

    chosen = []
    for _ in range(20):
        policy.begin_step(loss)
        chosen.append(policy.chosen.copy())
    assert asked == [0, 4, 8, 12, 16]
    assert all((chosen[step] == chosen[step - step % 4]).all() for step in range(20))
    assert policy.take_shares() == dict(zip("abc", np.mean(chosen, axis=0), strict=True))
    assert policy.take_shares() == {"a": 0.0, "b": 0.0, "c": 0.0}


@pytest.mark.parametrize("stop", [1, 7, 8])
def test_a_policy_goes_on_from_its_state_as_if_it_had_not_stopped(stop: int) -> None:
    def run(policy: Selection, steps: range) -> list[list[bool]]:
        chosen = []
        for step in steps:
            policy.begin_step(lambda step=step: math.cos(step))
            chosen.append(policy.chosen.tolist())
        return chosen

    whole, first, second = (Selection(("a", "b"), steps=2, seed=3) for _ in range(3))
    expected = run(whole, range(30))
    begun = run(first, range(stop))
    second.load_state_dict(first.state_dict())
    assert begun + run(second, range(stop, 30)) == expected
    assert second.get_extra_state() == whole.get_extra_state()
    assert expected != run(Selection(("a", "b"), steps=2, seed=4), range(30))


def test_at_rate_0_terms_are_on_half_of_the_time_whatever_the_reward() -> None:
    policy = Selection(("a", "b"), steps=1, rate=0.0)
    for step in range(2000):
        policy.begin_step(lambda step=step: math.sin(step))
    assert policy.probabilities.tolist() == [0.5, 0.5]
    assert all(0.45 < share < 0.55 for share in policy.take_shares().values())


def test_rewards_of_noise_alone_decide_no_term() -> None:
    for seed in range(20):
        noise, policy = np.random.default_rng(seed), Selection(("a", "b", "c"), steps=1, seed=seed)
        for loss in np.cumsum(noise.normal(size=125)).tolist():
            policy.begin_step(lambda loss=loss: loss)
        assert policy.probabilities.min() > 0.1
        assert policy.probabilities.max() < 0.9


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="held-out rows that terms are selected by is nan; lower the learning"):
        Selection(("a", "b")).begin_step(lambda: float("nan"))


def test_a_term_that_is_off_adds_nothing_and_the_hard_labels_stay() -> None:
    z, y = np.random.RandomState(0).normal(0, 3, (6, 5)).astype(np.float32), torch.arange(6) % 5
    student, batch = real_student(z), batch_of(full_labels(z, y.numpy()), y=y)
    both = make_objective("kd+dkd", {"kd.w_ce": 0.3, "kd.w_kd": 0.7, "dkd.w_kd": 2.0})
    assert isinstance(both, Joint)
    first, second = (float(part(student, batch)) for part in both.parts)
    hard = 0.3 * float(F.cross_entropy(student.double(), y))
    assert float(both(student, batch)) == pytest.approx(first + second)
    both.selection = Selection(("kd", "dkd"))
    for chosen, expected in [((1, 1), first + second), ((1, 0), first), ((0, 1), hard + second), ((0, 0), hard)]:
        both.selection.chosen = np.array(chosen, dtype=bool)
        assert float(both(student, batch)) == pytest.approx(expected, rel=1e-5)


@dataclass(frozen=True)
class Labels:
    """Cross-entropy with the labels, or with those of the next class."""

    shift: int
    facts: ClassVar[Facts] = OWN_FACTS

    def __call__(self, outputs: Any, targets: Any, batch: Any) -> Tensor:
        return F.cross_entropy(outputs.logits, (batch.y + self.shift) % 3)


def shares_of(seed: int, *, rate: float = RATE) -> dict[str, float]:
    """The shares of the last 600 of 800 steps in which a term that helps and one that harms were on."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(1000, 4, generator=generator)
    y = (inputs @ torch.randn(4, 3, generator=generator)).argmax(1)
    network = nn.Linear(4, 3)
    nn.init.zeros_(network.weight)
    objective = Joint(
        [Objective(Labels(0), w_ce=0.2), Objective(Labels(1))],
        policy := Selection(("helps", "harms"), steps=5, rate=rate, seed=seed),
    )
    optimiser = torch.optim.SGD(network.parameters(), lr=0.2)
    for step in range(800):
        if step == 200:
            policy.take_shares()
        policy.begin_step(lambda: float(F.cross_entropy(network(inputs[500:]), y[500:]).detach()))
        rows = torch.randint(0, 500, (32,), generator=generator)
        optimiser.zero_grad()
        objective(
            network(inputs[rows]), batch_of(full_labels(np.zeros((32, 3), np.float32), y[rows].numpy()), y=y[rows])
        ).backward()
        optimiser.step()
    return policy.take_shares()


@pytest.mark.parametrize("seed", range(6))
def test_a_term_that_harms_is_turned_off_more_often_than_on(seed: int) -> None:
    shares = shares_of(seed)
    assert shares["harms"] < 0.35
    assert shares["helps"] > 0.6
