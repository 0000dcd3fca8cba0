"""A network's cost: its parameters, and the multiply-accumulates of one row."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.measures.facts import Facts

FACTS = {
    "parameters": Facts("numbers", "elements of all parameters, shared ones once", "standard", ("network",)),
    "macs": Facts(
        "multiply-accumulates a row",
        "FLOPs of matrix products, convolutions and attention / 2; 2 FLOPs are 1 MAC; nothing else counts",
        "torch.utils.flop_counter",
        ("network",),
    ),
}


class Cost(Record):
    """A cost counts a network's parameters and the multiply-accumulates of one row.

    Attributes:
        parameters: Elements of all parameters, shared ones once.
        trainable: Elements of those that take a gradient.
        macs: Multiply-accumulates a row.
    """

    parameters: int
    trainable: int
    macs: int


def cost(network: nn.Module, example: Tensor) -> Cost:
    """The cost of a row is counted in eval mode; the network's modes come back as they were.

    Args:
        network: The network.
        example: [B, ...] an input of one row or more.

    Raises InvalidInputError for an example without rows.

    Examples:
        >>> from kdcache.measures.cost import cost
        >>> cost(torch.nn.Linear(64, 10), torch.zeros(1, 64))
        Cost(parameters=650, trainable=650, macs=640)
    """
    if not example.ndim or not len(example):
        raise InvalidInputError(
            f"the example has the shape {tuple(example.shape)}; cost takes [B, ...] of 1 row or more"
        )
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(example)
    finally:
        for module, training in modes:
            module.training = training
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return Cost(
        parameters=sum(size for size, _ in sizes),
        trainable=sum(size for size, takes_gradient in sizes if takes_gradient),
        macs=counter.get_total_flops() // (2 * len(example)),
    )
