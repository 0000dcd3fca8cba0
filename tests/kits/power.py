"""Power that fails: a fault kit for the files of runs and sweeps, which dies before a chosen one of their writes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from kdcache.base import whole_files
from kdcache.training import run_folder

STEPS = ("replace", "fsync", "mkdir", "open")


class Killed(BaseException):
    """Stands for the end of the process: nothing is caught and nothing is cleaned up on the disk."""


class Machine:
    """`os` for the modules that write a run's files, with a count of the steps that change the disk. Before step `at`
    the machine dies."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.steps = at, list[str]()

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in STEPS else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **options: Any) -> Any:
            if len(self.steps) == self.at:
                raise Killed
            self.steps.append(name)
            return real(*words, **options)

        return step


@contextmanager
def on(machine: Machine) -> Iterator[Machine]:
    """Everything that a run writes goes through this machine."""
    with mock.patch.object(whole_files, "os", machine), mock.patch.object(run_folder, "os", machine):
        yield machine
