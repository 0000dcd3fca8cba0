"""Files in parts: wherever the bytes lie, a part has what was asked for, less at the end, and nothing beyond it."""

import gc
import os
from pathlib import Path

import pytest

from kdcache.errors import DamagedError, StoreNotFoundError
from kdcache.places.parts import in_memory, open_local


def test_parts_end_where_the_file_ends(tmp_path: Path) -> None:
    data = bytes(range(100))
    (tmp_path / "x").write_bytes(data)
    (tmp_path / "link").symlink_to(tmp_path / "x")  # the user's own word
    for file in (in_memory(data), open_local(tmp_path / "x"), open_local(tmp_path / "link")):
        assert file.size == 100
        assert [file.part(offset, 30) for offset in (0, 30, 90, 100, 200)] == [
            data[:30],
            data[30:60],
            data[90:],
            b"",
            b"",
        ]


def test_a_file_that_was_cut_gives_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    file = open_local(tmp_path / "x")
    os.truncate(tmp_path / "x", 40)
    assert len(file.part(30, 30)) == 10


def test_a_local_file_is_closed_with_its_last_user(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    gc.collect()  # what earlier tests left
    before = set(os.listdir("/dev/fd"))
    file = open_local(tmp_path / "x")
    assert len(set(os.listdir("/dev/fd")) - before) == 1
    del file
    gc.collect()
    assert set(os.listdir("/dev/fd")) == before


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(DamagedError, match="fifo is a FIFO"):
        open_local(tmp_path / "fifo")
    with pytest.raises(StoreNotFoundError, match="nothing does not exist"):
        open_local(tmp_path / "nothing")
    assert len(os.listdir("/dev/fd")) == before  # what is refused is not left open
