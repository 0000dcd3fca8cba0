"""Libraries beside a store: each gives back the integers that it was given, and the store says the same of them."""

from pathlib import Path

import numpy as np
import pytest

from kdcache.labels.topk import TopKEncoding
from kdcache.store.reading import EncodedRows
from tests.benchmarks.libraries import kdcache_arms
from tests.benchmarks.libraries_peers import LIBRARIES, Tensorstore, ZarrBlosc, write_library
from tests.benchmarks.library import Arrays, Library
from tests.benchmarks.rows import Rows
from tests.benchmarks.sizes import encoding
from tests.benchmarks.store_bytes import byte_figures, given_order_bytes, parts_of, plain_arrays, write_both
from tests.benchmarks.stored import stored, write_store

SAMPLES, CLASSES = 300, 200


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.RandomState(0)
    logits = rng.normal(0, 3, (1, SAMPLES, CLASSES)).astype(np.float32)
    return Rows(logits, rng.randint(0, CLASSES, SAMPLES), np.arange(SAMPLES))


@pytest.fixture(scope="module")
def arrays(rows: Rows) -> Arrays:
    return plain_arrays(rows)


def test_a_row_is_68_bytes(arrays: Arrays) -> None:
    assert sum(array[0].nbytes for array in arrays.values()) == 68


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # mosaicml-streaming leaves its files to chance
@pytest.mark.parametrize("kind", LIBRARIES)
def test_a_library_gives_its_rows_back_in_the_order_asked_for(
    kind: type[Library], arrays: Arrays, tmp_path: Path
) -> None:
    if not kind.installed():
        pytest.skip(f"{kind.package} is not installed, nothing is known about it here")
    library, size = write_library(kind, arrays, tmp_path)
    asked = np.array([41, 3, 299, 0, 150])
    found = library.gather(library.open(), asked)
    assert found.keys() == arrays.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, arrays[name][asked])
    library.scan(library.open())
    assert 0 < size <= library.bytes_on_disk


def test_a_library_that_gives_back_others_is_not_measured(arrays: Arrays, tmp_path: Path) -> None:
    write_library(ZarrBlosc, arrays, tmp_path)
    moved = {**arrays, "ids": arrays["ids"] + 1}
    with pytest.raises(AssertionError, match="Tensorstore: ids"):
        write_library(Tensorstore, moved, tmp_path)  # which reads the files that are there


def test_a_store_holds_what_the_libraries_hold(rows: Rows, arrays: Arrays, tmp_path: Path) -> None:
    """Decoded from packed residuals and from the plain integers of the libraries: the same soft labels."""
    kept, order = stored(rows, encoding(20)), np.random.RandomState(1).permutation(SAMPLES)
    store = write_store(kept, tmp_path / "s.kd", order=order)
    plain = TopKEncoding(k=20, class_means=True)
    loose = {"classes": arrays["ids"], **{name: arrays[name] for name in ("gaps", "tail", "label", "pixels")}}
    wanted = EncodedRows(plain, store.identity.space, np.arange(SAMPLES), loose).soft_labels()
    asked = np.array([41, 3, 299, 0, 150])
    for name, arm in kdcache_arms(store).items():
        found, taken = arm.gather(arm.open(), asked), np.sort(asked) if "files" in name else asked
        soft = found.soft_labels() if isinstance(found, EncodedRows) else found
        for part in ("classes", "logits", "tail"):
            np.testing.assert_array_equal(getattr(soft, part), getattr(wanted, part)[taken], err_msg=f"{name}: {part}")
        arm.scan(arm.open())


def test_the_parts_of_a_store_are_all_of_its_bytes(rows: Rows, tmp_path: Path) -> None:
    store = write_store(stored(rows, encoding(20)), tmp_path / "s.kd")  # in the given order
    parts, layout = parts_of(store), store.segments[0].layout
    assert sum(parts.values()) == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    shards = [tmp_path / "s.kd" / layout.arrays[name].key(0) for name in layout.rowwise]
    assert (layout.blocks, parts["arrays"]) == (1, sum(path.stat().st_size for path in shards))
    assert all(size > 0 for size in parts.values())
    assert parts["order"] == given_order_bytes(SAMPLES)


def test_bytes_are_those_of_the_files_in_either_order(rows: Rows, tmp_path: Path) -> None:
    stores = [write_both(rows, SAMPLES // views, views, tmp_path / f"{views}.kd") for views in (1, 2)]
    assert [each.rows for each in stores] == [SAMPLES, SAMPLES]
    figures = list(byte_figures(stores, tmp_path))
    assert [figure.setting for figure in figures[:4]] == [
        f"{size}, k 20, {order} order"
        for size in ("300 samples, 1 view", "150 samples, 2 views")
        for order in ("shuffled", "given")
    ]
    parts = parts_of(stores[0].store)
    zarr = sum(path.stat().st_size for path in (tmp_path / "zarr0").rglob("*") if path.is_file())
    held = sum(parts.values()) - parts["canary, class means"]
    assert figures[0].measured == held / zarr
    assert figures[1].measured == (held - parts["order"] + given_order_bytes(SAMPLES)) / zarr < figures[0].measured
    assert figures[4].measured < figures[0].measured  # zarr holds more
    assert figures[4].details["table"]["rows"][0][-1] == f"{zarr / SAMPLES:.2f}"
