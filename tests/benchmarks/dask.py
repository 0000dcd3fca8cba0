"""Extraction on Dask: the first block, the cost of a block, and the gain of a second worker.

Each is a real command, and the times of its commits tell its course. A trivial teacher shows the start, and what Dask
adds to a block of the same command in one process; a convnet shows what a second worker gains. Seconds are multiples of
importing torch and torchvision's transforms in the same round, which took some 7.5 s where the targets were set.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from kdcache import save_weights
from kdcache.networks.small import convnet, mlp
from tests.benchmarks.harness import Bench, Figure, Times, timed_ratio
from tests.benchmarks.reading import rate_ratio
from tests.benchmarks.rows import fashion_folder
from tests.benchmarks.starting import IMPORTS, KDCACHE, started

SECOND = 1 / 7.5  # of the imports, where the targets were set
HERE = ("--workers", "0", "--device", "cpu", "--min-accuracy", "0")
DASK = ("--engine", "dask", "--dashboard", "", "--dask-workers")


@dataclass(frozen=True)
class Course:
    """Seconds from a command's start to its first commit, and for each block after every worker's first."""

    first: float
    block: float


def measure(bench: Bench) -> Iterator[Figure]:
    light, heavy = _commands(bench)
    commands = {
        "in process": (*light, *HERE),
        "one worker": (*light, *HERE, *DASK, "1"),
        "one worker, convnet": (*heavy, *HERE, *DASK, "1"),
        "two workers, convnet": (*heavy, *HERE, *DASK, "2"),
    }
    arms = ["imports", *commands]
    first, block, loads = Times({arm: [] for arm in arms}), Times({arm: [] for arm in arms}), list[float]()
    if not bench.quick:
        started(IMPORTS, bench.scratch)  # from the disk, unread
    for trial in range(bench.trials):
        loads.append(os.getloadavg()[0])
        for arm in arms if trial % 2 else reversed(arms):
            if arm == "imports":
                _, seconds = started(IMPORTS, bench.scratch)
                course = Course(seconds, seconds)
            else:
                course = _course(commands[arm], bench.scratch / f"{arm}-{trial}.kd", 2 if "two" in arm else 1)
            first.seconds[arm].append(course.first)
            block.seconds[arm].append(course.block)
    pairs = zip(block.seconds["one worker"], block.seconds["in process"], strict=True)
    block.seconds["Dask"] = [one - other for one, other in pairs]
    setting = f"{_name(bench)}, mlp"
    yield timed_ratio(
        "first block with one Dask worker / imports of torch and torchvision, wall time", first, "one worker",
        "imports", target=12 * SECOND, setting=setting, loads=loads,
    )  # fmt: skip
    yield timed_ratio(
        "first block in one process / imports of torch and torchvision, wall time", first, "in process", "imports",
        setting=setting,
    )  # fmt: skip
    yield timed_ratio(
        "overhead of a block by Dask / imports of torch and torchvision, wall time", block, "Dask", "imports",
        target=0.03 * SECOND, setting=setting,
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    yield rate_ratio(
        "rows a second, two Dask workers / one", block, "one worker, convnet", "two workers, convnet", target=1.8,
        setting=f"{_name(bench)}, convnet, {cores} core{'s' * (cores > 1)}",
    )  # fmt: skip


def _name(bench: Bench) -> str:
    return "digits, blocks of 256 rows" if bench.quick else "Fashion-MNIST, blocks of 2,048 rows"


def _commands(bench: Bench) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An extraction by a trivial teacher and one by a heavier one, each of whole blocks. Weights are in files, so that
    all processes have the same."""
    torch.manual_seed(0)
    inputs, limits = (64, (1280, 1280)) if bench.quick else (784, (28 * 2048, 16 * 2048))
    data = ("digits", "--views", "0:8") if bench.quick else (f"fashion-mnist:{fashion_folder()}",)
    networks = {"mlp": mlp(inputs=inputs), "convnet": convnet()}
    lines = []
    for (name, network), limit in zip(networks.items(), limits, strict=True):
        weights = bench.scratch / f"{name}.safetensors"
        save_weights(weights, network)
        teacher = ("--teacher", f"kdcache.networks:{name}", "--weights", str(weights))
        shape = ("--teacher-set", f"inputs={inputs}") if name == "mlp" else ()
        lines.append(("--data", *data, "--data-set", f"limit={limit}", *teacher, *shape))
    return lines[0], lines[1]


def _course(flags: tuple[str, ...], store: Path, workers: int) -> Course:
    """The course of one extraction, by its commits. Blocks are counted after the first of every worker, since workers
    that keep step commit together."""
    start_time = time.time()
    started((*KDCACHE, "extract", str(store), *flags), store.parent)
    commits = sorted(path.stat().st_mtime for path in store.glob("kdcache/*/commits/*/*.json"))
    return Course(commits[0] - start_time, (commits[-1] - commits[workers - 1]) / (len(commits) - workers))
