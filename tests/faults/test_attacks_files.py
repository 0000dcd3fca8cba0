"""Attacks by files: links out of a store, files that are none, and shards that decode to more than they should."""

import os
import shutil
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

from kdcache.errors import KdcacheError
from kdcache.store.store import Store
from kdcache.whole_store.verify import forget_blocks, inspect_files
from tests.kits.attacks import (
    COMMIT,
    SEGMENT,
    SHARD,
    attacked,
    checked,
    chunks_of,
    good_store,
    put_shard,
    read_digest,
    shard_of,
)

MANIFEST = "kdcache/manifest.json"
GONE = 2**64 - 1


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_store(tmp_path_factory.mktemp("good") / "good.kd")


@pytest.fixture(scope="module")
def truth(good: Path) -> str:
    return read_digest(Store.open(good), everything=True)


def outside(store: Path) -> Path:
    """A whole copy of the store where nothing may be opened."""
    there = store.parent / "outside"
    if not there.exists():
        shutil.copytree(store, there)
    return there


def linked(key: str) -> Callable[[Path], None]:
    """A file or a folder of the store becomes a link to its own copy outside: all that is read there is right."""

    def make(store: Path) -> None:
        there = outside(store) / key
        shutil.rmtree(store / key) if (store / key).is_dir() else (store / key).unlink()
        (store / key).symlink_to(there)

    return make


def instead(key: str, create: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something that is no regular file in the place of one."""

    def make(store: Path) -> None:
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).unlink(missing_ok=True)
        create(store / key)

    return make


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        folder = os.open(path.parent, os.O_RDONLY)  # a socket's path has at most 108 characters
        try:
            listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def header(chunk: bytes, **changes: int) -> bytes:
    """A chunk whose frame announces something else, with the right checksum."""
    names = ("version", "codec", "flags", "typesize", "decoded", "blocksize", "size")
    fields = dict(zip(names, struct.unpack_from("<BBBBIII", chunk), strict=True))
    return checked(struct.pack("<BBBBIII", *{**fields, **changes}.values()) + chunk[16:-4])


def frames(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda store: put_shard(store, shard_of([change(chunk) for chunk in chunks_of(store)]))


def packed(data: bytes, **settings: Any) -> bytes:
    return checked(bytes(numcodecs.Blosc(**{"cname": "zstd", "typesize": 1, **settings}).encode(data)))


def entries(change: Callable[[list[tuple[int, int]], int], list[tuple[int, int]]]) -> Callable[[Path], None]:
    """The good chunks under another index, with the right checksum."""

    def make(store: Path) -> None:
        chunks = chunks_of(store)
        first, second = len(chunks[0]), len(chunks[1])
        put_shard(store, shard_of(chunks, change([(0, first), (first, second)], first + second)))

    return make


BOMB = 3 * 10**8  # bytes; compressed, some 100 kB
FILES: dict[str, Callable[[Path], Any]] = {
    "a shard that is a link": linked(SHARD),
    "an array's folder that is a link": linked(f"{SEGMENT}/classes"),
    "a folder of shards that is a link": linked(f"{SEGMENT}/classes/c/0"),
    "a segment's folder that is a link": linked(SEGMENT),
    "a manifest that is a link": linked(MANIFEST),
    "the folder of records that is a link": linked("kdcache"),
    "a segment's records that are a link": linked(f"kdcache/{SEGMENT}"),
    "the folder of commits that is a link": linked(f"kdcache/{SEGMENT}/commits"),
    "a commit that is a link": linked(COMMIT),
    "an order that is a link": linked("order/c/0"),
    "labels that are a link": linked("labels"),
    "zarr.json that is a link": linked(f"{SEGMENT}/gaps/zarr.json"),
    "a link that leads nowhere": instead(SHARD, lambda path: path.symlink_to("/nowhere/at/all")),
    "a link to itself": instead(SHARD, lambda path: path.symlink_to(path)),
    "a link to endless zeros": instead(MANIFEST, lambda path: path.symlink_to("/dev/zero")),
    "seals that are a link": lambda store: (store / "kdcache/seals").symlink_to(outside(store)),
    "latest that is a link": instead("kdcache/seals/latest", lambda path: path.symlink_to("/etc/hostname")),
    "a card that is a link": instead("kdcache/card.json", lambda path: path.symlink_to("/etc/hostname")),
    "a FIFO for a manifest": instead(MANIFEST, os.mkfifo),
    "a FIFO for a shard": instead(SHARD, os.mkfifo),
    "a FIFO for a commit": instead(COMMIT, os.mkfifo),
    "a FIFO for latest": instead("kdcache/seals/latest", os.mkfifo),
    "a FIFO for a card": instead("kdcache/card.json", os.mkfifo),
    "a FIFO for an order": instead("order/c/0", os.mkfifo),
    "a socket for a shard": instead(SHARD, bind),
    "a directory for a manifest": instead(MANIFEST, Path.mkdir),
    "a directory for a shard": instead(SHARD, Path.mkdir),
    "a directory for a commit": instead(COMMIT, Path.mkdir),
    "a directory for latest": instead("kdcache/seals/latest", Path.mkdir),
    "a chunk that decodes to 300 MB": frames(lambda chunk: packed(bytes(BOMB))),
    "a chunk that announces 4 GB": frames(lambda chunk: header(chunk, decoded=2**32 - 1)),
    "a chunk that announces 0 bytes": frames(lambda chunk: header(chunk, decoded=0)),
    "a chunk that announces one byte less": frames(lambda chunk: header(chunk, decoded=639)),
    "a frame longer than its chunk": frames(lambda chunk: header(chunk, size=2**31)),
    "a frame shorter than its chunk": frames(lambda chunk: header(chunk, size=17)),
    "a blocksize of 4 GB": frames(lambda chunk: header(chunk, blocksize=2**32 - 1)),
    "a blocksize of 0": frames(lambda chunk: header(chunk, blocksize=0)),
    "a version of blosc to come": frames(lambda chunk: header(chunk, version=9)),
    "chunks of another compressor": frames(lambda chunk: packed(bytes(640), cname="lz4")),
    "chunks of noise": frames(lambda chunk: header(checked(chunk[:16] + os.urandom(len(chunk) - 20)))),
    "chunks without a frame": frames(lambda chunk: checked(b"")),
    "class ids that no teacher has": frames(lambda chunk: packed(np.full(320, 60_000, "<u2").tobytes(), typesize=2)),
    "chunks that are said to be missing": entries(lambda placed, end: [(GONE, GONE)] * 2),
    "a chunk far outside": entries(lambda placed, end: [(2**63, 100), placed[1]]),
    "a chunk that wraps around": entries(lambda placed, end: [placed[0], (2**64 - 8, 16)]),
    "a chunk that ends in the index": entries(lambda placed, end: [placed[0], (placed[1][0], placed[1][1] + 16)]),
    "chunks that share their bytes": entries(lambda placed, end: [placed[0], placed[0]]),
    "an index alone": lambda store: put_shard(store, shard_of([b"", b""])),
    "a shard of 5 bytes": lambda store: put_shard(store, b"12345"),
    "an empty shard": lambda store: put_shard(store, b""),
    "a shard of 1 TiB": lambda store: put_shard(store, None, 2**40),
    "an order that decodes to 300 MB": lambda store: (store / "order/c/0").write_bytes(packed(bytes(BOMB))),
    "an order of 1 TiB": lambda store: os.truncate(store / "order/c/0", 2**40),
    "labels without a frame": lambda store: (store / "labels/c/0").write_bytes(b"labels"),
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_hostile_file_is_refused_by_name(good: Path, truth: str, tmp_path: Path, name: str) -> None:
    found = attacked(good, tmp_path, FILES[name])
    assert found.refused, found.text
    assert any(str(tmp_path / "hostile.kd") in found.steps[step] for step in found.refused)
    everything = found.steps["everything"]
    assert everything == truth or "everything" in found.refused, "other data were read in silence"


@pytest.mark.parametrize("key", [SHARD, f"{SEGMENT}/classes/c/0", f"kdcache/{SEGMENT}/commits/000", COMMIT])
def test_repair_removes_nothing_outside(good: Path, tmp_path: Path, key: str) -> None:
    """A link is removed itself or refused; what it leads to stays."""
    store = Path(shutil.copytree(good, tmp_path / "hostile.kd"))
    linked(key)(store)
    before = sorted((tmp_path / "outside").rglob("*"))
    findings = inspect_files(str(store)).findings
    assert findings
    with suppress(KdcacheError):
        forget_blocks(str(store), findings)
    assert sorted((tmp_path / "outside").rglob("*")) == before
