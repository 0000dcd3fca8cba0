"""optimisation: what is decayed and what is not, and the learning rate of every step."""

from math import cos, pi

import pytest
import torch
from torch import nn

from kdcache.networks.small import convnet
from kdcache.training.optimisers import build_optimizer, rate_schedule


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_biases_and_norms_are_not_decayed(name: str, kind: type[torch.optim.Optimizer]) -> None:
    network = convnet(width=4, depth=1)
    network[0].weight.requires_grad_(False)
    optimizer = build_optimizer(network, name, lr=0.3, momentum=0.9, weight_decay=0.01)
    assert isinstance(optimizer, kind)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == sum(1 for p in network.parameters() if p.requires_grad)
    for p in network.parameters():
        if p.requires_grad:
            assert decay[id(p)] == (0.01 if p.ndim > 1 else 0.0)
    assert all(group["lr"] == 0.3 for group in optimizer.param_groups)


def test_sgd_is_nesterov_where_there_is_momentum() -> None:
    for momentum in (0.0, 0.9):
        optimizer = build_optimizer(nn.Linear(3, 2), "sgd", lr=0.1, momentum=momentum, weight_decay=0.0)
        assert {(group["momentum"], group["nesterov"]) for group in optimizer.param_groups} == {
            (momentum, momentum > 0)
        }


def test_a_network_without_a_kind_of_parameter() -> None:
    assert len(build_optimizer(nn.Linear(3, 2, bias=False), "sgd", lr=1, momentum=0, weight_decay=0).param_groups) == 1
    assert len(build_optimizer(nn.BatchNorm1d(3), "adamw", lr=1, momentum=0, weight_decay=0).param_groups) == 1


def test_cosine_warms_up_to_the_peak_and_ends_at_zero() -> None:
    rate = rate_schedule("cosine", steps=100, warmup=10, milestones=(), factor=0.1)
    assert [rate(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rate(10) == 1.0
    assert rate(55) == pytest.approx(0.5)
    assert rate(99) == pytest.approx(0.5 * (1 + cos(pi * 89 / 90)))
    assert rate(100) == pytest.approx(0.0)
    rates = [rate(step) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


def test_steps_lower_the_rate_at_each_milestone() -> None:
    rate = rate_schedule("step", steps=10, warmup=0, milestones=(3, 6), factor=0.1)
    assert [rate(step) for step in (0, 2, 3, 5, 6, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_schedules_without_room_stay_finite(name: str) -> None:
    for steps, warmup in [(0, 0), (1, 0), (1, 1), (2, 5)]:
        rate = rate_schedule(name, steps=steps, warmup=warmup, milestones=(), factor=0.1)
        assert all(0 <= rate(step) <= 1 for step in range(steps + 1))
    assert rate_schedule("constant", steps=9, warmup=0, milestones=(), factor=0.1)(8) == 1.0
