"""A disk that fails: stands in for `os` in the modules that write, counts their steps, and dies or fills up at one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from kdcache.base.view_span import ViewSpan
from kdcache.places import create_only, folder, safe_open
from kdcache.store import shards, writing
from kdcache.store.store import Store
from tests.kits.stores import Case, all_files, commit_logits, create_store

STEPS = ("open", "write", "fsync", "link", "unlink", "replace", "mkdir")
FILLING = ("open", "write", "fsync", "link", "mkdir", "replace")
ROWS = 70  # two blocks: 64 and 6


class Killed(BaseException):
    """What stands for SIGKILL: from here on, this writer does nothing."""


class Disk:
    """`os` with a count of writing steps. At step `at` the writer dies, or the disk is full from then on."""

    def __init__(self, at: int = -1, full: bool = False) -> None:
        self.at = at
        self.full = full
        self.steps: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in STEPS else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **more: Any) -> Any:
            if name == "open" and not given[1] & os.O_CREAT:
                return real(*given, **more)
            self.steps.append(name)
            if self.at < 0 or len(self.steps) <= self.at:
                return real(*given, **more)
            if name == "write":  # half of it reaches the disk
                real(given[0], bytes(given[1])[: len(given[1]) // 2])
            if not self.full:
                raise Killed
            if name in FILLING:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given, **more)

        return step


@contextmanager
def on(disk: Disk) -> Iterator[Disk]:
    """Everything that a store writes goes to this disk."""
    with ExitStack() as stack:
        for module in (folder, create_only, safe_open):
            stack.enter_context(mock.patch.object(module, "os", disk))
        yield disk


@contextmanager
def remembered() -> Iterator[None]:
    """Encode equal arrays once and wait for no disk, though its steps are counted: hundreds of stores are written."""
    known: dict[Any, Any] = {}
    shard, plain = shards.encode_shard, shards.encode_plain

    def memo(real: Callable[..., Any]) -> Callable[..., Any]:
        def encode(spec: Any, data: Any) -> Any:
            key = (real, spec, data.tobytes())
            if key not in known:
                known[key] = real(spec, data)
            return known[key]

        return encode

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(writing, "encode_shard", memo(shard)))
        stack.enter_context(mock.patch.object(shards, "encode_plain", memo(plain)))
        stack.enter_context(mock.patch.object(os, "fsync", return_value=None))
        yield


def write_all(path: Path, case: Case) -> Store:
    """What extract does: create, commit each block, adopt what others have left, seal."""
    store = create_store(path, case)
    segment = store.add_segment(ViewSpan(0, len(case.logits)))
    strikes = {block: case.struck_in(segment, block) for block in range(segment.layout.blocks)}
    left = [b for b in strikes if commit_logits(store, segment, b, case.logits, struck=strikes[b]) is None]
    for block in left:
        struck = strikes[block]
        assert commit_logits(store, segment, block, case.logits, adopt=True, struck=struck) is not None
    store.seal()
    return Store.open(path)


def files_of(path: Path) -> dict[str, bytes]:
    """Every file but what dead writers left."""
    return {name: data for name, data in all_files(path).items() if ".tmp-" not in name} if path.exists() else {}


def steps_of(work: Callable[[], Any]) -> list[str]:
    """The writing steps that some work takes."""
    with on(Disk()) as disk:
        work()
    return disk.steps
