"""A cache keeps files of far stores on this machine, named by their sha256, for all processes of one user.

Its size is bounded. A file is served once this process has checked that its bytes have the sha256 that names it. Files
are written whole or not at all, and any may vanish at any time: a reader that misses one fetches it again.
"""

import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from kdcache.errors import DamagedError, InvalidInputError
from kdcache.places.create_only import TEMPORARY, WRITE, discard
from kdcache.places.folder import PIECE
from kdcache.places.parts import Parts, of_descriptor
from kdcache.places.safe_open import READ
from kdcache.places.trusted_folder import FOLDER, is_trusted, open_trusted

GB = 10**9
LARGEST = 20 * GB
SHARE = 10  # of the disk: one part in so many
TRIMMED = 0.9  # share of the limit that is left once it was passed
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)B?")
NAME = re.compile(r"[0-9a-f]{64}")
PART = re.compile(r"[0-9a-f]{2}")
USED = 900  # seconds between notes of use; each makes other processes hash the file again, for they see it changed
ABANDONED = 3600  # seconds after which a file that was being written is a killed writer's


@dataclass(frozen=True)
class Usage:
    """The contents of a cache: its folder, the number of files and of bytes, and the limit in bytes."""

    folder: str
    files: int
    bytes: int
    limit: int


class Cache:
    """A folder of files named by their sha256. It keeps at most `limit` bytes; 0 keeps nothing."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder / "sha256", limit
        self._seen: set[tuple[str, int, int]] = set()
        self._lock = threading.Lock()
        self._written = limit  # so that the first write looks how much is there

    @contextmanager
    def opened(self, sha256: str, size: int) -> Iterator[Parts | None]:
        """The file with a sha256, to read parts of, or None where it is not here. One with other bytes, or that another
        user could change, is removed. Raises InvalidInputError where the cache is another user's."""
        with self._open(sha256[:2]) as folder:
            try:
                descriptor = -1 if folder is None else os.open(sha256, READ, dir_fd=folder)
            except OSError:
                descriptor = -1
            if descriptor < 0:
                yield None
                return
            try:
                try:
                    whole = self._holds(descriptor, sha256, size)
                except OSError:  # a disk that fails
                    whole = False
                if not whole:
                    with suppress(OSError):  # on a disk that is read only
                        os.unlink(sha256, dir_fd=folder)
                yield of_descriptor(descriptor, size) if whole else None
            finally:
                os.close(descriptor)

    def holds(self, sha256: str, size: int) -> bool:
        """True where a file is here, with the bytes that its name says."""
        with self.opened(sha256, size) as file:
            return file is not None

    @property
    def keeps(self) -> bool:
        """True where files may be put here; root's cache is read, and left as it is."""
        with self._open() as folder:
            return folder is None or os.fstat(folder).st_uid == os.geteuid()

    def put(self, sha256: str, pieces: Iterable[bytes], name: str) -> None:
        """Keep a file. Raises DamagedError for bytes with another sha256; `name` is their origin, for the message.

        Raises InvalidInputError where this user alone may not use the cache, or cannot write to it, and OSError for a
        disk that is full.
        """
        with self._open(sha256[:2], make=True) as folder:
            size = _write(cast(int, folder), sha256, pieces, name)
        with self._lock:
            self._written += size
            if self._written < self.limit // 20:
                return
            self._written = 0
        self._trim(int(self.limit * TRIMMED))

    def usage(self) -> Usage:
        with self._open() as folder:
            files = _files(folder)
        return Usage(str(self.folder.parent), len(files), sum(size for _, size, _ in files), self.limit)

    def clear(self) -> Usage:
        """Remove every file. Returns the usage before. Raises InvalidInputError for root's cache."""
        if not self.keeps:
            raise InvalidInputError(f"the cache {self.folder} is root's: you may read it, and only root may clear it")
        usage = self.usage()
        self._trim(0, everything=True)
        return usage

    @contextmanager
    def _open(self, *parts: str, make: bool = False) -> Iterator[int | None]:
        """Descriptor of the folder of files, or of one in it; None where it is missing, unless it is to be made."""
        descriptor, path = None, self.folder.parent
        with ExitStack() as stack:
            for part in ("", self.folder.name, *parts):
                path = path / part
                descriptor = open_trusted(path, descriptor, make=make)
                if descriptor is None:
                    break
                stack.callback(os.close, descriptor)
                if make and path == self.folder:
                    self._require_alone(os.fstat(descriptor))
            yield descriptor

    def _holds(self, descriptor: int, sha256: str, size: int) -> bool:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size or not is_trusted(status):
            return False
        is_known = (sha256, status.st_ino, status.st_ctime_ns) in self._seen
        if not is_known:
            hasher = hashlib.sha256()
            while data := os.read(descriptor, PIECE):
                hasher.update(data)
            if hasher.hexdigest() != sha256:
                return False
        if not is_known or time.time() - status.st_mtime > USED:
            with suppress(OSError):
                os.utime(descriptor)  # used now: the least recently used go first
            self._seen.add((sha256, status.st_ino, os.fstat(descriptor).st_ctime_ns))
        return True

    def _require_alone(self, status: os.stat_result) -> None:
        """Raises InvalidInputError for a folder that others may use."""
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            problem = f"the cache {self.folder} is not a folder that you alone may use (mode 0700)"
            raise InvalidInputError(f"{problem}; move it away, or name another folder in KDCACHE_CACHE")

    def _trim(self, target: int, *, everything: bool = False) -> None:
        """Remove the least recently used files until `target` bytes are left, where there are more than the limit.

        Files that somebody may be writing stay.
        """
        threshold = time.time() - ABANDONED
        with self._open() as folder:
            files = sorted(file for file in _files(folder) if file[0] < threshold or TEMPORARY not in file[2])
            total = sum(size for _, size, _ in files)
            if total <= self.limit and not everything:
                return
            for _, size, name in files:
                if total <= target and not everything:
                    return
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                total -= size


def _files(folder: int | None) -> list[tuple[float, int, str]]:
    """(last use, bytes, name beneath the open folder) of every file there, those of killed writers too."""
    files = []
    for part in () if folder is None else filter(PART.fullmatch, os.listdir(folder)):
        with suppress(OSError):
            descriptor = os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            try:
                names = os.listdir(descriptor)
            finally:
                os.close(descriptor)
            for name in names:
                if NAME.fullmatch(name) or name.startswith(TEMPORARY):
                    with suppress(OSError):  # removed since
                        status = os.stat(f"{part}/{name}", dir_fd=folder, follow_symlinks=False)
                        files.append((status.st_mtime, status.st_size, f"{part}/{name}"))
    return files


def _write(folder: int, sha256: str, pieces: Iterable[bytes], name: str) -> int:
    """The number of bytes of a file that was written to an open folder, whole, under its sha256."""
    temporary, hasher, size = f"{TEMPORARY}{secrets.token_hex(8)}", hashlib.sha256(), 0
    try:
        with os.fdopen(os.open(temporary, WRITE, 0o600, dir_fd=folder), "wb") as file:
            for piece in pieces:
                hasher.update(piece)
                size += file.write(piece)
        if hasher.hexdigest() != sha256:
            problem = f"{name} has sha256 {hasher.hexdigest()[:16]}, committed was {sha256[:16]}"
            raise DamagedError(f"{problem}; publish the store again, whole, or use another copy of it")
        os.replace(temporary, sha256, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        discard(folder, temporary)
    return size


def open_cache() -> Cache:
    """The cache that the environment names: KDCACHE_CACHE, XDG_CACHE_HOME or ~/.cache, and KDCACHE_CACHE_LIMIT."""
    name = os.environ.get("KDCACHE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(name).expanduser() if name else Path(home).expanduser() / "kdcache"
    except RuntimeError:
        raise InvalidInputError("there is no home folder for a cache; name a folder in KDCACHE_CACHE") from None
    return Cache(folder, _limit(folder))


def _limit(folder: Path) -> int:
    text = os.environ.get("KDCACHE_CACHE_LIMIT", "")
    if text:
        if (match := SIZE.fullmatch(text.strip().upper())) is None:
            raise InvalidInputError(f"KDCACHE_CACHE_LIMIT={text[:40]} is no size; write 20GB, 500M, or 0 for no cache")
        return int(match[1]) * UNITS[match[2]]
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return min(LARGEST, shutil.disk_usage(folder).total // SHARE)
    except OSError as error:
        problem = f"the cache {folder} cannot be looked at ({error.strerror})"
        raise InvalidInputError(
            f"{problem}; name another folder in KDCACHE_CACHE, or set KDCACHE_CACHE_LIMIT"
        ) from error
