"""reused_memory: memory is used again where no one holds an array of it, a tensor, a view or what autograd saved."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kdcache.base.reused_memory import ALIGNMENT, ReusedMemory

HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "the tensor": lambda tensor: tensor,
    "a row": lambda tensor: tensor[1:],
    "another shape": lambda tensor: tensor.permute(1, 0).detach(),
    "numpy": lambda tensor: tensor.numpy(),
    "storage": lambda tensor: tensor.untyped_storage(),
    "autograd": lambda tensor: (tensor * torch.ones(3, requires_grad=True)).grad_fn,
}


def test_free_memory_is_used_again() -> None:
    pool = ReusedMemory()
    first = pool.array((4, 3))
    address = first.ctypes.data
    assert address % ALIGNMENT == 0
    del first
    assert pool.array((2, 3)).ctypes.data == address


@pytest.mark.parametrize("name", list(HOLDERS))
def test_what_someone_holds_is_left_alone(name: str) -> None:
    pool = ReusedMemory()
    held: Any = HOLDERS[name](torch.from_numpy(pool.array((4, 3))).fill_(7.0))
    others = [pool.array((4, 3)) for _ in range(6)]  # more than the pool keeps
    for other in others:
        other[:] = 0.0
    assert len({other.ctypes.data for other in others}) == 6
    if name == "storage":
        held = torch.frombuffer(bytearray(bytes(held)), dtype=torch.float32)
    if name == "autograd":
        held = held._saved_self
    assert (torch.as_tensor(held) == 7.0).all()
