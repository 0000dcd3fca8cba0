"""The folder of a cache: its room, its owner, and what ends the cache alone, whatever a disk does."""

import errno
import gc
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.cache_options import CacheOptions
from kdcache.errors import InvalidInputError
from kdcache.views import cache_folder
from kdcache.views.cache_folder import CacheFolder
from kdcache.views.cache_keys import open_caches
from kdcache.views.draw import ViewDataset
from kdcache.views.pixel_caches import room_notes
from kdcache.views.transforms import build_transform
from kdcache.views.view_cache import OPEN, cached_bytes
from tests.kits.small_disk import leave, small_disk
from tests.kits.users import ATTACKER, VICTIM, as_user, open_to_all, require_root
from tests.kits.views import plan_of
from tests.views.test_view_cache import (
    DATA,
    KINDS,
    ROWS,
    VIEWS,
    dataset,
    filled,
    key_folder,
    request,
    require_equal,
    view_files,
)  # fmt: skip

__all__ = ["filled"]


def test_without_room_views_are_drawn(tmp_path: Path) -> None:
    """A limit that holds the file of one view and not of two."""
    size = view_size() * 1.5 / 1e9
    caching = dataset(tmp_path, gigabytes=size)
    for view in VIEWS:
        require_equal(caching[request(view)], dataset("")[request(view)])
    assert [dataset(tmp_path, gigabytes=size)[request(view)].served for view in VIEWS] == [ROWS, 0]
    cache = caching.caches.views
    assert cache is not None
    assert cache.held(list(VIEWS)) == (1, 2)
    assert cache.folder.used() <= cache.folder.limit
    assert cache.folder.room() < view_size()


def view_size() -> int:
    return cached_bytes(ROWS, DATA.samples[0][0].nbytes)


def test_keys_that_nobody_uses_make_room_and_readers_keep_what_they_have(tmp_path: Path) -> None:
    limit = view_size() * 1.5 / 1e9
    old = dataset(tmp_path, gigabytes=limit)
    old[request()]
    assert old.caches.views is not None
    new_plan = plan_of("light", seed=9)

    def newer() -> int:
        caches = open_caches(CacheOptions(views=str(tmp_path), gigabytes=limit), DATA, new_plan, KINDS, checked=True)
        caching = ViewDataset(DATA.samples, np.arange(ROWS), new_plan, build_transform("light", {})[0], KINDS)
        caching.caches = caches
        caching[request()]
        return caching[request()].served

    assert newer() == 0  # the other key is in use
    old.caches.views.folder.close()
    assert newer() == ROWS
    assert len(list((tmp_path / "views").iterdir())) == 1
    assert old[request(0)].served == ROWS  # its files are mapped


def test_a_disk_that_is_nearly_full_keeps_its_last_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folder, "FREE", 10**18)
    caching = dataset(tmp_path)
    require_equal(caching[request()], dataset("")[request()])
    assert view_files(tmp_path) == []


def test_files_and_folders_are_the_user_s_alone(filled: Path) -> None:
    key = key_folder(filled)
    assert {path.stat().st_mode & 0o777 for path in (key.parent, key)} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in (*key.iterdir(), filled / ".room")} == {0o600}
    view_files(filled)[0].chmod(0o666)
    assert [dataset(filled)[request(view)].served for view in VIEWS] == [0, ROWS]
    key.chmod(0o777)
    with pytest.raises(InvalidInputError, match=r"may be written by others than you.*name another folder, or leave"):
        dataset(filled)


def _begin(folder: str) -> str:
    try:
        CacheFolder(folder, "views", {}, 10**9).begin()
    except InvalidInputError as error:
        return str(error)
    return ""


def test_another_user_s_cache_is_refused() -> None:
    require_root()
    with open_to_all() as folder:
        assert as_user(ATTACKER, _begin, str(folder / "cache")) == ""
        refusal = as_user(VICTIM, _begin, str(folder / "cache"))
    assert f"belongs to uid {ATTACKER}" in refusal
    assert "name another folder, or leave the cache out" in refusal


def test_a_folder_that_is_deleted_in_use_ends_the_cache_alone(tmp_path: Path) -> None:
    for depth in range(3):
        root = tmp_path / f"{depth}"
        caching = dataset(root)
        caching[request(0, range(10))]
        shutil.rmtree((root, root / "views", key_folder(root))[depth])
        for view in VIEWS:
            require_equal(caching[request(view)], dataset("")[request(view)])
        cache = caching.caches.views
        assert cache is not None
        assert "cannot be written" in cache.folder.problem
        assert [note.endswith("not all was cached") for note in room_notes(cache, list(VIEWS), 1)] == [True]


def test_a_full_disk_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folder, "FREE", 0)
    with small_disk(tmp_path / "disk", 2**20) as disk:
        leave(disk, 0)
        caching = dataset(disk / "cache")
        require_equal(caching[request()], dataset("")[request()])
        cache = caching.caches.views
        notes = [*caching.caches.notes, *(room_notes(cache, list(VIEWS), 1) if cache is not None else ())]
        assert len(notes) == 1


def test_a_filled_cache_on_a_disk_that_is_read_only_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folder, "FREE", 0)
    with small_disk(tmp_path / "disk") as disk:
        dataset(disk / "cache")[request()]
        gc.collect()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        caching = dataset(disk / "cache")
        assert [caching[request(view)].served for view in VIEWS] == [ROWS, 0]
        require_equal(caching[request(1)], dataset("")[request(1)])


def test_without_locks_no_key_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(cache_folder.fcntl, "flock", no_locks)
    limit = view_size() * 1.5 / 1e9
    caching = dataset(tmp_path, gigabytes=limit)
    for view in VIEWS:
        require_equal(caching[request(view)], dataset("")[request(view)])
    assert dataset(tmp_path, gigabytes=limit)[request(0)].served == ROWS


def test_few_descriptors_are_taken(tmp_path: Path) -> None:
    """A process may have some hundred: a cache of many views takes a part of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        caching = dataset(tmp_path)
        for view in range(200):
            assert caching[request(view, range(2))].served == 0
        assert caching[request(3, range(2))].served == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_bytes_that_were_counted_wrongly_are_counted_anew(filled: Path) -> None:
    for text in ("0", "no number", "9" * 15):
        (filled / ".room").write_text(text)
        assert dataset(filled).caches.views is not None
        used = sum(path.stat().st_size for path in key_folder(filled).iterdir())
        assert int((filled / ".room").read_text()) == used


def test_a_row_without_room_asks_the_disk_once_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caching = dataset(tmp_path, gigabytes=1e-9)
    opens = 0
    plain = cache_folder.CacheFolder.open

    def counted(self: CacheFolder, name: str) -> int | None:
        nonlocal opens
        opens += 1
        return plain(self, name)

    monkeypatch.setattr(cache_folder.CacheFolder, "open", counted)
    caching[request(0, range(1))]
    before = opens
    caching[request()]
    assert opens == before


@pytest.mark.parametrize(("limit", "most"), [(resource.RLIM_INFINITY, OPEN), (2, 1), (1024, 256)])
def test_files_are_mapped_within_a_process_s_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    cache = dataset(tmp_path).caches.views
    assert cache is not None
    assert cache._most == most
