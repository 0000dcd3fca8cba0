"""Reading soft labels against np.memmap of packed records, and a view from disk by kdcache and by zarrs.

A loaded view is one array of packed records, and a batch is one `take` of it: five contiguous arrays take three
times as long, for five cache misses a row. The usual peer is `records[rows]` on an np.memmap; the quickest is `take`
on a plain view of it, from which a batch of kdcache differs by some 3 us of Python.

A load on two threads is held back by Python's lock, which numpy keeps while it copies fields of records and turns
ranks: one thread takes 0.22 to 0.27 s, two 0.22, two processes with half of the view each 0.10 to 0.14. Tried, and
within the noise of a seventh: one thread that reads while others decode; packing 1,024 or 2,048 rows at a time; reading
in groups of blocks; large chunks alone on a second thread. zarrs in front of our checks was not built: it opens files
again, by path, and follows links. Block shuffle with one thread that reads ahead takes a fifth less CPU time than with
two, but a load that is waited for takes a quarter longer.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kdcache.store.reading import EncodedRows
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder
from kdcache.training.label_reading import LabelReading
from kdcache.training.loader_options import LabelOptions
from tests.benchmarks.harness import Bench, Figure, Times, alternate, timed_rate, timed_ratio
from tests.benchmarks.rowstores import Shape, write_row_store

Array = npt.NDArray[Any]

ZARRS = {"codec_pipeline": {"path": "zarrs.ZarrsCodecPipeline", "strict": True}}
BATCHES = (256, 1024)


def measure(bench: Bench) -> Iterator[Figure]:
    shape = Shape(rows=20_000 if bench.quick else 2**20, views=2)
    store = write_row_store(bench.scratch / "rows.kd", shape)
    everything = np.arange(shape.rows)
    view = store.load(1, everything)
    assert view.records is not None
    packed = bench.scratch / "records.bin"
    view.records.tofile(packed)
    width = view.records.dtype.itemsize
    records = np.memmap(packed, dtype=f"V{width}", mode="r")
    yield from _gathers(bench, view, records, width)
    del view
    yield from _loads(bench, store, everything)
    yield from _shuffled(bench, store, records, width)


def _gathers(bench: Bench, view: EncodedRows, records: Array, width: int) -> Iterator[Figure]:
    """The same rows by the same positions, in turns; each batch is rows of all arrays."""
    plain = np.asarray(records)
    for size in BATCHES:
        drawn = np.random.RandomState(size).randint(0, len(records), (20 if bench.quick else 400, size))
        require_same(view.take(drawn[0]), records[drawn[0]])
        arms: dict[str, Callable[[], Any]] = {
            "kdcache": lambda drawn=drawn: [view.take(rows, positions=rows) for rows in drawn],
            "memmap": lambda drawn=drawn: [records[rows] for rows in drawn],
            "memmap, np.take": lambda drawn=drawn: [plain.take(rows) for rows in drawn],
        }
        times = alternate(arms, 3 * bench.trials, clock="cpu")
        setting = f"batch {size}, {len(records):,} rows of {width} bytes, k 20"
        yield timed_ratio("batch gather / memmap gather", times, "kdcache", "memmap", target=1.0, setting=setting)
        yield timed_ratio(
            "batch gather / np.take from a memmap", times, "kdcache", "memmap, np.take", target=1.0, setting=setting
        )


def require_same(rows: EncodedRows, records: Array) -> None:
    """Raises where a batch is not made of these records."""
    assert rows.records is not None
    assert rows.records.tobytes() == records.tobytes()


def _loads(bench: Bench, store: Store, everything: Array) -> Iterator[Figure]:
    """One view whole, arrays equal; files in the page cache. The cores are shared: wall time and CPU time both."""
    arrays = zarrs_arrays(store)
    rows = store.load(1, everything)
    for name, array in arrays.items():
        values = np.asarray(array[1:2])[0]
        axis = cast(int, store.segments[0].layout.arrays[name].block_axis) - 1
        np.testing.assert_array_equal(np.moveaxis(values, axis, 0), rows.arrays[name])
    del rows
    arms: dict[str, Callable[[], Any]] = {
        "kdcache": lambda: store.load(1, everything),
        "zarrs": lambda: [array[1:2] for array in arrays.values()],
    }
    setting = f"{len(everything):,} rows, k 20, {len(os.sched_getaffinity(0))} cores"
    wall, cpu = alternate(arms, bench.trials), alternate(arms, bench.trials, clock="cpu")
    for arm, target, what in (("kdcache", 7e6, "checked and packed"), ("zarrs", 20e6, "arrays apart, nothing checked")):
        yield timed_rate(
            f"load of a view by {arm}",
            wall,
            arm,
            len(everything),
            "rows/s",
            target=target,
            setting=f"{setting}; {what}",
        )
    for arm in arms:
        yield timed_rate(
            f"load of a view by {arm}, CPU", cpu, arm, len(everything), "rows/CPU s",
            target=6e6 if arm == "kdcache" else None, setting=setting,
        )  # fmt: skip
    yield timed_ratio("CPU of a load by kdcache / by zarrs", cpu, "kdcache", "zarrs", setting=setting)


def zarrs_arrays(store: Store) -> dict[str, Any]:
    """The rowwise arrays of the first segment, to be read by zarrs, which raises where it would fall back."""
    import zarr

    layout = store.segments[0].layout
    with zarr.config.set(ZARRS):
        group = zarr.open_group(Path(store.folder.root) / layout.name, mode="r")
        return {name: group[name] for name in layout.rowwise}


def _shuffled(bench: Bench, store: Store, records: Array, width: int) -> Iterator[Figure]:
    """An epoch of every row once, in batches: by shuffled blocks from disk, or by random rows of the memmap."""
    size, budget = 1024, 4 if bench.quick else 8
    window = store.rows // budget
    batch_order = BatchOrder(
        range(store.rows), store.rows, store.identity.plan, (1,), size, 0, store.segments[0].layout.block, window
    )
    generator = np.random.RandomState(0)

    def blocks() -> int:
        reading = LabelReading([store], batch_order, LabelOptions(), epochs=1)
        count = sum(len(reading.rows(row)[0].positions) for row in batch_order.batches(0))
        reading.close()
        return count

    def rows() -> int:
        order = generator.permutation(store.rows)
        return sum(len(records[order[start : start + size]]) for start in range(0, store.rows, size))

    assert blocks() == rows() == store.rows
    times = alternate({"blocks": blocks, "memmap": rows}, bench.trials)
    setting = f"batch {size}, k 20, budget of two windows of {window:,} rows, {store.rows:,} rows of {width} bytes"
    yield rate_ratio("block shuffle / memmap gather", times, "memmap", "blocks", target=0.35, setting=setting)


def rate_ratio(name: str, times: Times, over: str, under: str, *, target: float, setting: str) -> Figure:
    """Rate of `under` by rate of `over`, higher is better."""
    return timed_ratio(name, times, over, under, target=target, setting=setting).model_copy(update={"better": "higher"})
