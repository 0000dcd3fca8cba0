"""reading: packed rows equal the arrays, on any number of threads, at bounded memory; damage anywhere ends a read."""

import functools
import os
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError
from kdcache.store import reading
from kdcache.store.array_spec import ArraySpec
from kdcache.store.reading import EncodedRows, Part, copied_whole, parts_of, read_records, record_dtype
from kdcache.store.segment_layout import segment_layout
from kdcache.store.store import Store
from tests.kits.stores import make_case, write_store

Array = npt.NDArray[Any]
ROWS = 1000  # 15 blocks of 64 and a ragged one of 40
KINDS: dict[str, dict[str, Any]] = {
    "topk": {},
    "k 1": {"k": 1},
    "high, features": {"quantisation": "high", "features": 5},
    "cutmix": {"mix": "cutmix"},
    "full": {"k": None},
    "u32 classes": {"classes": 70_000, "k": 3, "rows": 130},
}
MANY = {"rows": 8192, "classes": 40, "k": 20}
Make = Callable[[str], Store]
LAYOUT = segment_layout(make_case(200).identity, ViewSpan(0, 2))


@pytest.fixture(scope="module")
def store_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Store]:
    """A store of each kind, written once."""

    @functools.cache
    def write(kind: str) -> Store:
        case = make_case(**{"rows": ROWS, **{**KINDS, "many": MANY}[kind]})
        return write_store(tmp_path_factory.mktemp("stores") / "a.kd", case)

    return write


@pytest.fixture
def copy(tmp_path: Path, store_of: Make) -> Store:
    """A copy to be damaged."""
    return Store.open(shutil.copytree(store_of("topk").folder.root, tmp_path / "a.kd"))


def by_zarr(store: Store, name: str, view: int) -> Array:
    """What plain zarr says of one view, positions first."""
    spec = store.segments[0].layout.arrays[name]
    group = zarr.open_group(Path(store.folder.root), mode="r")
    assert spec.block_axis is not None
    return np.moveaxis(np.asarray(group[spec.path][view : view + 1])[0], spec.block_axis - 1, 0)  # type: ignore[index]


def require_rows(rows: EncodedRows, whole: dict[str, Array], positions: Array) -> None:
    for name, values in whole.items():
        assert (rows.arrays[name].dtype, rows.arrays[name].shape[1:]) == (values.dtype, values.shape[1:])
        np.testing.assert_array_equal(rows.arrays[name], values[positions])


def test_packed_rows_are_what_zarr_reads(
    store_of: Make, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for kind in KINDS:
        store = store_of(kind)
        whole = {name: by_zarr(store, name, 1) for name in store.segments[0].layout.rowwise}
        rng, everything = np.random.RandomState(0), np.arange(store.rows)
        wanted = {
            "all": everything,
            "shuffled": rng.permutation(everything),
            "scattered": np.sort(rng.choice(everything, 99)),
            "a run": everything[70:75],
        }
        for threads, (which, positions) in product([1, 2, 7], wanted.items()):
            with subtests.test(kind, threads=threads, positions=which):
                monkeypatch.setattr(reading, "_cores", functools.partial(int, threads))
                rows = store.load(1, positions, features="features" in whole)
                require_rows(rows, whole, positions)
                taken = rng.randint(0, len(positions), 31)
                chosen = rows.take(taken)
                require_rows(chosen, whole, positions[taken])
                np.testing.assert_array_equal(rows.take(taken, positions=positions[taken]).positions, chosen.positions)


def test_a_record_is_no_wider_than_its_arrays(store_of: Make, subtests: pytest.Subtests) -> None:
    """But for what aligns it; fields do not overlap, and each lies where its numbers are aligned."""
    for kind in KINDS:
        with subtests.test(kind):
            layout = store_of(kind).segments[0].layout
            specs = {name: layout.arrays[name] for name in layout.rowwise}
            dtype = record_dtype(specs)
            widths = {name: np.dtype(spec.dtype).itemsize for name, spec in specs.items()}
            assert dtype.fields is not None
            taken = sorted((field[1], field[1] + field[0].itemsize) for field in dtype.fields.values())
            assert all(stop <= start for (_, stop), (start, _) in pairwise(taken))
            assert sum(stop - start for start, stop in taken) > dtype.itemsize - max(widths.values())
            for name, width in widths.items():
                assert dtype.fields[name][1] % width == 0
                assert dtype.itemsize % width == 0
            assert copied_whole(dtype).itemsize == dtype.itemsize


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 199), max_size=300), st.booleans())
def test_parts_hold_each_position_once(chosen: list[int], distinct: bool) -> None:
    layout = LAYOUT
    wanted = np.array(sorted(set(chosen) if distinct else chosen), dtype=np.int64)
    strictly = bool((np.diff(wanted) > 0).all())
    parts = parts_of(wanted, layout, distinct=strictly)
    found = np.full(len(wanted), -1)
    for part in parts:
        first, last = layout.block_rows(part.block)
        found[part.slot] = first + (np.arange(last - first) if part.rows is None else part.rows)
    assert found.tolist() == wanted.tolist()
    assert len({part.block for part in parts}) == len(parts)


@pytest.mark.parametrize("array", ["classes", "tail", "pixels"])
@pytest.mark.parametrize("block", [0, 8, 15])
def test_damage_in_any_block_ends_a_read_on_threads(
    copy: Store, monkeypatch: pytest.MonkeyPatch, array: str, block: int
) -> None:
    store = copy
    monkeypatch.setattr(reading, "_cores", lambda: 4)
    path = Path(store.folder.path(store.segments[0].layout.arrays[array].key(block)))
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=f"{array}/c/.*does not decode"):
        store.load(0, np.arange(ROWS))
    path.unlink()
    with pytest.raises(DamagedError, match=f"{array}/c/.*is missing"):
        store.load(0, np.arange(ROWS))
    path.symlink_to(Path(store.folder.path("zarr.json")))
    with pytest.raises(DamagedError, match="is a symbolic link"):
        store.load(0, np.arange(ROWS))


def test_one_store_is_read_by_many_threads_at_once(store_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of("topk")
    monkeypatch.setattr(reading, "_cores", lambda: 3)
    expected = [store.load(view, np.arange(ROWS)).arrays for view in range(2)]
    fresh = Store.open(store.folder.root)  # its commits are not read yet
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: fresh.load(number % 2, np.arange(ROWS)), range(24)))
    for number, rows in enumerate(found):
        require_rows(rows, expected[number % 2], np.arange(ROWS))


def test_no_descriptor_stays_open(copy: Store) -> None:
    store = copy
    before = len(os.listdir("/proc/self/fd"))
    store.load(0, np.arange(ROWS))
    path = Path(store.folder.path(store.segments[0].layout.arrays["gaps"].key(3)))
    path.write_bytes(b"")
    with pytest.raises(DamagedError, match="has 0 bytes"):
        store.load(0, np.arange(ROWS))
    assert len(os.listdir("/proc/self/fd")) == before


def test_reading_takes_the_rows_and_a_few_chunks(store_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak memory of a read: its rows, and for each thread a chunk as it lies on disk, decoded, and turned."""
    store = store_of("many")
    layout = store.segments[0].layout
    monkeypatch.setattr(reading, "_cores", lambda: 2)
    store.load(0, np.arange(store.rows))  # commits are parsed and kept
    tracemalloc.start()
    rows = store.load(1, np.arange(store.rows))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    chunk = max(int(np.prod(spec.chunk)) * np.dtype(spec.dtype).itemsize for spec in layout.arrays.values())
    assert rows.nbytes == store.rows * 68
    assert peak < rows.nbytes + 2 * 3 * chunk + 8 * store.rows + 50_000


def test_wide_rows_are_read_by_fewer_threads(monkeypatch: pytest.MonkeyPatch, store_of: Make) -> None:
    store = store_of("topk")
    specs = dict(store.segments[0].layout.arrays)
    monkeypatch.setattr(reading, "_cores", lambda: 64)
    assert reading._threads(store.folder, specs) == reading.THREADS
    wide = ArraySpec("a/logits", (1, 8192, 2048), "float16", (1, 8192, 2048), (1, 8192, 2048), 1)
    assert reading._threads(store.folder, {"logits": wide}) == 2
    wider = ArraySpec("a/logits", (1, 64, 2**19), "float16", (1, 64, 2**19), (1, 64, 2**19), 1)
    assert reading._threads(store.folder, {"logits": wider}) == 1


def test_nothing_asked_is_nothing_read(store_of: Make) -> None:
    store = store_of("topk")
    parts: list[Part] = []
    assert len(read_records(store.folder, {}, parts, 0, size_of=lambda block, name: 0, check=lambda *given: None)) == 0
    assert store.load(0, []).arrays["classes"].shape == (0, 5)
