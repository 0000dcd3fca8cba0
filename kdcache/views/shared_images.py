"""Images that a worker draws lie in memory that the main process maps too, without a copy.

The memory is anonymous (memfd): it needs no room in /dev/shm, of which a container has 64 MB. Where the system
has no such memory (macOS), images are copied through the pipe.
"""

import mmap
import os
from dataclasses import dataclass, replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

HAS_SHARED_MEMORY = hasattr(os, "memfd_create")  # macOS has none


class SharedImages:
    """Memory for the images of one request at a time, in a worker."""

    def __init__(self) -> None:
        self._file, self._images = -1, torch.empty(0)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of a shape, which `send` hands over without a copy. Raises OSError where there is none."""
        size = torch.Size(shape).numel() * dtype.itemsize
        if not HAS_SHARED_MEMORY or not size:
            return torch.empty(shape, dtype=dtype)
        self._close()
        self._file = os.memfd_create("kdcache-views")
        os.ftruncate(self._file, size)
        self._images = torch.frombuffer(mmap.mmap(self._file, size), dtype=dtype).view(shape)
        return self._images

    def send(self, connection: "Connection[Any, Any]", drawn: Any) -> None:
        """Send what was drawn, its `images` apart."""
        is_shared = drawn.images is self._images
        images = Handed(tuple(drawn.images.shape), drawn.images.dtype, not is_shared)
        connection.send(replace(drawn, images=images))
        if is_shared:
            reduction.send_handle(connection, self._file, 0)
        else:
            connection.send_bytes(memoryview(drawn.images.contiguous().view(-1).view(torch.uint8).numpy()))
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._images = -1, torch.empty(0)


@dataclass(frozen=True)
class Handed:
    """Images that follow on the connection: as bytes, or as the file of their memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    as_bytes: bool


def received(connection: "Connection[Any, Any]", drawn: Any) -> Any:
    """What was drawn, with the images that follow it on the connection."""
    images: Handed = drawn.images
    if images.as_bytes:
        data: Any = bytearray(connection.recv_bytes())
    else:
        file = reduction.recv_handle(connection)
        try:
            data = mmap.mmap(file, torch.Size(images.shape).numel() * images.dtype.itemsize)
        finally:
            os.close(file)
    values = torch.frombuffer(data, dtype=images.dtype) if len(data) else torch.empty(0, dtype=images.dtype)
    return replace(drawn, images=values.view(images.shape))
