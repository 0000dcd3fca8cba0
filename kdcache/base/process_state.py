"""The state of the process that a user's code leaves changed is put back: the current folder, and torch's switches."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def kept_state() -> Iterator[None]:
    """While open, a user's code may change the current folder, torch's default dtype and whether it records gradients.

    Left changed, relative paths would name other places, and transforms and students would compute otherwise.
    """
    folder, torch = os.getcwd(), _torch()
    dtype, gradients = (torch.get_default_dtype(), torch.is_grad_enabled()) if torch else (None, True)
    try:
        yield
    finally:
        os.chdir(folder)
        if torch := _torch():  # it may be the user's code that imports it
            torch.set_default_dtype(dtype or torch.float32)
            torch.set_grad_enabled(gradients)


def _torch() -> Any:
    return sys.modules.get("torch")
