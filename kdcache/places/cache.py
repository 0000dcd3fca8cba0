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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kdcache.errors import DamagedError, InvalidInputError
from kdcache.places.folder import PIECE, Opened

GB = 10**9
LARGEST = 20 * GB
SHARE = 10  # of the disk: one part in so many
TRIMMED = 0.9  # share of the limit that is left once it was passed
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)B?")
NAME = re.compile(r"[0-9a-f]{64}")
TEMPORARY = ".tmp-"
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
    def opened(self, sha256: str, size: int) -> Iterator[Opened | None]:
        """The file with a sha256, to read parts of, or None where it is not here. One with other bytes is removed."""
        path = self._path(sha256)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            try:
                whole = self._holds(descriptor, sha256, size)
            except OSError:  # a disk that fails
                whole = False
            if not whole:
                with suppress(OSError):  # of another's, or on a disk that is read only
                    path.unlink()
            yield Opened(descriptor, size) if whole else None
        finally:
            os.close(descriptor)

    def holds(self, sha256: str, size: int) -> bool:
        """True where a file is here, with the bytes that its name says."""
        with self.opened(sha256, size) as file:
            return file is not None

    def put(self, sha256: str, pieces: Iterable[bytes], name: str) -> None:
        """Keep a file. Raises DamagedError for bytes with another sha256; `name` is their origin, for the message."""
        folder = self._path(sha256).parent
        self._make(folder)
        temporary, hasher = folder / f"{TEMPORARY}{secrets.token_hex(8)}", hashlib.sha256()
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            size = 0
            with os.fdopen(descriptor, "wb") as file:
                for piece in pieces:
                    hasher.update(piece)
                    size += file.write(piece)
            if hasher.hexdigest() != sha256:
                problem = f"{name} has sha256 {hasher.hexdigest()[:16]}, committed was {sha256[:16]}"
                raise DamagedError(f"{problem}; publish the store again, whole, or use another copy of it")
            os.replace(temporary, self._path(sha256))
        finally:
            temporary.unlink(missing_ok=True)
        with self._lock:
            self._written += size
            if self._written < self.limit // 20:
                return
            self._written = 0
        self._trim(int(self.limit * TRIMMED))

    def usage(self) -> Usage:
        files = self._files()
        return Usage(str(self.folder.parent), len(files), sum(size for _, size, _ in files), self.limit)

    def clear(self) -> Usage:
        """Remove every file. Returns the usage before."""
        usage = self.usage()
        self._trim(0, everything=True)
        return usage

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def _holds(self, descriptor: int, sha256: str, size: int) -> bool:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
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

    def _make(self, folder: Path) -> None:
        """Make a folder for this user alone. Raises InvalidInputError where the cache is another user's."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True, mode=0o700)
            status = os.lstat(self.folder)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                problem = f"the cache {self.folder} is not a folder that you alone may use (mode 0700)"
                raise InvalidInputError(f"{problem}; move it away, or name another folder in KDCACHE_CACHE")
            folder.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            advice = "name another folder in KDCACHE_CACHE, or set KDCACHE_CACHE_LIMIT=0 to keep nothing"
            raise InvalidInputError(
                f"the cache {self.folder} cannot be written ({error.strerror}); {advice}"
            ) from error

    def _files(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path) of every file here, those of killed writers too."""
        files = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                status = path.lstat()
                files.append((status.st_mtime, status.st_size, path))
        return [file for file in files if NAME.fullmatch(file[2].name) or file[2].name.startswith(TEMPORARY)]

    def _trim(self, target: int, *, everything: bool = False) -> None:
        """Remove the least recently used files until `target` bytes are left, where there are more than the limit.

        Files that somebody may be writing stay.
        """
        threshold = time.time() - ABANDONED
        files = sorted(file for file in self._files() if file[0] < threshold or not file[2].name.startswith(TEMPORARY))
        total = sum(size for _, size, _ in files)
        if total <= self.limit and not everything:
            return
        for _, size, path in files:
            if total <= target and not everything:
                return
            with suppress(OSError):
                path.unlink()
            total -= size


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
