"""Far stores read ahead: in parts first, whole once, checked and bounded; and the cache that keeps whole shards."""

import json
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from kdcache.cli.app import main
from kdcache.errors import DamagedError
from kdcache.places import checked_files
from kdcache.places.cache import open_cache
from kdcache.places.place import Place
from kdcache.sharing.push_pull import push
from kdcache.store import read_ahead
from kdcache.store.read_ahead import AwaitedBlock, AwaitedFile, ReadAhead
from kdcache.store.shards import index_bytes
from kdcache.store.store import Store
from tests.kits.bucket import Proxy
from tests.kits.stores import make_case, write_store
from tests.kits.web import serving

SHARD = "classes/c/0/1/0"


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of 4 views whose `classes` shards are larger than what is always fetched whole; an empty cache."""
    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "cache"))
    write_store(tmp_path / "wide.kd", make_case(640, classes=400, k=120, views=4))
    return tmp_path / "wide.kd"


def values(store: Store, view: int) -> list[float]:
    return store.read(view, np.arange(store.rows)).log_probs(1.0).ravel().tolist()


def test_the_first_view_comes_in_parts_and_the_second_brings_whole_shards(wide: Path, place: str, s3: Proxy) -> None:
    push(str(wide), place)
    here, there = Store.open(wide), Store.open(place)
    s3.heal()
    assert values(there, 2) == values(here, 2)
    spans = [asked.headers.get("range", "") for asked in s3.asked if asked.key.endswith(SHARD)]
    assert len(spans) == 2
    assert all(spans)
    assert s3.sent < 0.5 * sum(path.stat().st_size for path in wide.rglob("*") if path.is_file())
    s3.heal()
    assert values(there, 0) == values(here, 0)
    assert [asked.headers.get("range", "") for asked in s3.asked if asked.key.endswith(SHARD)] == [""]
    s3.heal()
    for view in (1, 2, 3):
        assert values(Store.open(place), view) == values(here, view)  # another process's, too
    assert [asked.key for asked in s3.asked if "/c/" in asked.key] == []


def test_a_view_is_read_by_many_requests_at_once(wide: Path, place: str, s3: Proxy) -> None:
    push(str(wide), place)
    store, lock, now, most = Store.open(place), threading.Lock(), 0, 0

    def counted(asked: object) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.01)
        with lock:
            now -= 1

    s3.before = counted
    assert values(store, 0) == values(Store.open(wide), 0)
    assert most >= 8


def test_a_forged_shard_is_refused_by_its_sha256_once_it_comes_whole(wide: Path, tmp_path: Path) -> None:
    """What is read of it in parts may be as it was: the whole is not."""
    with serving(tmp_path) as site:
        store = Store.open(f"{site.url}/wide.kd")
        store.read(0, np.arange(640))
        shard = wide / "views-00000-00004" / SHARD
        data = shard.read_bytes()
        at = len(data) - index_bytes(4) - 9
        shard.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])  # in the chunk of view 3
        for _ in range(2):
            with pytest.raises(
                DamagedError, match=rf"{SHARD} has sha256 .*, committed was .*; publish the store again"
            ):
                store.read(1, np.arange(640))


def test_a_cache_that_is_emptied_meanwhile_is_filled_again(wide: Path, place: str) -> None:
    push(str(wide), place)
    store, here = Store.open(place), Store.open(wide)
    for view in (0, 1, 2, 3, 0):
        assert values(store, view) == values(here, view)
        if view == 2:
            open_cache().clear()


def test_no_cache(wide: Path, place: str, s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_CACHE_LIMIT", "0")
    push(str(wide), place)
    store = Store.open(place)
    for view in (0, 1, 0):
        assert values(store, view) == values(Store.open(wide), view)
    assert not (tmp_path / "cache").exists()
    assert cast(ReadAhead, store.folder)._parts == {}  # what was fetched ahead serves one read


def test_the_command_line(wide: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    push(str(wide), place)
    store = Store.open(place)
    for view in (0, 1):
        store.read(view, np.arange(640))

    def cache(*given: str) -> dict[str, int]:
        with pytest.raises(SystemExit) as ended:
            main(["cache", *given, "--json"])
        assert not ended.value.code
        found: dict[str, int] = json.loads(capsys.readouterr().out)
        return found

    before = cache()
    assert before["files"] > 40
    cleared = cache("--clear")
    removed = {name: cleared[f"removed_{name}"] for name in ("files", "bytes")}
    assert (cleared["files"], removed) == (0, {name: before[name] for name in removed})


def test_a_cache_that_is_smaller_than_the_store_does_not_multiply_what_is_fetched(
    wide: Path, place: str, s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each whole shard comes once; what the cache has lost comes in parts."""
    push(str(wide), place)
    size = sum(path.stat().st_size for path in wide.rglob("*") if path.is_file())
    monkeypatch.setenv("KDCACHE_CACHE_LIMIT", str(size // 4))
    store, here = Store.open(place), Store.open(wide)
    s3.heal()
    for view in (0, 1, 2, 3, 0, 1):
        assert values(store, view) == values(here, view)
    assert s3.sent < 3.5 * size


def test_a_shard_that_is_evicted_before_it_is_read_is_not_read_unchecked(wide: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        store = Store.open(f"{site.url}/wide.kd")
        for view in (0, 1):
            store.read(view, np.arange(640))
        shard = wide / "views-00000-00004" / SHARD
        data = shard.read_bytes()
        far = cast(ReadAhead, store.folder)
        open_cache().clear()
        with far.opened(f"views-00000-00004/{SHARD}") as file:
            assert file.part(0, file.size) == data
        shard.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
        with (
            pytest.raises(DamagedError, match=r"has sha256 .*, committed was"),
            far.opened(f"views-00000-00004/{SHARD}"),
        ):
            pass


def test_whole_shards_in_memory_are_bounded(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all threads; and a size that no shard has is not fetched, whatever a commit says."""
    monkeypatch.setattr(read_ahead, "HELD", 60_000)
    lock, held, most = threading.Lock(), 0, 0
    real = checked_files.require_sha256

    def counted(place: Place, key: str, size: int, sha256: str, *, says: str) -> bytes:
        nonlocal held, most
        with lock:
            held += size
            most = max(most, held)
        threading.Event().wait(0.01)
        with lock:
            held -= size
        return real(place, key, size, sha256, says=says)

    monkeypatch.setattr(read_ahead, "require_sha256", counted)
    with serving(tmp_path) as site:
        store = Store.open(f"{site.url}/wide.kd")
        for view in (0, 1):
            assert values(store, view) == values(Store.open(wide), view)
        assert 30_000 < most <= 60_000
        far = cast(ReadAhead, store.folder)
        asked = len(site.asked)
        far.expect([AwaitedBlock("none", b"", (AwaitedFile(f"wide.kd/{SHARD}", 2**40, "0" * 64, 0, 4, 1000),))])
        assert [key for key, _ in site.asked[asked:] if "classes" in key] == []
