"""A folder as a place for a store: create-only, whole or absent, absent told from empty."""

import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdcache.errors import DamagedError, FormatError, InvalidInputError, StoreError
from kdcache.places import create_only
from kdcache.places.folder import Folder


def unsupported(*paths: object, **folders: int) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


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
    monkeypatch.setattr(os, "link", unsupported)
    monkeypatch.setattr(create_only, "rename_no_replace", unsupported)
    with pytest.raises(StoreError, match=r"no hard links.*no rename that refuses.*on a file system with hard links"):
        Folder(tmp_path).put_new("key", b"data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS])
def test_without_hard_links_a_rename_refuses_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*paths: str, **folders: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    folder = Folder(tmp_path)
    assert folder.put_new("a/key", b"first")
    assert not folder.put_new("a/key", b"second")
    assert folder.get("a/key") == b"first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["key"]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../b", "..", "a//b", "./a", "a/.", "a\0b"])
def test_a_key_that_leads_elsewhere_is_refused(tmp_path: Path, key: str) -> None:
    folder = Folder(tmp_path)
    for use in (folder.get, folder.size, folder.digest, folder.delete, lambda key: folder.put_new(key, b"")):
        with pytest.raises(InvalidInputError, match="no key of a store"):
            use(key)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_allowed_are_not_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "key").touch()
    os.truncate(tmp_path / "key", 2**40)
    with pytest.raises(FormatError, match=r"key has 1099511627776 bytes, allowed are 1000"):
        folder.get("key", limit=1000)
    assert folder.size("key") == 2**40


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def make_link(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.write_bytes(b"outside")
    path.symlink_to(outside)


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_link, Path.mkdir])
def test_only_regular_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = Folder(tmp_path / "store")
    folder.put_new("a/other", b"data")
    make(folder.path("a/key"))
    for use in (folder.get, folder.size, folder.digest, lambda key: folder.opened(key).__enter__()):
        with pytest.raises(DamagedError, match=r"a/key is a .*; a store holds regular files"):
            use("a/key")
    assert not folder.put_new("a/key", b"mine")


def test_a_folder_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    folder, outside = Folder(tmp_path / "store"), tmp_path / "outside"
    folder.put_new("a/key", b"data")
    outside.mkdir()
    (outside / "key").write_bytes(b"outside")
    folder.path("b").symlink_to(outside)
    uses: list[Callable[[str], object]] = [folder.get, folder.size, folder.digest, folder.delete]
    uses += [lambda key: folder.put_new(key, b"mine"), lambda key: folder.replace(key, b"mine")]
    for use in uses:
        with pytest.raises(DamagedError, match=r"store/b is a symbolic link"):
            use("b/key")
    for use_all in (lambda: list(folder.keys("b")), lambda: list(folder.keys("")), lambda: folder.folders("")):
        with pytest.raises(DamagedError, match=r"store/b is a symbolic link"):
            use_all()
    assert (outside / "key").read_bytes() == b"outside"
    assert [path.name for path in outside.iterdir()] == ["key"]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    Folder(tmp_path / "store").put_new("a/key", b"data")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert Folder(tmp_path / "link").get("a/key") == b"data"
    assert Folder(tmp_path / "link").put_new("a/other", b"data")


def test_a_key_that_exists_is_on_the_disk_before_it_is_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever created it may have died before the folder was synchronised."""
    folder = Folder(tmp_path)
    folder.put_new("a/key", b"data")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    assert not folder.put_new("a/key", b"data")
    assert synced[-1] == (tmp_path / "a").stat().st_ino
