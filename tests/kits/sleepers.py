"""A writer in a process of its own that is stopped (SIGSTOP) in the midst of a step of its work, and wakes later."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kdcache.errors import KdcacheError
from tests.kits.crash import STEPS, on, steps_of, write_all
from tests.kits.forks import forks
from tests.kits.stores import Case

SECONDS = 240  # that any word of the other process may take, on crowded cores too


class _Dozing:
    """`os` that says when the step `at` comes, and goes on when it is told to."""

    def __init__(self, at: int, pipe: Connection) -> None:
        self._left, self._pipe = at, pipe

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in STEPS else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **more: Any) -> Any:
            if name != "open" or given[1] & os.O_CREAT:
                if self._left == 0:
                    self._pipe.send("here")
                    self._pipe.recv()
                self._left -= 1
            return real(*given, **more)

        return step


def _write(path: Path, case: Case, at: int, pipe: Connection) -> None:
    try:
        with on(_Dozing(at, pipe)):  # type: ignore[arg-type]
            write_all(path, case)
        pipe.send("done")
    except KdcacheError as error:
        pipe.send(error)


def slept(path: Path, case: Case, at: int, meanwhile: Callable[[], Any]) -> KdcacheError | str:
    """A writer of a store sleeps at its step `at`, while something else happens, and then goes on. Returns its error,
    or "done"."""
    here, there = forks.Pipe()
    process = forks.Process(target=_write, args=(path, case, at, there))
    process.start()
    there.close()
    try:
        assert here.poll(SECONDS)
        assert here.recv() == "here"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        meanwhile()
        here.send("go on")
        os.kill(process.pid, signal.SIGCONT)
        assert here.poll(SECONDS)
        word = here.recv()
        assert isinstance(word, KdcacheError | str)
        return word
    finally:
        process.kill()
        process.join()
        here.close()


def step_count(path: Path, case: Case) -> int:
    """The steps of a whole store."""
    return len(steps_of(lambda: write_all(path, case)))
