"""Out of memory: what a device, torch or Python says of it becomes an error that names the batch and the next step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kdcache.base.memory import available_bytes
from kdcache.base.user_code import exception_text
from kdcache.errors import InvalidInputError

SMALLER = "use a device with more memory, smaller views, or --precision bfloat16"
_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "ALLOC_FAILED",
)  # of CUDA, of torch's allocator, of cuBLAS and cuDNN


def is_out_of_memory(error: BaseException) -> bool:
    """True for an exception that says that the memory of a device or of this machine is out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
    )


@contextmanager
def naming_memory(problem: str, advice: str) -> Iterator[None]:
    """While open, such an exception becomes an InvalidInputError that tells the problem, the memory that is left and
    the next step."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        left = None if isinstance(error, torch.OutOfMemoryError) else available_bytes()
        left_text = "" if left is None else f"; {left:,} bytes of this machine's memory are left"
        raise InvalidInputError(f"{problem} ({exception_text(error)}{left_text}): {advice}") from error
