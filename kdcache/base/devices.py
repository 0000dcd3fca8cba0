"""The device that work is done on, and host values on their way to it. torch is imported where it is used."""

import os
from typing import TYPE_CHECKING

from kdcache.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor


def to_device(values: "Tensor", device: str) -> "Tensor":
    """A tensor on a device. It goes to CUDA by way of pinned memory, since a copy from pageable memory waits for the
    whole stream. To other devices the copy is waited for: nothing else orders it before its readers."""
    import torch

    if torch.device(device).type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def default_device() -> str:
    """The accelerator where there is one, else the CPU."""
    import torch

    if torch.accelerator.is_available():
        return str(torch.accelerator.current_accelerator())
    return "cpu"


def chosen_device(name: str) -> str:
    """The device of that name, or the default one for "". Raises InvalidInputError where it cannot be used."""
    import torch

    device = name or default_device()
    if device.partition(":")[0] == "meta":
        raise InvalidInputError(f"device {device} computes no values; without --device it is {default_device()}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).partition("\n")[0]
        raise InvalidInputError(
            f"device {device} cannot be used ({line}); without --device it is {default_device()}"
        ) from error
    return device


def visible_gpus() -> tuple[str, ...]:
    """This machine's GPUs as values of CUDA_VISIBLE_DEVICES."""
    import torch

    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(names or map(str, range(torch.cuda.device_count()))) if torch.cuda.is_available() else ()
