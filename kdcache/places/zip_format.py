"""A zip file of a store holds its files uncompressed, one after the other; all other archives are refused.

A store needs one kind of archive: stored entries that fill the file from its first byte to the central directory, each
byte once. All else is refused before an entry is opened, since an archive may be a stranger's. The standard library's
zipfile reads archives of every kind, follows the central directory wherever it leads, and writes headers that depend on
its version.
"""

import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from kdcache.base.limits import DEPTH_MAX, ZIP_DIRECTORY_LIMIT, ZIP_ENTRIES_MAX
from kdcache.errors import FormatError
from kdcache.places.parts import Parts

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF  # "the number stands in a zip64 record"
FULL = (FULL16, FULL16, FULL32, FULL32)  # entries here and in all, size and offset of the central directory
UTF8 = 0x800
DATE = 1 << 5 | 1  # 1980-01-01, the first that a zip can say
UNIX = 3 << 8
VERSION, VERSION64 = 20, 45
PART = r"(?!\.\.?(?:/|\Z))[ -.0-\[\]-~]{1,255}"  # printable, no backslash, neither . nor ..
NAME = re.compile(rf"{PART}(?:/{PART}){{0,{DEPTH_MAX - 1}}}/?")
MODE = (stat.S_IFREG | 0o644) << 16
ADVICE = "fetch it again, or write it anew with kdcache export"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: offset of its local header, offset, number and crc32 of its bytes."""

    name: str
    header: int
    start: int
    size: int
    crc: int


class ZipWriter:
    """A writer puts entries into a seekable file. Equal names and bytes make equal files, on every machine."""

    def __init__(self, file: BinaryIO, *, full: int = FULL32) -> None:
        """Sizes and offsets from `full` on are written in 64 bits; a test lowers it."""
        self._file, self._full = file, full
        self._entries: list[Entry] = []

    def add(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write one entry of `size` bytes; its header is completed once their crc32 is known."""
        header = self._file.tell()
        self._file.write(_local(name, size, 0, self._full))
        start, crc = self._file.tell(), 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            self._file.write(piece)
        end = self._file.tell()
        assert end - start == size, (name, size, end - start)
        self._file.seek(header)
        self._file.write(_local(name, size, crc, self._full))
        self._file.seek(end)
        self._entries.append(Entry(name, header, start, size, crc))

    def close(self) -> None:
        """Write the central directory and the records behind it."""
        first = self._file.tell()
        for entry in self._entries:
            self._file.write(_central(entry, self._full))
        count, size = len(self._entries), self._file.tell() - first
        if count >= FULL16 or size >= self._full or first >= self._full:
            end = first + size
            self._file.write(
                END64.pack(b"PK\6\6", END64.size - 12, UNIX | VERSION64, VERSION64, 0, 0, count, count, size, first)
            )
            self._file.write(LOCATOR.pack(b"PK\6\7", 0, end, 1))
        short = min(count, FULL16)
        self._file.write(
            END.pack(b"PK\5\6", 0, 0, short, short, *(_short(value, self._full) for value in (size, first)), 0)
        )


def _local(name: str, size: int, crc: int, full: int) -> bytes:
    extra = _zip64(size, size) if size >= full else b""
    version, short, data = VERSION64 if extra else VERSION, _short(size, full), name.encode("ascii")
    return LOCAL.pack(b"PK\3\4", version, 0, 0, 0, DATE, crc, short, short, len(data), len(extra)) + data + extra


def _central(entry: Entry, full: int) -> bytes:
    sizes = [entry.size] * 2 if entry.size >= full else []
    extra = _zip64(*sizes, *([entry.header] if entry.header >= full else []))
    version, short, data = VERSION64 if extra else VERSION, _short(entry.size, full), entry.name.encode("ascii")
    numbers = (version, 0, 0, 0, DATE, entry.crc, short, short, len(data), len(extra), 0, 0, 0)
    return CENTRAL.pack(b"PK\1\2", UNIX | version, *numbers, MODE, _short(entry.header, full)) + data + extra


def _short(value: int, full: int) -> int:
    """The 32-bit field of a number: the number, or the mark that a 64-bit field holds it."""
    return value if value < full else FULL32


def _zip64(*values: int) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def read_entries(file: Parts, name: str) -> dict[str, Entry]:
    """Name -> entry of an archive, without directories, by its central directory, which is bounded before it is read.

    Raises FormatError for an archive that is not stored entries one after the other and nothing else.
    """
    count, size, first = _end(file, name)
    directory = file.part(first, size)
    if len(directory) != size:
        raise _refused(name, f"ends after {len(directory)} of the {size} bytes of its central directory")
    try:
        entries = sorted(_listed(directory, count, name), key=lambda entry: entry.header)
    except struct.error as error:
        raise _refused(name, "has a central directory that is cut off") from error
    return _placed(entries, first, name)


def check_header(file: Parts, entry: Entry, name: str) -> None:
    """Raises FormatError where an entry's own header differs from the central directory."""
    data = file.part(entry.header, entry.start - entry.header)
    if len(data) != entry.start - entry.header:
        raise _refused(name, f"ends in the header of {entry.name}")
    signature, _, flags, method, _, _, crc, size_in_zip, size, name_length, extra_length = LOCAL.unpack_from(data)
    entry_name, extra = data[LOCAL.size : LOCAL.size + name_length], data[LOCAL.size + name_length :]
    try:
        size, size_in_zip = _full(extra, [size, size_in_zip])
    except (ValueError, struct.error):
        size = -1
    fields = (signature, flags & ~UTF8, method, crc, size_in_zip, size, entry_name, extra_length)
    if fields != (b"PK\3\4", 0, 0, entry.crc, entry.size, entry.size, entry.name.encode("ascii"), len(extra)):
        raise _refused(name, f"has a header of {entry.name} that differs from its central directory")


def _end(file: Parts, name: str) -> tuple[int, int, int]:
    """The number of entries, and size and offset of the central directory, from the last bytes of a file."""
    length_64 = END64.size + LOCATOR.size + END.size
    length = min(file.size, length_64)
    tail = file.part(file.size - length, length)
    if len(tail) < END.size or tail[-END.size :][:4] != b"PK\5\6":
        raise _refused(name, "is no zip archive, or has a comment or other bytes behind its end")
    _, disk, first_disk, here, count, size, first, comment = END.unpack(tail[-END.size :])
    end, short = file.size - END.size, (here, count, size, first)
    if len(tail) == length_64 and tail[END64.size :][:4] == b"PK\6\7":
        _, locator_disk, offset, disks = LOCATOR.unpack(tail[END64.size : -END.size])
        signature, size64, _, _, disk64, first64, here, count, size, first = END64.unpack(tail[: END64.size])
        end = file.size - len(tail)
        records = (locator_disk, offset, disks, signature, size64, disk64, first64)
        agree = all(a in (b, full) for a, b, full in zip(short, (here, count, size, first), FULL, strict=True))
        if records != (0, end, 1, b"PK\6\6", END64.size - 12, 0, 0) or not agree:
            raise _refused(name, "has zip64 records that do not hold")
    elif any(value == full for value, full in zip(short, FULL, strict=True)):
        raise _refused(name, "lacks its zip64 records")
    if disk or first_disk or comment or here != count:
        raise _refused(name, "is one part of several, or has a comment")
    if first + size != end:
        raise _refused(name, f"has bytes 0 to {end} before its end, its central directory ends at {first + size}")
    if count > ZIP_ENTRIES_MAX or size > ZIP_DIRECTORY_LIMIT or count * CENTRAL.size > size:
        limits = f"allowed are {ZIP_ENTRIES_MAX} and {ZIP_DIRECTORY_LIMIT}"
        raise _refused(name, f"claims {count} entries in {size} bytes of central directory, {limits}")
    return count, size, first


def _listed(directory: bytes, count: int, name: str) -> Iterator[Entry]:
    """Entries as the central directory lists them; `start` is where the header begins too, until `_placed`."""
    offset = 0
    for _ in range(count):
        fields = CENTRAL.unpack_from(directory, offset)
        signature, _, _, flags, method, _, _, crc, size_in_zip, size, *lengths, disk, _, mode, header = fields
        name_length, extra_length, comment_length = lengths
        offset += CENTRAL.size
        entry_name = directory[offset : offset + name_length]
        extra = directory[offset + name_length : offset + name_length + extra_length]
        offset += sum(lengths)
        whole = len(entry_name) + len(extra) == name_length + extra_length
        if signature != b"PK\1\2" or not whole or comment_length or disk:
            raise _refused(name, "has a central directory that does not hold")
        entry = _name(entry_name, name)
        if flags & 1:
            raise _refused(name, f"holds {entry}, which is encrypted")
        if method:
            raise _refused(name, f"holds {entry} compressed (method {method}), where stores keep files as they are")
        if flags & ~UTF8:
            raise _refused(name, f"holds {entry} with flags {flags:#x}, expected were none")
        kind = stat.S_IFMT(mode >> 16)
        if kind not in (0, stat.S_IFDIR if entry.endswith("/") else stat.S_IFREG):
            raise _refused(name, f"holds {entry}, which is a link or another thing that is no regular file")
        if extra or FULL32 in (size, size_in_zip, header):
            try:
                size, size_in_zip, header = _full(extra, [size, size_in_zip, header])
            except (ValueError, struct.error) as error:
                raise _refused(name, f"has a zip64 field of {entry} that does not hold") from error
        if size_in_zip != size or (entry.endswith("/") and size):
            raise _refused(name, f"holds {entry} with {size_in_zip} bytes for {size}")
        yield Entry(entry, header, header, size, crc)
    if offset != len(directory):
        raise _refused(name, f"has {len(directory)} bytes of central directory, its {count} entries take {offset}")


def _placed(entries: list[Entry], end: int, name: str) -> dict[str, Entry]:
    """Entries with the offset of their bytes. Raises FormatError where they leave gaps in the archive, or overlap."""
    files: dict[str, Entry] = {}
    names: set[str] = set()
    cursor = 0
    for index, entry in enumerate(entries):
        next_header = entries[index + 1].header if index + 1 < len(entries) else end
        start = next_header - entry.size
        least = cursor + LOCAL.size + len(entry.name)
        if entry.header != cursor or not least <= start <= least + FULL16:
            raise _refused(name, f"holds {entry.name} where other bytes lie: entries overlap or leave gaps")
        cursor, key = next_header, entry.name.rstrip("/")
        if key in names:
            raise _refused(name, f"holds {key} twice")
        names.add(key)
        if key == entry.name:
            files[key] = Entry(key, entry.header, start, entry.size, entry.crc)
    if cursor != end:
        raise _refused(name, f"has {end - cursor} bytes that belong to no entry")
    for key in names:
        if folder := next((parent for parent in _parents(key) if parent in files), None):
            raise _refused(name, f"holds {folder} as a file and as a folder")
    return files


def _parents(key: str) -> Iterator[str]:
    """The folders that a name lies in, outermost first."""
    slash = key.find("/")
    while slash >= 0:
        yield key[:slash]
        slash = key.find("/", slash + 1)


def _name(entry_name: bytes, name: str) -> str:
    """An entry's name as text. Raises FormatError for one that could lead elsewhere, or that no store has."""
    text = entry_name.decode("latin-1")
    if NAME.fullmatch(text) is None:
        raise _refused(name, f"holds an entry named {text[:80]!r}, which could lead elsewhere, or which no store has")
    return text


def _full(extra: bytes, values: list[int]) -> list[int]:
    """Numbers of a header, the full ones taken from its zip64 field.

    Raises ValueError where they need such a field and it is not there exactly once.
    """
    fields, offset = [], 0
    while offset < len(extra):
        kind, length = struct.unpack_from("<2H", extra, offset)
        fields += [extra[offset + 4 : offset + 4 + length]] if kind == 1 else []
        offset += 4 + length
    full = [index for index, value in enumerate(values) if value == FULL32]
    if offset != len(extra) or len(fields) > 1 or (full and [len(field) for field in fields] != [8 * len(full)]):
        raise ValueError
    for index, value in zip(full, struct.unpack(f"<{len(full)}Q", fields[0]) if full else (), strict=True):
        values[index] = value
    return values


def _refused(name: str, problem: str) -> FormatError:
    return FormatError(f"{name} {problem}; {ADVICE}")
