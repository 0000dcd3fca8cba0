"""Memory of large arrays is used again once nobody else refers to it."""

import sys
from math import prod

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64  # bytes, as torch's own allocator gives them
IDLE = 2  # references to memory that the pool alone holds: that of its list, and that of the question


class ReusedMemory:
    """A pool of memory for f32 arrays. An array holds a reference to its memory, and so does whatever is made of it: a
    torch tensor by `from_numpy`, its views, what autograd saved. So memory without another reference is free."""

    def __init__(self, pieces: int = 4) -> None:
        self._most = pieces
        self._pieces: list[npt.NDArray[np.uint8]] = []

    def array(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """An array of a shape with any values; in memory that is no part of the pool where all of that is in use."""
        size = 4 * prod(shape)
        for index in range(len(self._pieces)):
            if sys.getrefcount(self._pieces[index]) == IDLE:
                if len(self._pieces[index]) < size + ALIGNMENT:
                    self._pieces[index] = np.empty(size + ALIGNMENT, dtype=np.uint8)
                return _aligned(self._pieces[index], size).reshape(shape)
        memory = np.empty(size + ALIGNMENT, dtype=np.uint8)
        if len(self._pieces) < self._most:
            self._pieces.append(memory)
        return _aligned(memory, size).reshape(shape)


def _aligned(memory: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float32]:
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32)
