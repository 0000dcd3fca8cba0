"""A small teacher's weights and a small store of digits on disk, and commands run in processes that may be killed."""

import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from kdcache.base.progress import Progress, StopRequest
from kdcache.labels import encodings
from kdcache.networks.small import convnet
from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits.forks import forks
from tests.kits.views import trained_network

NETWORK = "kdcache.networks:convnet"
ROWS, BLOCKS = 300, 5
CHECKS = 16  # forwards before block 0: one of a view, four of 64 rows, and eleven in threes

STALLING = '''"""kdcache's convnet, which stalls at forward number STALL_AT until the file STALL_GO is there."""
import os
import time
from pathlib import Path

from kdcache.networks import convnet

calls = 0


def stall(module, inputs):
    global calls
    calls += 1
    if calls == int(os.environ.get("STALL_AT", "0")):
        Path(os.environ["STALL_HERE"]).touch()
        while not Path(os.environ["STALL_GO"]).exists():
            time.sleep(0.01)


def net(width=8, num_classes=10):
    network = convnet(width=width, num_classes=num_classes)
    network.register_forward_pre_hook(stall)
    return network
'''


def first_forward(block: int) -> int:
    """The number of the forward that begins a process's `block`-th block, all counted from 1: a block of 64 positions
    in two views has eight."""
    return CHECKS + 8 * (block - 1) + 1


@dataclass(frozen=True)
class Stage:
    """Where the session's teacher, its stalling twin and a sealed store of 300 digits with two views lie."""

    folder: Path

    @property
    def weights(self) -> str:
        return str(self.folder / "teacher.safetensors")

    @property
    def store(self) -> str:
        return str(self.folder / "digits.kd")

    @property
    def stalling(self) -> str:
        return f"{self.folder / 'stalling.py'}:net"

    def asked(self, store: str | Path, **changes: Any) -> ExtractSettings:
        """Extract's settings: 300 digits, top 3, two light views, the trained teacher; with changes."""
        settings = {
            "store": str(store),
            "teacher": NETWORK,
            "teacher_set": {"width": 8},
            "weights": self.weights,
            "data": "digits",
            "data_set": {"limit": ROWS},
            "transform": "light",
            "transform_set": {"padding": 1, "flip": 0.0},
            "views": "2",
            "top_k": 3,
            "workers": 0,
        }
        return ExtractSettings.model_validate(settings | changes)

    def copy(self, target: Path) -> Path:
        """A copy of the store that a test may hurt."""
        return Path(shutil.copytree(self.store, target))


@cache
def _stage(base: Path) -> Stage:
    folder = base / "stage"
    folder.mkdir()
    stage = Stage(folder)
    save_weights(Path(stage.weights), trained_network())
    (folder / "stalling.py").write_text(STALLING)
    extract(stage.asked(stage.store))
    return stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Made once a session, however many modules name this fixture."""
    return _stage(tmp_path_factory.getbasetemp())


def student(run: str | Path, **changes: Any) -> TrainSettings:
    """Train's settings: a narrow convnet with dropout on 300 digits, two epochs of five batches; with changes."""
    settings = {
        "run": str(run),
        "student": NETWORK,
        "student_set": {"width": 4, "dropout": 0.1},
        "data": "digits",
        "data_set": {"limit": ROWS},
        "workers": 0,
        "epochs": 2,
        "batch_size": 64,
        "lr": 0.05,
    }
    if changes.get("store"):
        settings["temperature"] = 2.0
    return TrainSettings.model_validate(settings | changes)


def stop_after(count: int) -> tuple[StopRequest, Progress]:
    """A request to stop, and a progress callback that sets it at its `count`-th call, those of checks apart."""
    stop, calls = StopRequest(), [0]

    def progress(what: str, done: int, total: int) -> None:
        calls[0] += bool(total) and not what.startswith(("checking the teacher", "reading labels"))
        stop.requested |= calls[0] >= count

    return stop, progress


def committed(store: Path) -> int:
    """Commits on disk, over all segments."""
    return len(list(store.glob("kdcache/views-*/commits/*/*.json")))


def metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without their seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def weights_of(run: Path) -> dict[str, bytes]:
    """Bytes of the weights a run has written."""
    return {path.name: path.read_bytes() for path in sorted((run / "weights").iterdir())}


def arguments(settings: ExtractSettings | TrainSettings) -> list[str]:
    """A command line that says what the settings say."""
    command, place = ("extract", "store") if isinstance(settings, ExtractSettings) else ("train", "run")
    given = [command, getattr(settings, place)]
    for name, value in settings.model_dump(exclude_unset=True, exclude={place}).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, dict):
            texts = [f"{key}={each}" for key, each in value.items()]
        elif name in ("store", "val_store"):
            texts = [value] if isinstance(value, str) else list(value)
        else:
            texts = [",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
        given += [part for text in texts for part in (flag, text)]
    return given


def begin(settings: ExtractSettings) -> None:
    """The store without views, so that a process of any kind goes on with the block rule of this one."""
    job = open_job(settings)
    parts = {"order": job.order, "labels": job.labels, "head": job.head}
    Store.create(settings.store, job.identity, provenance=job.provenance, **parts)


def start(settings: ExtractSettings | TrainSettings, environment: dict[str, str]) -> BaseProcess:
    """The command in a process of its own."""
    process = forks.Process(target=command, args=(arguments(settings), environment))
    process.start()
    return process


def command(given: list[str], environment: dict[str, str]) -> None:
    """Run `kdcache` with arguments, in this process, whose own workers start as the platform starts them."""
    multiprocessing.set_start_method(None, force=True)
    os.environ.update(environment)
    encodings.BLOCK_RULE = 1  # as in the tests' own process
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    from kdcache.cli.app import main

    main(given)


def stalling(folder: Path, call: int) -> dict[str, str]:
    """The environment in which the stalling network stalls at a forward; it touches folder/here, and waits for go."""
    return {"STALL_AT": str(call), "STALL_HERE": str(folder / "here"), "STALL_GO": str(folder / "go")}


def wait_for(happened: Callable[[], bool], process: BaseProcess | None = None) -> None:
    """Wait until something is so; fail where the process ends first, or after two minutes."""
    until = time.monotonic() + 120
    while not happened():
        assert process is None or process.exitcode is None, f"ended with {process.exitcode}"
        assert time.monotonic() < until, "waited for two minutes"
        time.sleep(0.01)


def network(width: int, **options: Any) -> nn.Module:
    """The convnet that `NETWORK` names."""
    return convnet(width=width, **options)
