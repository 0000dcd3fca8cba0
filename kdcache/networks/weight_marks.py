"""Marks of a network's weights: quick enough to be taken again and again, to see whether they are what they were."""

import torch
import xxhash
from torch import Tensor, nn


def weight_marks(network: nn.Module) -> dict[str, str]:
    """The xxh3-128 marks of a network's parameters and buffers, by name."""
    return {
        name: xxhash.xxh3_128_hexdigest(_bytes_of(value))
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor)
    }


def _bytes_of(value: Tensor) -> memoryview | bytes:
    values = value.detach().cpu().contiguous()
    return values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b""
