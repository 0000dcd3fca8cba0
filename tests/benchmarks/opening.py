"""What opening costs at 1e4 and at 1e8 rows, how many files a large store has, memory of train's label side.

Rows are all alike, so that a hundred million of them are written in seconds; blocks, files and commits are as ever.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from kdcache.base.view_span import ViewSpan
from kdcache.store.segment_layout import segment_layout
from kdcache.store.store import Store
from kdcache.training.loader_options import DEFAULT_MEMORY
from tests.benchmarks.harness import Bench, Figure, alternate, exact, interval, timed_ratio
from tests.benchmarks.rowstores import Shape, files_of, identity_of, write_row_store

OPENS = 40
BUDGET = 64_000_000
IMAGENET = Shape(rows=1_281_167, views=300)


def measure(bench: Bench) -> Iterator[Figure]:
    small, large = 10_000, 200_000 if bench.quick else 100_000_000
    paths = {}
    for rows in (small, large):
        paths[rows] = bench.scratch / f"{rows}.kd"
        write_row_store(paths[rows], Shape(rows=rows, views=2, k=1, classes=100, alike=True))
    yield from _opens(bench, paths, small, large)
    yield from _first_batches(bench, paths)
    yield from _files(bench)
    yield from _memory(bench)


def _opens(bench: Bench, paths: dict[int, Path], small: int, large: int) -> Iterator[Figure]:
    def opens(path: Path) -> None:
        for _ in range(OPENS):
            Store.open(path)

    times = alternate({str(rows): lambda path=path: opens(path) for rows, path in paths.items()}, 3 * bench.trials,
                      clock="cpu")  # fmt: skip
    setting = f"sealed stores of {large:,} and {small:,} rows"
    milliseconds = {f"ms at {rows:,} rows": 1e3 * times.median(str(rows)) / OPENS for rows in paths}
    yield timed_ratio("open, large / small", times, str(large), str(small), target=1.1, setting=setting, **milliseconds)
    for rows, path in paths.items():
        yield exact("open", 1e3 * times.median(str(rows)) / OPENS, "ms", setting=f"{rows:,} rows, CPU time")
        assert Store.open(path).rows == rows


def _first_batches(bench: Bench, paths: dict[int, Path]) -> Iterator[Figure]:
    """Each in a fresh process: nothing is opened, read or cached by it before."""
    found: dict[int, list[dict[str, Any]]] = {rows: [] for rows in paths}
    for _ in range(1 if bench.quick else 3):
        for rows, path in paths.items():
            found[rows].append(in_a_process("first", str(path), str(BUDGET)))
    for rows, each in found.items():
        for what, name in (("batch", "first batch of 256, shuffled"), ("read", "256 random rows read from disk")):
            measured, low, high = interval([1e3 * one[what] for one in each])
            setting = f"{rows:,} rows, from opening on" + (f", budget {BUDGET // 10**6} MB" if what == "batch" else "")
            yield Figure(name=name, unit="ms", measured=measured, low=low, high=high, trials=len(each), setting=setting)
        yield exact(
            "memory for the first batch", median(one["peak"] for one in each) / 1e6, "MB",
            setting=f"{rows:,} rows, peak above that of the imports",
        )  # fmt: skip


def _files(bench: Bench) -> Iterator[Figure]:
    """From the layout; the same count is held against a store that is there."""
    real = Shape(rows=3_000, views=3, k=3, classes=20, alike=True)
    store = write_row_store(bench.scratch / "counted.kd", real)
    found = sum(path.is_file() for path in Path(store.folder.root).rglob("*"))
    if found != (counted := files_of(real, [(0, 3)])):
        raise AssertionError(f"a store has {found} files, the layout says {counted}")
    for views in (300, 10):
        passes = [(start, start + views) for start in range(0, 300, views)]
        block = segment_layout(identity_of(IMAGENET), ViewSpan(*passes[0])).block
        setting = f"{IMAGENET.rows:,} samples x 300 views, k 20, {len(passes)} passes of {views}, blocks of {block}"
        yield exact("files", files_of(IMAGENET, passes), "files", target=50_000, setting=setting)


def _memory(bench: Bench) -> Iterator[Figure]:
    """Every view of a store read and dealt as train does, each case in a process of its own."""
    rows = 20_000 if bench.quick else 2**20
    cases = [(rows // 4, 2, 0), (rows, 2, 0), (rows, 6, 0), (rows, 2, rows * 17)]
    for count, views, budget in cases[-2:] if bench.quick else cases:
        path = bench.scratch / f"memory-{count}-{views}.kd"
        if not path.exists():
            write_row_store(path, Shape(rows=count, views=views, alike=True))
        found = in_a_process("epochs", str(path), str(budget or DEFAULT_MEMORY))
        kept = f"budget {budget / 1e6:.0f} MB" if budget else "views held whole"
        setting = f"{count:,} rows, {views} views, k 20, {kept}"
        yield exact(
            "memory of train's label side", found["peak"] / 1e6, "MB", target=found["bound"] / 1e6, setting=setting
        )


def in_a_process(*given: str) -> dict[str, Any]:
    """What `python -m tests.benchmarks.label_side` prints."""
    line = [sys.executable, "-m", "tests.benchmarks.label_side", *given]
    record: dict[str, Any] = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)
    return record
