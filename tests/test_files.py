"""A folder as a place for a store: create-only, whole or absent, absent told from empty."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdcache.errors import DamagedError, StoreError
from kdcache.files import Folder


def test_a_key_is_written_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.put_new("a/b/c", b"first")
    assert not folder.put_new("a/b/c", b"second")
    assert folder.get("a/b/c") == b"first"
    folder.put_same("a/b/c", b"first")
    with pytest.raises(StoreError, match="other contents"):
        folder.put_same("a/b/c", b"second")


def test_absent_is_not_empty(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put_new("empty", b"")
    assert (folder.get("empty"), folder.size("empty")) == (b"", 0)
    assert (folder.get("absent"), folder.size("absent")) == (None, None)
    assert folder.get("empty/below") is None
    with pytest.raises(DamagedError, match="do this"):
        folder.require("absent", "do this")


def test_what_is_gone_may_be_deleted(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put_new("a/key", b"data")
    for key in ("a/key", "a/key", "nowhere/at/all", "a/key/below"):
        folder.delete(key)
    assert list(folder.keys("")) == []


def test_of_many_writers_one_wins_and_its_bytes_stand_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    contents = [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(lambda data: folder.put_new("deep/key", data), contents))
    assert sum(won) == 1
    assert folder.get("deep/key") == contents[won.index(True)]
    assert list(folder.keys("")) == ["deep/key"]


def test_what_a_killed_writer_left_is_no_key(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put_new("a/key", b"data")
    (tmp_path / "a/.tmp-0123").write_bytes(b"half")
    assert list(folder.keys("")) == ["a/key"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    folder = Folder(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*run the same command again"):
        folder.put_new("key", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    with pytest.raises(StoreError, match="hard links"):
        Folder(tmp_path).put_new("key", b"data")
    assert list(tmp_path.iterdir()) == []
