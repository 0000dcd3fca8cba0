"""Trainings of several processes on this machine, started as torchrun starts them, and what each was fed."""

import errno
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdcache.cli.app import main
from kdcache.objectives.batch import Batch
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train import prepare, run
from kdcache.pipelines.train.stage import train
from kdcache.training.data_parallel import DataParallel
from kdcache.views.sources import open_data
from tests.kits import stages
from tests.kits.forks import forks
from tests.kits.views import altered, negative

PATIENCE = 240  # seconds that processes may take, on crowded cores too; a connection's own patience is 30 minutes

PLAIN = '''"""A student without batch norm, some of whose processes may be told to fail."""
import os
import signal

from torch import nn

calls = 0


class Net(nn.Sequential):
    def forward(self, images):
        global calls
        calls += self.training
        logits = super().forward(images)
        if calls == int(os.environ.get("FAIL_AT", "-1")) and os.environ["RANK"] == os.environ["FAIL_RANK"]:
            kind = os.environ["FAIL_BY"]
            if kind == "nan":
                return logits * float("nan")
            os.kill(os.getpid(), getattr(signal, kind))
        return logits


def net(width=16, num_classes=10):
    return Net(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, num_classes))
'''


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    return {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def launch(world_size: int, work: Callable[..., None], *given: Any, environ: dict[str, str] | None = None) -> list[int]:
    """Exit codes of processes that each call work(*given)."""
    port = free_port()
    processes = []
    for rank in range(world_size):
        told = environment(rank, world_size, port) | (environ or {})
        processes.append(forks.Process(target=_enter, args=(told, work, *given)))
        processes[-1].start()
    until = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(until - time.monotonic(), 0))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert None not in codes, f"after {PATIENCE} s the exit codes are {codes}"
    return [code for code in codes if code is not None]


def _enter(environ: dict[str, str], work: Callable[..., None], *given: Any) -> None:
    multiprocessing.set_start_method(None, force=True)
    os.environ.update(environ)
    torch.set_num_threads(1)
    work(*given)


def trained(each: list[tuple[TrainSettings, Path, int]]) -> None:
    """Train by some settings, one after the other, each in a group of its own that meets at a port."""
    for settings, notes, port in each:
        os.environ["MASTER_PORT"] = str(port)
        with noting(notes):
            train(settings)


def commanded(settings: TrainSettings, notes: Path) -> None:
    """`kdcache train`, with what it says and is fed in files of this process."""
    with open(notes.with_name(f"{notes.name}-said-{os.environ['RANK']}.txt"), "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    with noting(notes):
        main(stages.arguments(settings))


def said_by(notes: Path, rank: int) -> str:
    """What a process of `commanded` printed."""
    return notes.with_name(f"{notes.name}-said-{rank}.txt").read_text()


@contextmanager
def noting(notes: Path) -> Iterator[None]:
    """Note positions and this process's part of the loss, a line a step, on the disk at once."""
    path, loss_of = notes.with_name(f"{notes.name}-fed-{os.environ.get('RANK', '0')}.jsonl"), DataParallel.loss

    def loss(parallel: DataParallel, logits: Tensor, batch: Batch, whole: Batch) -> tuple[Tensor, Tensor]:
        found = loss_of(parallel, logits, batch, whole)
        with open(path, "a") as file:
            file.write(json.dumps([batch.epoch, batch.step, batch.positions.tolist(), float(found[1])]) + "\n")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataParallel, "loss", loss)
        yield


@dataclass(frozen=True)
class Step:
    """One step over all processes: positions in ascending order, how many rows each had, and the loss."""

    positions: list[int]
    shares: list[int]
    loss: float


def fed(notes: Path) -> dict[tuple[int, int], Step]:
    """What was noted, by (epoch, step)."""
    lines = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(notes.parent.glob(f"{notes.name}-fed-*.jsonl"))
    ]
    found = {}
    for each in zip(*lines, strict=False):  # a process that was killed has noted a step less
        assert len({(epoch, step) for epoch, step, _, _ in each}) == 1
        positions = sorted(position for _, _, mine, _ in each for position in mine)
        shares = [len(mine) for _, _, mine, _ in each]
        found[each[0][0], each[0][1]] = Step(positions, shares, sum(part for _, _, _, part in each))
    return found


def commanded_with_other_pictures(settings: TrainSettings, notes: Path) -> None:
    """`commanded`, where process 1 sees other pictures than the teacher did."""
    if os.environ["RANK"] == "1":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                prepare, "open_data", lambda spec, given, **use: altered(open_data(spec, given, **use), negative)
            )
            commanded(settings, notes)
    commanded(settings, notes)


def commanded_with_other_rows(settings: TrainSettings, notes: Path) -> None:
    """`commanded`, where process 1 was given another seed."""
    commanded(settings.model_copy(update={"seed": int(os.environ["RANK"])}), notes)


def commanded_on_a_full_disk(settings: TrainSettings, notes: Path) -> None:
    """`commanded`, where process 0 cannot write its checkpoint."""

    def full(folder: Path, state: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "save_state", full)
        commanded(settings, notes)
