"""The label side of training in a process of its own: time to the first batch, or peak memory over epochs.

python -m tests.benchmarks.label_side first|epochs STORE BUDGET
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.store.reading import THREADS
from kdcache.store.shards import chunk_bytes
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder
from kdcache.training.label_reading import LabelReading
from kdcache.training.loader_options import LabelOptions

BATCH = 256
A_ROW = (
    48  # bytes a row of a window beside its soft labels: its position, four times at most, and two orders to deal it
)
OTHER = 16_000_000  # the segment's commits, what is imported at the first read, pages that are not filled


def first(path: str, budget: int) -> dict[str, float]:
    """Seconds from before the store is opened to the first batch of an epoch, and to any 256 rows of it."""
    warm, began = peak(), time.perf_counter()
    store = Store.open(path)
    batch_order = batch_order_of(store, budget)
    reading = LabelReading([store], batch_order, LabelOptions(), epochs=1)
    row = next(batch_order.batches(0))
    labels = reading.rows(row)[0].soft_labels()
    batch = time.perf_counter() - began
    reading.close()
    assert len(labels.label) == len(row.rows)
    began = time.perf_counter()
    again = Store.open(path)
    again.read(0, np.random.RandomState(0).randint(0, again.rows, BATCH))
    return {"batch": batch, "read": time.perf_counter() - began, "peak": peak() - warm}


def epochs(path: str, budget: int) -> dict[str, float]:
    """An epoch of every view; peak memory above that of the imports, and what it is promised to stay under."""
    warm = peak()
    store = Store.open(path)
    batch_order = batch_order_of(store, budget)
    reading = LabelReading([store], batch_order, LabelOptions(), epochs=len(store.every_view))
    for row in batch_order.batches_from(0, 0, len(store.every_view)):
        reading.rows(row)
    reading.close()
    window = min(batch_order.window_rows, store.rows)
    return {"peak": peak() - warm, "bound": (2 * row_bytes(store) + A_ROW) * window + chunks(store) + OTHER}


def batch_order_of(store: Store, budget: int) -> BatchOrder:
    """As `Loader` deals all rows of a store."""
    window = max(1, budget // (2 * row_bytes(store)))
    block = store.segments[0].layout.block
    return BatchOrder(range(store.rows), store.rows, store.identity.plan, store.every_view, BATCH, 0, block, window)


def chunks(store: Store) -> int:
    """Bytes of what is being read: each thread holds a chunk as it lies on disk, decoded, and turned."""
    arrays = store.segments[0].layout.arrays.values()
    return 3 * THREADS * max(chunk_bytes(spec.dtype, spec.chunk) for spec in arrays)


def row_bytes(store: Store) -> int:
    return store.load(0, [0]).nbytes


def peak() -> int:
    """Bytes of memory this process has held at most; ru_maxrss counts its parent's before it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    what: dict[str, Any] = {"first": first, "epochs": epochs}
    sys.stdout.write(json.dumps(what[sys.argv[1]](sys.argv[2], int(sys.argv[3]))) + "\n")
