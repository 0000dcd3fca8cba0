"""Addresses: a process opens a store once a use, without holding up other stores, and drops it when the use ends."""

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdcache.sharing.export import export_store
from kdcache.store.store import Store
from kdcache.whole_store import store_address
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.store_address import StoreAddress, shared_address
from tests.kits.stores import make_case, write_store
from tests.kits.web import Site, serving, uncached


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two stores on a web server, as folders and as zip files."""
    for name in ("slow", "quick"):
        write_store(tmp_path / f"{name}.kd", make_case(130, views=1))
        export_store(str(tmp_path / f"{name}.kd"), str(tmp_path / f"{name}.zip"))
    with uncached(), serving(tmp_path) as site:
        yield site


def use(address: StoreAddress) -> str | None:
    """Open a store and read all that readers keep."""
    store = address.store()
    assert len(store.order) == len(store.labels) == 130
    store.segments[0].commit_of(0)
    return store.content_id


@pytest.mark.parametrize(
    ("kind", "piece"),
    [("kd", "manifest.json"), ("kd", "order/c"), ("kd", "labels/c"), ("kd", "commits-"), ("zip", "slow.zip")],
)
def test_a_store_that_answers_slowly_holds_up_no_other(site: Site, kind: str, piece: str) -> None:
    """The slow one answers only once the quick one is open."""
    reached, released = threading.Event(), threading.Event()

    def hold(key: str) -> None:
        if key.startswith("slow") and piece in key:
            reached.set()
            assert released.wait(60)

    site.before = hold
    slow, quick = (StoreAddress(f"{site.url}/{name}.{kind}", None, name) for name in ("slow", "quick"))
    ids = {name: Store.open(site.folder / f"{name}.kd").content_id for name in ("slow", "quick")}
    slow, quick = (StoreAddress(address.url, ids[address.use], address.use) for address in (slow, quick))
    try:
        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(use, slow)
            try:
                assert reached.wait(60)
                assert threads.submit(use, quick).result(5) == ids["quick"]
                assert not waiting.done()
            finally:
                released.set()
            assert waiting.result() == ids["slow"]
    finally:
        store_address.drop(slow, quick)


def test_threads_of_a_process_open_a_store_once(site: Site) -> None:
    address = StoreAddress(f"{site.url}/slow.kd", Store.open(site.folder / "slow.kd").content_id, "once")
    began = threading.Barrier(8)
    try:
        with ThreadPoolExecutor(8) as threads:
            stores = list(threads.map(lambda _: (began.wait(), address.store())[1], range(8)))
            assert len(set(map(id, stores))) == 1
            list(threads.map(lambda _: use(address), range(8)))
        keys = [key for key, _ in site.asked if "manifest" in key or "commits-" in key or "order/zarr.json" in key]
        assert len(keys) == len(set(keys)) == 3
    finally:
        store_address.drop(address)


def test_a_store_that_could_not_be_opened_is_opened_the_next_time(tmp_path: Path) -> None:
    address = StoreAddress(str(tmp_path / "a.kd"), None, "again")
    with pytest.raises(Exception, match="does not exist"):
        address.store()
    write_store(tmp_path / "a.kd", make_case(70, views=1))
    assert address.store().rows == 70
    store_address.drop(address)


def test_a_use_that_has_ended_keeps_nothing(tmp_path: Path) -> None:
    """Nor does a task that outlasts it."""
    store = write_store(tmp_path / "a.kd", make_case(70, views=1))
    with shared_address(store) as address:
        assert address.store() is store
        assert address.kept("x", object) is address.kept("x", object)
    assert address.store() is not store
    assert address.kept("x", object) is not address.kept("x", object)
    assert address not in store_address._open_stores
    other, kept = write_store(tmp_path / "b.kd", make_case(70, views=1)), weakref.ref(store)
    diff_stores(store, other, rows=0)
    del store
    gc.collect()
    assert kept() is None
