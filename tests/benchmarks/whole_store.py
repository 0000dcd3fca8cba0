"""How a check of a whole store, its recoding and its statistics scale from one worker to two.

    python -m tests.benchmarks.whole_store [--out docs/figures]

Rows are generated (`rowstores`). Arms take turns within a round, on two clusters that stand throughout, of one worker
and of two. Starting a cluster is not timed: whoever computes over a whole store has more to do. The page cache of this
machine holds the files. With `--out` the figures go to whole_store.json, from which docs/performance.md is written.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdcache.base.cluster import open_cluster
from kdcache.base.engine import Engine
from kdcache.store.store import Store
from kdcache.views.provenance import provenance
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.stats import store_stats
from kdcache.whole_store.verify import inspect_files
from tests.benchmarks.harness import alternate
from tests.benchmarks.rowstores import Shape, write_row_store

VIEWS = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rows", type=int, default=50_000_000, help="(position, view) rows of the store that is checked"
    )
    parser.add_argument("--work-rows", type=int, default=650_000, help="rows of the store that is read or recoded")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--out", type=Path, help="folder for whole_store.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder, ExitStack() as stack:
        large, small = (
            _store(Path(folder) / name, rows)
            for name, rows in (("large.kd", given.rows), ("small.kd", given.work_rows))
        )
        engines: dict[str, Engine] = {}
        for workers in (1, 2):
            cluster = stack.enter_context(
                open_cluster(
                    workers=workers,
                    dashboard="127.0.0.1:0",
                    preload=["kdcache.whole_store.recode", "kdcache.whole_store.stats"],
                )
            )
            engines[f"{workers} worker{'s' * (workers > 1)}"] = cluster
        work = (
            ("verify", large, lambda engine: inspect_files(str(large), engine=engine)),
            ("recode --top-k 10", small, lambda engine: _recode(small, Path(folder) / "out.kd", engine)),
            ("stats", small, lambda engine: store_stats(Store.open(small), engine=engine)),
        )
        results = [_measure(name, path, given.trials, engines, call) for name, path, call in work]
    if given.out:
        record = {
            "command": f"python -m tests.benchmarks.whole_store --out {given.out}",
            "device": f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}",
            "versions": {**provenance("cpu").versions, "dask": version("dask")},
            "results": results,
        }
        (given.out / "whole_store.json").write_text(json.dumps(record, indent=1) + "\n")


def _store(path: Path, rows: int) -> Path:
    write_row_store(path, Shape(rows // VIEWS, VIEWS))
    return path


def _recode(source: Path, out: Path, engine: Engine) -> None:
    shutil.rmtree(out, ignore_errors=True)
    recode_store(str(source), str(out), Narrowing(top_k=10), engine=engine)


def _measure(
    name: str, path: Path, trials: int, engines: dict[str, Engine], work: Callable[[Engine], Any]
) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    times = alternate({arm: lambda engine=engine: work(engine) for arm, engine in engines.items()}, trials)
    medians = ", ".join(f"{arm} {times.median(arm):.2f} s" for arm in engines)
    ratio, low, high = times.ratio("1 worker", "2 workers")
    sys.stdout.write(
        f"{name}: {size / 1e9:.2f} GB, {trials} trials; {medians}; 1 to 2 workers: {ratio:.2f} times as fast "
        f"(95 % {low:.2f} to {high:.2f}); load {os.getloadavg()[0]:.1f}\n"
    )
    sys.stdout.flush()
    store = Store.open(path)
    return {
        "command": name, "gigabytes": size / 1e9, "rows": store.rows * VIEWS, "blocks": store.segments[0].layout.blocks,
        "seconds": {arm: times.median(arm) for arm in engines}, "ratio": [ratio, low, high], "trials": trials,
    }  # fmt: skip


if __name__ == "__main__":
    main()
