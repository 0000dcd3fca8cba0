"""The memory of a forward: the tensors that it holds at once, counted as they come and go.

The resident size of a process tells it poorly: freed memory is used again, and the first forward loads libraries.
"""

import weakref
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While open, counts the bytes of host tensors that operations make: `live` now, `peak` at most. Those that stood
    before, such as weights, count nothing; neither does memory that an operation takes within itself."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._note((args, kwargs), counts=False)
        output = func(*args, **(kwargs or {}))
        self._note(output, counts=True)
        return output

    def _note(self, values: Any, *, counts: bool) -> None:
        for tensor in tree_leaves(values):
            if not isinstance(tensor, Tensor) or tensor.device.type != "cpu":
                continue
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self._known:
                size = storage.nbytes() if counts else 0
                self._known.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@dataclass(frozen=True)
class ForwardMemory:
    """The host memory of one forward that was measured: `rows` of its batch, and the `bytes` that it held at once."""

    rows: int = 0
    bytes: int = 0

    def beyond(self, rows: int) -> int:
        """Bytes that a forward of so many rows may take over those of this one, which the process's peak has in it; no
        row takes more than its share here. The whole of the larger batch counts, for what operations take within
        themselves grows with it too."""
        return 0 if rows <= self.rows or not self.rows else -(-self.bytes * rows // self.rows)
