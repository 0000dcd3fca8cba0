"""Processes of other users of this machine, which only root can start."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from kdcache.errors import KdcacheError
from tests.kits.forks import forks

VICTIM, ATTACKER = 2001, 2002
SECONDS = 240  # the first process of a test session waits for all that any of them imports
NEEDS_ROOT = "only root may start processes of two other users; run these tests as root"


def require_root() -> None:
    """A skip where this user is not root, or a failure where everything is to run."""
    if os.geteuid() != 0:
        if os.environ.get("KDCACHE_REQUIRE_ROOT") == "1":
            pytest.fail(NEEDS_ROOT)
        pytest.skip(NEEDS_ROOT)


def as_user(uid: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function of a test module, called in a process of a user. An error in it is raised here."""
    here, there = forks.Pipe()
    process = forks.Process(target=_run, args=(uid, there, function, arguments))
    process.start()
    there.close()
    try:
        assert here.poll(SECONDS)
        result, error = here.recv()
    finally:
        process.join(SECONDS)
        here.close()
    if error is not None:
        raise error
    return result


def _run(uid: int, pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.umask(0o022)
    try:
        pipe.send((function(*arguments), None))
    except (KdcacheError, AssertionError, OSError) as error:
        pipe.send((None, error))


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user may pass through and write to, as /tmp is; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="kdcache-users-"))
    folder.chmod(0o1777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
