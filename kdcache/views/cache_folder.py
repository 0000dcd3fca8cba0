"""The folder of a cache of pixels: a folder for each key, for one user alone, and a bound on the bytes of all keys.

A key says all that pixels depend on; its digest names its folder, in which `key.json` shows it. Files are made whole or
not at all and are never shortened. Where there is no room, folders of other keys that no process has open go, the least
recently used first; where that is not enough, no file is made.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.places.create_only import TEMPORARY, WRITE, claim, discard
from kdcache.places.trusted_folder import FOLDER, FULL, is_trusted, open_trusted

Kind = Literal["views", "decoded", "tars"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Fingerprints = tuple[int, int]
"""The content fingerprints of one sample, by the sorted names of what they are taken over; 0 where there is none."""

NAME = re.compile(r"[0-9a-f]{32}")
KEY = "key.json"
ROOM = ".room"  # the file that is locked while room is taken; it holds the bytes of all keys' files
FREE = 10**9  # bytes of the disk that stay free
ABANDONED = 3600  # seconds after which a file that was being written is a killed writer's
ELSEWHERE = "name another folder, or leave the cache out"


class CacheFolder:
    """The files of one key, beneath `root`, which takes at most `limit` bytes. Open while this object is in use; a copy
    in another process opens it again. Raises InvalidInputError where another user could change what it serves."""

    def __init__(self, root: str | Path, kind: Kind, key: Mapping[str, Any], limit: int) -> None:
        self.root, self.kind, self.limit = Path(root), kind, limit
        self._record = canonical_json(dict(key))
        self.name = sha256_hex(self._record)[:32]
        self._descriptor, self._process = -1, -1
        self._refused = 0  # bytes of the smallest file that there was no room for; 0 while there was
        self.problem = ""  # why nothing more is kept, where the disk or the folder let it down

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": -1, "_process": -1}

    def __del__(self) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The folder of this key."""
        return self.root / self.kind / self.name

    def close(self) -> None:
        """Let go of the folder, so that other keys may take its room."""
        if self._descriptor >= 0 and self._process == os.getpid():
            os.close(self._descriptor)
        self._descriptor = self._process = -1

    def begin(self) -> None:
        """Open the folder, made where it is missing, and count its bytes anew. Raises InvalidInputError where it is not
        this user's alone, and OSError where it cannot be made."""
        self._folder()
        with suppress(OSError), self._locked() as lock:  # on a disk that is read only
            _write_number(lock, self.used())

    def open(self, name: str) -> int | None:
        """Descriptor of a file, to read and, unless the disk is read only, to write; None where there is none, or
        others could change it."""
        for access in (os.O_RDWR, os.O_RDONLY):
            try:
                descriptor = os.open(name, access | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder())
                break
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES):
                    return None
        else:
            return None
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and is_trusted(status):
            return descriptor
        os.close(descriptor)
        return None

    def make(self, name: str, size: int, write: Callable[[int], None]) -> bool:
        """Make a file of `size` bytes, which `write` fills through its descriptor, unless there is one of that name.
        False where there is no room for it, and once the disk or the folder failed."""
        if self.problem or self.refuses(size):
            return False
        try:
            with self._room(size) as has_room:
                if has_room:
                    self._write(name, write)
                    return True
        except OSError as error:
            if error.errno not in FULL:  # the folder is gone, say, or the disk is read only
                self.problem = f"{self.root} cannot be written ({error.strerror or error})"
                return False
        self._refused = size
        return False

    def refuses(self, size: int) -> bool:
        """True where a file of no more bytes had no room before."""
        return 0 < self._refused <= size

    def remove(self, name: str) -> None:
        """Remove a file, where that can be done. Whoever has it mapped keeps what it has."""
        with suppress(OSError):
            discard(self._folder(), name)

    def names(self) -> list[str]:
        """The files of this key, but for its record and those that are being written."""
        return [name for name in os.listdir(self._folder()) if name != KEY and not name.startswith(TEMPORARY)]

    def largest(self) -> int:
        """The bytes of the largest file of this key; 0 where there is none."""
        folder = self._folder()
        return max((_size(name, folder) for name in self.names()), default=0)

    def used(self) -> int:
        """The bytes of the files of all keys, of views and of decoded images."""
        with self._keys() as keys:
            return sum(_bytes_in(key.descriptor) for key in keys)

    def room(self) -> int:
        """The bytes that files of this key can still take, once keys that nobody has open have gone."""
        self._folder()
        with self._keys() as keys:
            sizes = [(_is_in_use(key.descriptor), _bytes_in(key.descriptor)) for key in keys]
        in_use = sum(size for is_in_use, size in sizes if is_in_use)
        removable = sum(size for is_in_use, size in sizes if not is_in_use)
        return max(0, min(self.limit - in_use, shutil.disk_usage(self.root).free - FREE + removable))

    def _folder(self) -> int:
        """Descriptor of the folder of this key, made where it is missing; while it is open the key is in use."""
        if self._process == os.getpid():
            return self._descriptor
        while True:
            with ExitStack() as stack:
                parent: int | None = None
                for path in (self.root, self.root / self.kind):
                    parent = cast(int, open_trusted(path, parent, make=True, advice=ELSEWHERE))
                    stack.callback(os.close, parent)
                descriptor = cast(int, open_trusted(self.path, parent, make=True, advice=ELSEWHERE))
            with suppress(OSError):  # on a file system without such locks
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)  # it was removed while it was being opened
        self._descriptor, self._process = descriptor, os.getpid()
        with suppress(OSError):  # on a disk that is full or read only
            os.utime(descriptor)
            if KEY not in os.listdir(descriptor):
                self._write(KEY, lambda file: os.write(file, self._record))
        return descriptor

    @contextmanager
    def _room(self, size: int) -> Iterator[bool]:
        """True where there is room for so many bytes, for which other keys go where need be. Nobody else takes room
        meanwhile; afterwards the bytes count."""
        self._folder()
        with self._locked() as lock:
            text = os.pread(lock, 32, 0)
            used = int(text) if text.isdigit() else self.used()
            if not self._fits(used + size, size):
                used = self._remove_unused(size)
            has_room = self._fits(used + size, size)
            _write_number(lock, used + size * has_room)  # before the file: who is killed counts too much
            yield has_room

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Descriptor of the file of the bytes of all keys, which nobody else has meanwhile."""
        lock = os.open(self.root / ROOM, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with suppress(OSError):  # on a file system without such locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _fits(self, total: int, size: int) -> bool:
        return total <= self.limit and shutil.disk_usage(self.root).free - size >= FREE

    def _write(self, name: str, write: Callable[[int], Any]) -> None:
        folder, temporary = self._folder(), f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, WRITE, 0o600, dir_fd=folder)
            try:
                write(descriptor)
            finally:
                os.close(descriptor)
            claim(folder, temporary, name)
        finally:
            discard(folder, temporary)

    def _remove_unused(self, size: int) -> int:
        """Remove what killed writers left of this key, and keys that no process has open, the least recently used
        first, until `size` bytes have room. Returns the bytes that are left."""
        for name in os.listdir(self._folder()):
            if name.startswith(TEMPORARY) and _is_abandoned(name, self._folder()):
                discard(self._folder(), name)
        used = self.used()
        with self._keys() as keys:
            for key in sorted(keys, key=lambda key: os.fstat(key.descriptor).st_mtime):
                if self._fits(used + size, size):
                    break
                if key.name != self.name and not _is_in_use(key.descriptor):
                    with suppress(OSError):  # files that are no cache's
                        for name in os.listdir(key.descriptor):
                            discard(key.descriptor, name)
                        os.rmdir(key.name, dir_fd=key.parent)
                    used = self.used()
        return used

    @contextmanager
    def _keys(self) -> Iterator[list["_Key"]]:
        """The folders of all keys, opened."""
        with ExitStack() as stack:
            root = cast(int, open_trusted(self.root, None, make=True, advice=ELSEWHERE))
            stack.callback(os.close, root)
            keys = []
            for kind in KINDS:
                parent = open_trusted(self.root / kind, root, advice=ELSEWHERE)
                if parent is None:
                    continue
                stack.callback(os.close, parent)
                for name in filter(NAME.fullmatch, os.listdir(parent)):
                    with suppress(OSError):  # removed since
                        keys.append(_Key(name, parent, os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=parent)))
                        stack.callback(os.close, keys[-1].descriptor)
            yield keys


@dataclass(frozen=True)
class _Key:
    """A key's folder: its name, and descriptors of the folder that it lies in and of itself."""

    name: str
    parent: int
    descriptor: int


def _is_in_use(folder: int) -> bool:
    """True for an open folder that a process uses, or may use, where the file system has no such locks; where none
    does, this descriptor holds it from now on."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _write_number(file: int, number: int) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, str(number).encode(), 0)


def _bytes_in(folder: int) -> int:
    """The bytes of all files in an open folder."""
    return sum(_size(name, folder) for name in os.listdir(folder))


def _size(name: str, folder: int) -> int:
    with suppress(FileNotFoundError):  # removed since
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    return 0


def _is_abandoned(name: str, folder: int) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > ABANDONED
    return False
