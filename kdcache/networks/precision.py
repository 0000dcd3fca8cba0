"""The precision in which a network answers, and autocast to it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """Autocast to a precision on a device; a context that does nothing for float32."""
    return nullcontext() if precision == "float32" else torch.autocast(torch.device(device).type, PRECISIONS[precision])
