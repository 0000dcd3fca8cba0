"""The start of commands, before they work, against importing torch and torchvision's transforms, which they need.

Each is a process of its own: CPU seconds of it and of its children, and the wall time until its first word. Digits of
64 rows, so that the work itself is next to nothing. Seconds are this machine's; the ratios hold on others.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.harness import Bench, Figure, Times, timed_ratio

IMPORTS = ("-c", "import torch; from torchvision.transforms import v2")
KDCACHE = ("-m", "kdcache")
SMALL = ("--data", "digits", "--data-set", "limit=64", "--workers", "0", "--device", "cpu")
NETWORK = "kdcache.networks:convnet"
SECOND = 0.13  # of the imports, which take some 7.5 s of CPU time where the targets were set: one second


def measure(bench: Bench) -> Iterator[Figure]:
    number = 0

    def folder() -> str:
        nonlocal number
        number += 1
        return str(bench.scratch / f"{number}")

    lines = {
        "imports": lambda: IMPORTS,
        "objectives": lambda: (*KDCACHE, "objectives"),
        "extract": lambda: (*KDCACHE, "extract", folder(), "--teacher", NETWORK, "--min-accuracy", "0", *SMALL),
        "train": lambda: (*KDCACHE, "train", folder(), "--student", NETWORK, "--epochs", "1", *SMALL),
    }
    if bench.quick:
        lines = {name: lines[name] for name in ("imports", "objectives", "extract")}
    cpu, words = Times({name: [] for name in lines}), Times({name: [] for name in lines})
    for trial in range(-1, bench.trials):
        for name in lines if trial % 2 else reversed(lines):
            seconds, first_word = started(lines[name](), bench.scratch)
            if trial >= 0:
                cpu.seconds[name].append(seconds)
                words.seconds[name].append(first_word)
    setting = "digits, 64 rows"
    yield timed_ratio("objectives / imports of torch and torchvision", cpu, "objectives", "imports", target=SECOND)
    for name in lines.keys() - {"imports", "objectives"}:
        yield timed_ratio(
            f"{name}, 1 {'epoch' if name == 'train' else 'view'} / imports of torch and torchvision", cpu, name,
            "imports", setting=setting,
        )  # fmt: skip
        yield timed_ratio(
            f"first word of {name} / imports of torch and torchvision, wall time", words, name, "imports",
            target=SECOND, setting=setting,
        )  # fmt: skip


def started(line: Sequence[str], folder: Path) -> tuple[float, float]:
    """CPU seconds of a command, and wall seconds until its first word on stderr, or until its end where it says none.
    Raises RuntimeError where it fails."""
    before, start_time = os.times(), time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *line], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        first = process.stderr.read(1)
        first_word = time.perf_counter() - start_time
        text = first + process.stderr.read()
    after = os.times()
    if process.returncode:
        raise RuntimeError(f"{' '.join(line)} failed: {text[-2000:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system, first_word
