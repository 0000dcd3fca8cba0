"""The bytes of a store by what they hold, beside zarr with blosc on the same integers, for stores of several sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.store.layout import order_spec
from kdcache.store.shards import encode_plain
from kdcache.store.store import Store
from tests.benchmarks.harness import Figure, exact
from tests.benchmarks.libraries_peers import ZarrBlosc, write_library
from tests.benchmarks.library import Arrays
from tests.benchmarks.rows import Rows
from tests.benchmarks.sizes import encoding
from tests.benchmarks.stored import stored, write_store

K = 20
APART = "canary, class means"  # the part that is neither a record nor an array that others hold
COMPARED = "bytes a row, arrays that both hold and our records / zarr with blosc"


@dataclass(frozen=True)
class Written:
    """A sealed store in a shuffled order, and the integers that its plain twin would hold, rows first."""

    store: Store
    arrays: Arrays
    views: int

    @property
    def rows(self) -> int:
        return len(self.arrays["pixels"])

    @property
    def setting(self) -> str:
        return f"{self.store.rows:,} samples, {self.views} view{'s' * (self.views > 1)}, k {K}"


def write_both(rows: Rows, samples: int, views: int, path: Path) -> Written:
    """The first rows of one view, taken for the views of fewer samples."""
    logits = rows.logits[0][: samples * views].reshape(views, samples, -1)
    some = Rows(logits, rows.labels[:samples], rows.photographs[:samples])
    order = np.random.RandomState(1).permutation(samples)
    return Written(write_store(stored(some, encoding(K)), path, order=order), plain_arrays(some), views)


def plain_arrays(rows: Rows) -> Arrays:
    """The integers of a plain store, one view after the other, rows first."""
    arrays = stored(rows, encoding(K, packing="plain")).arrays
    arrays = {**arrays, "ids": arrays["classes"], "tail": np.moveaxis(arrays["tail"], 1, -1)}
    names = ("ids", "gaps", "tail", "label", "pixels")
    return {name: np.ascontiguousarray(arrays[name]).reshape(-1, *arrays[name].shape[2:]) for name in names}


def byte_figures(stores: list[Written], scratch: Path) -> Iterator[Figure]:
    """Each store in its shuffled order and in the given one; the first, of one view, also with order and labels in
    zarr; a table of all."""
    sizes = [write_library(ZarrBlosc, each.arrays, scratch / f"zarr{number}")[1] for number, each in enumerate(stores)]
    for written, size in zip(stores, sizes, strict=True):
        parts = parts_of(written.store)
        held = sum(parts.values()) - parts[APART]
        orders = {"shuffled": held, "given": held - parts["order"] + given_order_bytes(written.store.rows)}
        for order, each in orders.items():
            yield exact(COMPARED, each / size, "ratio", target=1.0, setting=f"{written.setting}, {order} order")
    first, parts = stores[0], parts_of(stores[0].store)
    also = {"order": first.store.order, "labels": first.store.labels}
    _, size = write_library(ZarrBlosc, {**first.arrays, **also}, scratch / "zarr-order")
    yield exact(
        "the same, with order and labels in zarr too", (sum(parts.values()) - parts[APART]) / size, "ratio",
        setting=f"{first.setting}, shuffled order", table=_table(stores, sizes),
    )  # fmt: skip


def _table(stores: list[Written], sizes: list[int]) -> dict[str, Any]:
    """A row for each store: bytes a row by part, and those of zarr."""
    lines = []
    for written, size in zip(stores, sizes, strict=True):
        parts, layout = parts_of(written.store), written.store.segments[0].layout
        cells = [f"{each / written.rows:.2f}" for each in (*parts.values(), sum(parts.values()), size)]
        lines.append([written.setting, f"{layout.block:,}", *cells])
    return {
        "title": "Bytes a row of stores in a shuffled order, by what they hold, and of zarr with blosc",
        "columns": ["store", "block", *parts, "all", "zarr"],
        "rows": lines,
    }


def parts_of(store: Store) -> dict[str, int]:
    """Bytes of a store's files by what they hold."""
    root = Path(store.folder.root)
    rowwise = tuple(f"{segment.layout.name}/{name}/c/" for segment in store.segments for name in segment.layout.rowwise)
    parts = dict.fromkeys(("arrays", "canary, class means", "commits", "order", "labels", "other records"), 0)
    for path in root.rglob("*"):
        if path.is_file():
            key = path.relative_to(root).as_posix()
            part = "other records"
            if "/commits" in key:
                part = "commits"
            elif key.startswith(("order/c/", "labels/c/")):
                part = key.partition("/")[0]
            elif key.startswith(rowwise):
                part = "arrays"
            elif "/canary/c/" in key or "/class_means/c/" in key:
                part = "canary, class means"
            parts[part] += path.stat().st_size
    return parts


def given_order_bytes(rows: int) -> int:
    """The bytes that `order` takes where positions are those of the data set."""
    spec = order_spec(rows)
    return sum(map(len, encode_plain(spec, np.arange(rows, dtype=spec.dtype)).values()))
