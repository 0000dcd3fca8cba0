"""cost: parameters and multiply-accumulates."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdcache.errors import InvalidInputError
from kdcache.measures.cost import cost
from kdcache.networks.small import convnet


def test_by_hand() -> None:
    """A 3 x 3 convolution from 2 to 4 channels on 8 x 8 with padding, and a linear layer from 256 to 10."""
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    network[0].requires_grad_(False)
    value = cost(network, torch.zeros(3, 2, 8, 8))
    assert value.parameters == 4 * 2 * 9 + 256 * 10 + 10
    assert value.trainable == 256 * 10 + 10
    assert value.macs == 8 * 8 * 4 * 2 * 9 + 256 * 10  # a row's, whatever the rows of the example
    assert value == cost(network, torch.zeros(1, 2, 8, 8))
    assert network.training


def test_the_profiler_agrees() -> None:
    network, images = convnet(width=4), torch.zeros(2, 1, 16, 16)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], with_flops=True) as counted:
        network.eval()(images)
    names = ("aten::conv2d", "aten::addmm", "aten::mm")  # as the counter, without relu and pooling
    flops = sum(event.flops for event in counted.key_averages() if event.key in names)
    assert cost(network, images).macs == flops // (2 * 2)
    assert cost(network, images).parameters == sum(parameter.numel() for parameter in network.parameters())


def test_shared_weights_count_once() -> None:
    layer = nn.Linear(5, 5, bias=False)
    value = cost(nn.Sequential(layer, layer), torch.zeros(1, 5))
    assert (value.parameters, value.macs) == (25, 50)


def test_an_example_without_rows_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"shape \(0, 5\); cost takes \[B, ...\] of 1 row or more"):
        cost(nn.Linear(5, 5), torch.zeros(0, 5))
