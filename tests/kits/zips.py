"""Zip files in memory, sound and hostile, and an export that dies on its way."""

import os
import signal
import struct
import time
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from kdcache.errors import KdcacheError
from kdcache.places.parts import Parts, in_memory
from kdcache.places.zip_format import ZipWriter
from kdcache.sharing.export import export_store
from kdcache.store.store import Store
from tests.kits.attacks import limit_memory
from tests.kits.stores import all_files


def written(entries: dict[str, bytes], full: int = 2**32 - 1) -> Parts:
    """An archive in memory; sizes and offsets from `full` on are written as those of large files."""
    file = BytesIO()
    writer = ZipWriter(file, full=full)
    for name, data in entries.items():
        writer.add(name, len(data), [data])
    writer.close()
    return in_memory(file.getvalue())


def export_until(store: str, target: str, part: int) -> None:
    """Export, and die once that many quarters are written."""

    def report(what: str, done: int, total: int) -> None:
        if done >= total * part // 4:
            os.kill(os.getpid(), signal.SIGKILL)

    export_store(store, target, progress=report)


@dataclass
class Raw:
    """One entry as it will be written: any field of either header may lie."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0
    mode: int = 0o100644
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    extra: bytes = b""
    local: dict[str, Any] = field(default_factory=dict)  # what the entry's own header says instead
    header: int | None = None  # where the central directory says that it begins
    listed: bool = True

    def fields(self, **changes: Any) -> tuple[int, ...]:
        given = {"method": self.method, "flags": self.flags, "size": self.size, "packed": self.packed, "crc": self.crc}
        given |= changes
        size = len(self.data) if given["size"] is None else given["size"]
        packed = len(self.data) if given["packed"] is None else given["packed"]
        crc = zlib.crc32(self.data) if given["crc"] is None else given["crc"]
        return given["flags"], given["method"], 0, 33, crc, packed, size


def build(entries: list[Raw], *, before: bytes = b"", behind: bytes = b"", comment: bytes = b"", **end: int) -> bytes:
    """A zip archive of these entries; `end` are fields of its last record: count, size, first, disk."""
    body, central = bytearray(before), bytearray()
    for each in entries:
        at = len(body) if each.header is None else each.header
        own = each.local.get("name", each.name)
        changes = {key: value for key, value in each.local.items() if key != "name"}
        body += struct.pack("<4sH", b"PK\3\4", 20) + struct.pack("<4H3I", *each.fields(**changes))
        body += struct.pack("<2H", len(own), 0) + own + each.data
        if each.listed:
            central += struct.pack("<4s2H", b"PK\1\2", 3 << 8 | 20, 20) + struct.pack("<4H3I", *each.fields())
            central += struct.pack("<5H2I", len(each.name), len(each.extra), 0, 0, 0, each.mode << 16, at)
            central += each.name + each.extra
    given = {"count": sum(each.listed for each in entries), "size": len(central), "first": len(body), "disk": 0} | end
    numbers = (given["disk"], 0, given["count"], given["count"], given["size"], given["first"], len(comment))
    return bytes(body + central) + struct.pack("<4s4H2IH", b"PK\5\6", *numbers) + comment + behind


def raw_entries(store: Path) -> list[Raw]:
    """The files of a folder as sound entries."""
    return [Raw(name.encode(), data) for name, data in sorted(all_files(store).items())]


def entry_of(entries: list[Raw], name: str) -> Raw:
    return next(each for each in entries if each.name == name.encode())


def open_in_little_memory(path: str) -> tuple[str, float]:
    """Why a store does not open, and the seconds that it takes, in a process that has 512 MB."""
    limit_memory()
    began = time.process_time()
    try:
        Store.open(path)
    except KdcacheError as error:
        return str(error).partition(";")[0], time.process_time() - began
    return "", 0.0
