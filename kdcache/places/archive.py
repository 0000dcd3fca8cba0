"""An archive is a read-only place for a store in one zip file: it has the reading half of `folder.Folder`.

The zip file may be any file that is read in parts. Entries are stored as they are, so a part of an entry is a part of
the file, wherever that lies.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from kdcache.base.computed_once import computed_once
from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import DamagedError, FormatError, InvalidInputError, StoreNotFoundError
from kdcache.places.parts import Parts, open_local
from kdcache.places.read_only import Insists, ReadOnly
from kdcache.places.safe_open import split_key
from kdcache.places.zip_format import Entry, check_header, read_entries

PIECE = 2**23  # bytes that are hashed at a time; over a network each piece is a request
MEND = "use another copy of this file"


def open_entry(file: Parts, entry: Entry, name: str) -> Parts:
    """A file of an archive. Its parts raise DamagedError where the archive was cut."""

    def fetch(offset: int, length: int) -> bytes:
        data = file.part(entry.start + offset, length)
        if len(data) != length:
            raise DamagedError(f"{name} was cut while it was read; {MEND}")
        return data

    return Parts(entry.size, fetch)


def entry_pieces(file: Parts, entry: Entry, name: str) -> Iterator[bytes]:
    """All bytes of a file of an archive, in pieces. Raises DamagedError where the archive was cut and, at the end,
    where they are not the bytes that were written."""
    parts, crc = open_entry(file, entry, name), 0
    for offset in range(0, entry.size, PIECE):
        piece = parts.part(offset, PIECE)
        crc = zlib.crc32(piece, crc)
        yield piece
    if crc != entry.crc:
        problem = f"has crc32 {crc:08x}, the archive says {entry.crc:08x}"
        raise DamagedError(f"{name}/{entry.name} {problem}; {MEND}")


class Archive(Insists, ReadOnly):
    """A zip file that holds a store, as a place. Keys are relative, with forward slashes; nothing is written."""

    lists = True
    mend = MEND

    def __init__(self, name: Path | str, opens: Callable[[], Parts], *, far: bool = False) -> None:
        """`name` stands in messages; `opens` is called once, when something is first read."""
        self.root, self.far = name, far
        self._opens = opens
        self._checked: set[str] = set()

    @classmethod
    def of_file(cls, path: str) -> "Archive":
        """The archive in a file of this machine."""
        return cls(Path(path), lambda: open_local(Path(path)))

    @computed_once
    def _file(self) -> Parts:
        return self._opens()

    @computed_once
    def _entries(self) -> dict[str, Entry]:
        return read_entries(self._file, str(self.root))

    @computed_once
    def _folders(self) -> dict[str, set[str]]:
        """Folder -> names of the folders directly in it."""
        folders: dict[str, set[str]] = {"": set()}
        for key in self._entries:
            parent = ""
            for name in key.split("/")[:-1]:
                folders[parent].add(name)
                parent = f"{parent}/{name}".lstrip("/")
                folders.setdefault(parent, set())
        return folders

    def path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None:
        """The bytes under a key, or None where there is nothing.

        Raises FormatError for more than `limit` bytes, before they are read, and DamagedError for bytes whose crc32 is
        not the archive's.
        """
        entry = self._find(key)
        if entry is None:
            return None
        if entry.size > limit:
            advice = "it was not written by kdcache: fetch the store again"
            raise FormatError(f"{self.path(key)} has {entry.size} bytes, allowed are {limit}; {advice}")
        return b"".join(entry_pieces(self._file, entry, str(self.root)))

    @contextmanager
    def opened(self, key: str) -> Iterator[Parts]:
        """The file under a key, to read parts of. Raises DamagedError where there is none."""
        entry = self._find(key)
        if entry is None:
            raise DamagedError(f"{self.path(key)} is missing; {MEND}")
        yield open_entry(self._file, entry, str(self.root))

    def span(self, key: str, first: int, last: int, size: int) -> bytes:
        """Bytes first to last of a file of `size` bytes. Raises DamagedError where it has another size."""
        with self.opened(key) as file:
            if file.size != size:
                raise DamagedError(f"{self.path(key)} has {file.size} bytes, expected were {size}; {MEND}")
            return file.part(first, last + 1 - first)

    def digest(self, key: str) -> str | None:
        """sha256 of the bytes under a key, or None where there is nothing."""
        entry = self._find(key)
        if entry is None:
            return None
        sha256 = hashlib.sha256()
        for piece in entry_pieces(self._file, entry, str(self.root)):
            sha256.update(piece)
        return sha256.hexdigest()

    def size(self, key: str) -> int | None:
        """The number of bytes under a key, or None where there is nothing."""
        entry = self._find(key, check=False)
        return None if entry is None else entry.size

    def nothing(self, key: str) -> StoreNotFoundError:
        """The error to raise where the file that makes an archive a store is missing."""
        advice = "it must be what kdcache export wrote, or a zip of all that lies in a store's folder"
        return StoreNotFoundError(f"{self.root} holds no {key}; {advice}")

    def has_folder(self, prefix: str) -> bool:
        return prefix in self._folders

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under a prefix, sorted."""
        yield from sorted(key for key in self._entries if not prefix or key.startswith(f"{prefix}/"))

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under a prefix."""
        return sorted(self._folders.get(prefix, ()))

    def _find(self, key: str, *, check: bool = True) -> Entry | None:
        """The entry under a key. Where `check`, its own header is compared with the central directory, once."""
        entry = self._entries.get("/".join(split_key(key)))
        if entry is not None and check and key not in self._checked:
            check_header(self._file, entry, str(self.root))
            self._checked.add(key)
        return entry

    def _read_only(self) -> NoReturn:
        raise InvalidInputError(f"{self.root} is read only; {UNPACK.format(self.root)}")


UNPACK = "work on a folder: kdcache pull {} FOLDER"
