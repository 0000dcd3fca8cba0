"""A store beside real libraries on identical integers: bytes a row, a gather of 256 random rows, a scan, opening.

Rows are one view at k 20 of 1,000 classes: `imagenet_rows`, five times over, with classes renamed and logits moved by a
twentieth of a nat in all but the first, so that no copy helps to compress another, and shuffled. Libraries hold the
integers that a plain store holds, 68 bytes a row; the store has packing residuals, as extract writes it, a shuffled
order and hard labels beside them, and no content fingerprints, which no library holds. CPU time of this process and its
threads, arms in turns. Libraries that are not installed are named and left out.

`make bench` installs the extra `bench`. mosaicml-streaming asks for older numpy, xxhash and transformers than
constraints.txt has, and works with these; it is installed by hand:

    printf 'numpy==2.4.6\nxxhash==4.1.0\ntransformers>=5\n' > overrides.txt
    uv pip install -c constraints.txt --override overrides.txt -e '.[dev,bench]' mosaicml-streaming
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.store.layout import order_spec
from kdcache.store.shards import encode_plain
from kdcache.store.store import Store
from tests.benchmarks.harness import Bench, Figure, Times, alternate, exact, timed_ratio
from tests.benchmarks.libraries_peers import LIBRARIES, Memmap, Tensorstore, ZarrBlosc
from tests.benchmarks.library import Arrays, Library
from tests.benchmarks.rows import Rows, imagenet_rows
from tests.benchmarks.sizes import encoding
from tests.benchmarks.stored import stored, write_store

Array = npt.NDArray[Any]

K, COPIES, NOISE, BATCH = 20, 5, 0.05, 256
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
    store = write_store(
        stored(rows, encoding(K)), bench.scratch / "rows.kd", order=np.random.RandomState(1).permutation(_count(rows))
    )
    arms = {**library_arms(plain_arrays(rows), bench.scratch), **kdcache_arms(store)}
    times = timed(arms, _count(rows), bench.trials)
    count, setting = _count(rows), f"{_count(rows):,} rows, 1 view, k {K}"
    parts = parts_of(store)
    table = _table(arms, times, parts, count)
    if ZarrBlosc.title() in arms:
        size = arms[ZarrBlosc.title()].size
        both, whole = sum(parts[part] for part in parts if part != "canary, class means"), sum(parts.values())
        given = both - parts["order"] + given_order_bytes(count)
        for order, held in (("shuffled", both), ("given", given)):
            yield exact(
                "bytes a row, arrays that both hold and our records / zarr with blosc", held / size, "ratio",
                target=1.0, setting=f"{setting}, {order} order", parts={part: parts[part] / count for part in parts},
            )  # fmt: skip
        yield exact(
            "bytes a row, the whole store / zarr with blosc", whole / size, "ratio", setting=setting, table=table
        )
    for what, ours, library in (
        ("gather", LOADED, Memmap), ("gather", DECODED, Memmap), ("gather", FILES, Tensorstore),
        ("scan", FILES, Tensorstore), ("open", FILES, Tensorstore),
    ):  # fmt: skip
        if library.title() in arms:
            asked = f"gather of {BATCH} random rows" if what == "gather" else what
            peer = library.package or "np.memmap"
            yield timed_ratio(f"{asked}, {ours} / {peer}", times[what], ours, library.title(), setting=setting)


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


def plain_arrays(rows: Rows) -> Arrays:
    """The integers of a plain store, rows first."""
    arrays = stored(rows, encoding(K, packing="plain")).arrays
    return {
        "ids": arrays["classes"][0], "gaps": arrays["gaps"][0], "tail": np.moveaxis(arrays["tail"][0], 0, -1).copy(),
        "label": arrays["label"][0], "pixels": arrays["pixels"][0],
    }  # fmt: skip


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


def write_library(kind: type[Library], arrays: Arrays, scratch: Path) -> tuple[Library, int]:
    """A library in a folder of its own, or in that of the library whose files it reads, and its bytes as written.
    Raises where what it gives back differs."""
    written = ZarrBlosc if kind is Tensorstore else kind
    folder = scratch / written.__name__
    library = kind(folder, arrays)
    if kind is written or not folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        library.write(arrays)
    size = library.bytes_on_disk
    rows = np.random.RandomState(2).permutation(library.rows)[:BATCH]
    for name, values in library.gather(library.open(), rows).items():
        np.testing.assert_array_equal(values, arrays[name][rows], err_msg=f"{kind.__name__}: {name}")
    return library, size


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
    """What `order` takes where positions are those of the data set."""
    spec = order_spec(rows)
    return sum(map(len, encode_plain(spec, np.arange(rows, dtype=spec.dtype)).values()))


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


def _count(rows: Rows) -> int:
    return int(rows.logits.shape[1])


def _table(arms: dict[str, Arm], times: dict[str, Times], parts: dict[str, int], rows: int) -> dict[str, Any]:
    """A row for each arm: bytes, and medians with the least and most of all trials."""
    lines = []
    for name, arm in arms.items():
        gather, scan, opening = (times[what].seconds[name] for what in ("gather", "scan", "open"))
        rates = [rows / seconds / 1e6 for seconds in scan]
        cells = [_spread([1e3 * each for each in gather]), _spread(rates), _spread([1e3 * each for each in opening])]
        lines.append([name, f"{arm.size / rows:.1f}", *cells])
    held = ", ".join(f"{part} {size / rows:.2f}" for part, size in parts.items())
    return {
        "title": f"Medians of {len(gather)} (least to most) in CPU time; of the store's bytes a row: {held}",
        "columns": ["library", "bytes a row", f"gather of {BATCH}, ms", "scan, M rows/s", "open, ms"],
        "rows": lines,
    }


def _spread(values: list[float]) -> str:
    low, middle, high = (
        f"{each:.2g}" if each < 10 else f"{each:.0f}" for each in (min(values), median(values), max(values))
    )
    return f"{middle} ({low} to {high})"
