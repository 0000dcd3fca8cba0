"""Host values on their way to a device: without waiting where that is safe."""

import torch
from torch import Tensor


def to_device(values: Tensor, device: str) -> Tensor:
    """A tensor on a device. On CUDA by way of pinned memory, since a copy from pageable memory waits for the
    whole stream; elsewhere the copy is waited for: nothing else orders it before what reads it."""
    if torch.device(device).type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
