"""A store beside real libraries on identical integers: bytes a row, a gather of 256 random rows, a scan, opening.

Rows are one view at k 20 of 1,000 classes: `imagenet_rows`, five times over, with classes renamed and logits moved by a
twentieth of a nat in all but the first, so that no copy helps to compress another, and shuffled. Libraries hold the
integers that a plain store holds, 68 bytes a row; the store has packing residuals, as extract writes it, a shuffled
order and hard labels beside them, and no content fingerprints, which no library holds. CPU time of this process and its
threads, arms in turns. Libraries that are not installed are named and left out.

The arrays alone take fewer bytes than zarr with blosc; shuffled order, hard labels and commits give that back where
there is one view. From the files, tensorstore decodes the same chunks in half of our time: we also compare sizes, shard
indexes and frames with the records, pack rows, and decode to f32. MDS unpacks a shard beside the packed one when it is
first read: 72 bytes a row more.

`make bench` installs the extra `bench`. mosaicml-streaming asks for older numpy, xxhash and transformers than
constraints.txt has, and works with these; it is installed by hand:

    printf 'numpy==2.4.6\nxxhash==4.1.0\ntransformers>=5\n' > overrides.txt
    uv pip install -c constraints.txt --override overrides.txt -e '.[dev,bench]' mosaicml-streaming
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.store.store import Store
from tests.benchmarks.harness import Bench, Figure, Times, alternate, timed_ratio
from tests.benchmarks.libraries_peers import LIBRARIES, Memmap, Tensorstore, write_library
from tests.benchmarks.library import Arrays
from tests.benchmarks.rows import Rows, imagenet_rows
from tests.benchmarks.store_bytes import byte_figures, parts_of, write_both

Array = npt.NDArray[Any]

COPIES, NOISE, BATCH = 5, 0.05, 256
SIZES = ((25_600, 1), (2_560, 10), (2_560, 1))  # samples and views of smaller stores, whose bytes alone are counted
SLOW, QUICK = 2, 40  # batches of a trial
FILES, LOADED, DECODED = "kdcache, from the files", "kdcache, view loaded", "kdcache, view loaded, decoded to f32"


@dataclass(frozen=True)
class Arm:
    """One way to hold the rows: bytes on disk, and what is timed."""

    size: int
    open: Callable[[], Any]
    gather: Callable[[Any, Array], Any]
    scan: Callable[[Any], Any]
    batches: int = SLOW
    scanned: int = 1


def measure(bench: Bench) -> Iterator[Figure]:
    rows = rows_of(bench)
    count = int(rows.logits.shape[1])
    sizes = [(count, 1), *([(count // 2, 2)] if bench.quick else SIZES)]
    stores = [write_both(rows, *size, bench.scratch / f"rows{number}.kd") for number, size in enumerate(sizes)]
    yield from byte_figures(stores, bench.scratch)
    store, setting = stores[0].store, stores[0].setting
    arms = {**library_arms(stores[0].arrays, bench.scratch), **kdcache_arms(store)}
    times = timed(arms, count, bench.trials)
    compared = (
        ("gather", LOADED, Memmap), ("gather", DECODED, Memmap), ("gather", FILES, Tensorstore),
        ("scan", FILES, Tensorstore), ("open", FILES, Tensorstore),
    )  # fmt: skip
    for what, ours, library in compared:
        if library.title() in arms:
            asked = f"gather of {BATCH} random rows" if what == "gather" else what
            name = f"{asked}, {ours} / {library.package or 'np.memmap'}"
            details = {"table": _table(arms, times, count)} if (what, ours) == compared[0][:2] else {}
            target = 1.2 if (what, ours) == ("gather", FILES) else None
            yield timed_ratio(name, times[what], ours, library.title(), target=target, setting=setting, **details)


def rows_of(bench: Bench) -> Rows:
    """Rows of one view [1, N, C], all views of the teacher's rows one after the other, and copies."""
    taught, rng = imagenet_rows(bench), np.random.RandomState(0)
    logits, labels = np.concatenate(list(taught.logits)), np.tile(taught.labels, len(taught.logits))
    all_logits, all_labels = [logits], [labels]
    for _ in range(0 if bench.quick else COPIES - 1):
        renamed = rng.permutation(taught.classes)
        all_logits.append(logits[:, renamed] + NOISE * rng.standard_normal(logits.shape).astype(np.float32))
        all_labels.append(np.argsort(renamed)[labels])
    order = rng.permutation(len(all_logits) * len(logits))
    return Rows(np.concatenate(all_logits)[order][None], np.concatenate(all_labels)[order], order)


def library_arms(arrays: Arrays, scratch: Path) -> dict[str, Arm]:
    """Each library that is installed with these rows written, and held against them."""
    arms = {}
    for kind in LIBRARIES:
        if not kind.installed():
            sys.stderr.write(f"libraries: {kind.package} is not installed, so its figures are left out\n")
            continue
        library, size = write_library(kind, arrays, scratch)
        batches = QUICK if kind is Memmap else SLOW
        arms[kind.title()] = Arm(size, library.open, library.gather, library.scan, batches, kind.scanned)
    return arms


def kdcache_arms(store: Store) -> dict[str, Arm]:
    """A store read from its files, and a view that is in memory, as training holds it."""
    everything, place = np.arange(store.rows), store.folder.root
    size = sum(parts_of(store).values())

    def loaded() -> Any:
        return Store.open(place).load(0, everything)

    def take(view: Any, rows: Array) -> Any:
        return view.take(rows, positions=rows)

    def take_all(view: Any) -> None:
        for start in range(0, store.rows, 4096):
            take(view, everything[start : start + 4096])

    return {
        FILES: Arm(
            size, lambda: Store.open(place), lambda opened, rows: opened.read(0, np.sort(rows)),
            lambda opened: opened.load(0, everything),
        ),
        LOADED: Arm(size, loaded, take, take_all, QUICK),
        DECODED: Arm(
            size, loaded, lambda view, rows: take(view, rows).soft_labels(), lambda view: view.soft_labels(), QUICK
        ),
    }  # fmt: skip


def timed(arms: dict[str, Arm], rows: int, trials: int) -> dict[str, Times]:
    """CPU seconds of opening, of one batch, and of a scan of all rows."""
    rng = np.random.RandomState(3)
    draws = [rng.permutation(rows)[:BATCH] for _ in range(64)]
    handles = {name: arm.open() for name, arm in arms.items()}

    def gathering(name: str) -> Callable[[], None]:
        arm, some = arms[name], cycle(draws)

        def gather() -> None:
            for batch in islice(some, arm.batches):
                arm.gather(handles[name], batch)

        return gather

    gathers = alternate({name: gathering(name) for name in arms}, trials, clock="cpu")
    scans = alternate({name: lambda name=name: arms[name].scan(handles[name]) for name in arms}, trials, clock="cpu")
    opens = alternate({name: arm.open for name, arm in arms.items()}, trials, clock="cpu")
    return {
        "gather": Times({name: [each / arms[name].batches for each in gathers.seconds[name]] for name in arms}),
        "scan": Times({name: [each * arms[name].scanned for each in scans.seconds[name]] for name in arms}),
        "open": opens,
    }


def _table(arms: dict[str, Arm], times: dict[str, Times], rows: int) -> dict[str, Any]:
    """A row for each arm: bytes, and medians with the least and most of all trials."""
    lines = []
    for name, arm in arms.items():
        gather, scan, opening = (times[what].seconds[name] for what in ("gather", "scan", "open"))
        rates = [rows / seconds / 1e6 for seconds in scan]
        cells = [_spread([1e3 * each for each in gather]), _spread(rates), _spread([1e3 * each for each in opening])]
        lines.append([name, f"{arm.size / rows:.1f}", *cells])
    return {
        "title": f"Medians of {len(gather)} (least to most) in CPU time",
        "columns": ["library", "bytes a row", f"gather of {BATCH}, ms", "scan, M rows/s", "open, ms"],
        "rows": lines,
    }


def _spread(values: list[float]) -> str:
    low, middle, high = (
        f"{each:.2g}" if each < 10 else f"{each:.0f}" for each in (min(values), median(values), max(values))
    )
    return f"{middle} ({low} to {high})"
