"""segment: a block that is not whole raises, naming what to do; zeros are never returned for it."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kdcache.errors import DamagedError, MissingBlockError, StoreError
from kdcache.store.store import Store
from tests.kits.stores import Case, all_files, create_store, make_case, write_store, write_views

ROWS = 200
EVERYTHING = np.arange(ROWS)
SEGMENT = "views-00000-00002"
ARRAYS = ["classes", "gaps", "tail", "label", "pixels"]


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(ROWS)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, case: Case) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "a.kd"
    write_store(path, case)
    return path


@pytest.fixture
def copy(tmp_path: Path, sealed: Path) -> Path:
    """A copy of a sealed store, to be damaged."""
    return Path(shutil.copytree(sealed, tmp_path / "a.kd"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0x10
    path.write_bytes(data)


def read_views(store: Store, positions: npt.NDArray[np.int64]) -> None:
    for view in store.every_view:
        store.read(view, positions)


def test_a_block_without_commit_is_missing(tmp_path: Path, case: Case) -> None:
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits, blocks=[0, 2])
    store = Store.open(tmp_path / "a.kd")
    assert store.content_id is None
    there = np.concatenate([np.arange(64), np.arange(128, 192)])
    assert len(store.read(1, there).logits) == 128
    for position in (64, 127, 192, 199):
        with pytest.raises(MissingBlockError, match="not committed; run the same `kdcache extract`"):
            store.read(1, np.array([0, position]))
    with pytest.raises(MissingBlockError, match="2 of 4 blocks have no commit, the first is 1"):
        store.seal()


def test_shards_without_a_commit_do_not_exist(tmp_path: Path, case: Case) -> None:
    """A writer that died between shards and commit has written nothing."""
    store = create_store(tmp_path / "a.kd", case)
    segment = write_views(store, 0, case.logits)
    store.folder.path(segment.layout.commit_key(1)).unlink()
    with pytest.raises(MissingBlockError, match="positions 64 to 127"):
        Store.open(tmp_path / "a.kd").read(0, np.array([64]))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "first byte": lambda path: flip(path, 0),
    "inside": lambda path: flip(path, path.stat().st_size // 3),
    "last byte": lambda path: flip(path, -1),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


def test_a_damaged_shard_raises(copy: Path, sealed: Path, subtests: pytest.Subtests) -> None:
    specs = Store.open(sealed).segments[0].layout.arrays
    for seal, arrays in ((True, ARRAYS), (False, ["classes", "tail"])):
        if not seal:
            shutil.rmtree(copy / "kdcache" / "seals")
        for array, damage in product(arrays, DAMAGES):
            key = specs[array].key(1)
            with subtests.test(array=array, damage=damage, seal=seal):
                store = Store.open(copy)
                DAMAGES[damage](copy / key)
                with pytest.raises(DamagedError, match=array):
                    read_views(store, EVERYTHING)
                assert len(store.read(0, np.arange(64)).logits) == 64  # the other blocks are as good as before
            shutil.copyfile(sealed / key, copy / key)


@pytest.mark.parametrize("array", ["classes", "pixels"])
def test_any_flipped_byte_of_a_shard_raises(copy: Path, array: str) -> None:
    store = Store.open(copy)
    path = copy / store.segments[0].layout.arrays[array].key(0)
    size = path.stat().st_size
    for place in {*range(0, size, 37), *range(size - 36, size)}:  # the shard's index lies at its end
        flip(path, place)
        with pytest.raises(DamagedError, match="does not decode"):
            read_views(store, np.arange(64))
        flip(path, place)
    assert len(store.read(0, np.arange(64)).logits) == 64


def test_a_damaged_canary_raises(copy: Path) -> None:
    path = copy / SEGMENT / "canary/c/0/0/0/0/0"
    flip(path, 5)
    with pytest.raises(DamagedError, match="canary"):
        Store.open(copy).segments[0].canary(0)
    path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        Store.open(copy).segments[0].canary(0)


def _records(root: Path) -> list[str]:
    """Every file that is not a shard of a block and that a sealed store is read by."""
    commits = f"kdcache/{SEGMENT}/commits/"
    mutable = ("kdcache/seals/latest",)
    names = [name for name in all_files(root) if "/c/" not in name and not name.startswith(commits)]
    unused = (f"kdcache/{SEGMENT}/segment.json", f"{SEGMENT}/zarr.json", "zarr.json", f"{SEGMENT}/canary/zarr.json")
    return [name for name in names if name not in unused + mutable] + ["order/c/0", "labels/c/0"]


def _read_all(root: Path) -> None:
    store = Store.open(root)
    assert store.order is not None
    assert store.labels is not None
    read_views(store, EVERYTHING)


def test_every_record_of_a_sealed_store_is_watched(copy: Path) -> None:
    names = _records(copy)
    assert len(names) == 1 + 1 + 1 + 5 + 2 + 2  # manifest, seal, commits, arrays of the segment, order, labels
    _read_all(copy)
    for name in names:
        whole = (copy / name).read_bytes()
        places = sorted({*range(0, len(whole), max(len(whole) // 5, 1)), len(whole) - 1})
        versions = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
        for altered in [*versions, b"", whole[: len(whole) // 2], b"[" * 100_000, None]:
            (copy / name).unlink()
            if altered is not None:
                (copy / name).write_bytes(altered)
            with pytest.raises(StoreError):
                _read_all(copy)
            (copy / name).write_bytes(whole)
    _read_all(copy)


def test_labels_of_another_data_set_are_found_out(tmp_path: Path, copy: Path) -> None:
    """Whole files that decode, but of another store."""
    other = tmp_path / "other.kd"
    write_store(other, make_case(ROWS, seed=9))
    for name in ("order", "labels"):
        mine = (copy / name / "c/0").read_bytes()
        (copy / name / "c/0").write_bytes((other / name / "c/0").read_bytes())
        with pytest.raises(DamagedError, match=f"{name}.*restore it from another copy"):
            getattr(Store.open(copy), name)
        (copy / name / "c/0").write_bytes(mine)
    assert len(Store.open(copy).labels) == ROWS


def test_altered_array_metadata_is_named(copy: Path) -> None:
    path = copy / SEGMENT / "gaps/zarr.json"
    path.write_bytes(path.read_bytes().replace(b'"data_type":"uint8"', b'"data_type":"uint16"'))
    with pytest.raises(StoreError, match="data_type' is 'uint16', expected uint8"):
        Store.open(copy).read(0, EVERYTHING)
