"""Files of far stores kept on this machine, by their sha256: for all processes of one user, and of a bounded size.

A file is served once this process has seen that its bytes have the sha256 that names it. Files are written whole or not
at all, and any may vanish at any time: whoever misses one fetches it again.
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
TRIMMED = 0.9  # of the limit, what is left once it was passed
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)B?")
NAME = re.compile(r"[0-9a-f]{64}")
TEMPORARY = ".tmp-"
USED = 900  # seconds between notes of use; each makes other processes hash the file again, for they see it changed
ABANDONED = 3600  # seconds after which a file that was being written is a killed writer's


@dataclass(frozen=True)
class Usage:
    """What a cache holds now."""

    folder: str
    files: int
    bytes: int
    limit: int


class Cache:
    """A folder of files named by their sha256. `limit` bytes; 0 keeps nothing."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder / "sha256", limit
        self._seen: set[tuple[str, int, int]] = set()
        self._lock = threading.Lock()
        self._written = limit  # so that the first write looks how much is there

    @contextmanager
    def opened(self, sha256: str, size: int) -> Iterator[Opened | None]:
        """A file to read parts of, or None where it is not here. One with other bytes is removed."""
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
        """Whether a file is here, with the bytes that its name says."""
        with self.opened(sha256, size) as file:
            return file is not None

    def put(self, sha256: str, pieces: Iterable[bytes], name: str) -> None:
        """Keep a file. Raises DamagedError, naming where it came from, for other bytes than its sha256 says."""
        folder = self._path(sha256).parent
        self._make(folder)
        temporary, found = folder / f"{TEMPORARY}{secrets.token_hex(8)}", hashlib.sha256()
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            size = 0
            with os.fdopen(descriptor, "wb") as file:
                for piece in pieces:
                    found.update(piece)
                    size += file.write(piece)
            if found.hexdigest() != sha256:
                said = f"{name} has sha256 {found.hexdigest()[:16]}, committed was {sha256[:16]}"
                raise DamagedError(f"{said}; publish the store again, whole, or use another copy of it")
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
        """Remove every file; what was there."""
        before = self.usage()
        self._trim(0, everything=True)
        return before

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def _holds(self, descriptor: int, sha256: str, size: int) -> bool:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        key = (sha256, found.st_ino, found.st_ctime_ns)
        seen = key in self._seen
        if not seen:
            hashed = hashlib.sha256()
            while data := os.read(descriptor, PIECE):
                hashed.update(data)
            if hashed.hexdigest() != sha256:
                return False
        if not seen or time.time() - found.st_mtime > USED:
            with suppress(OSError):
                os.utime(descriptor)  # used now: the least recently used go first
            self._seen.add((sha256, found.st_ino, os.fstat(descriptor).st_ctime_ns))
        return True

    def _make(self, folder: Path) -> None:
        """The folder, for this user alone. Raises InvalidInputError where it is another's."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True, mode=0o700)
            found = os.lstat(self.folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                said = f"the cache {self.folder} is not a folder that you alone may use (mode 0700)"
                raise InvalidInputError(f"{said}; move it away, or name another folder in KDCACHE_CACHE")
            folder.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            advice = "name another folder in KDCACHE_CACHE, or set KDCACHE_CACHE_LIMIT=0 to keep nothing"
            raise InvalidInputError(
                f"the cache {self.folder} cannot be written ({error.strerror}); {advice}"
            ) from error

    def _files(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path) of all that is here, files of killed writers too."""
        found = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                status = path.lstat()
                found.append((status.st_mtime, status.st_size, path))
        return [each for each in found if NAME.fullmatch(each[2].name) or each[2].name.startswith(TEMPORARY)]

    def _trim(self, wanted: int, *, everything: bool = False) -> None:
        """Remove the least recently used files down to `wanted` bytes, where there are more than the limit; files that
        somebody may be writing stay."""
        young = time.time() - ABANDONED
        files = sorted(each for each in self._files() if each[0] < young or not each[2].name.startswith(TEMPORARY))
        held = sum(size for _, size, _ in files)
        if held <= self.limit and not everything:
            return
        for _, size, path in files:
            if held <= wanted and not everything:
                return
            with suppress(OSError):
                path.unlink()
            held -= size


def open_cache() -> Cache:
    """The cache that the environment names: KDCACHE_CACHE, XDG_CACHE_HOME or ~/.cache, and KDCACHE_CACHE_LIMIT."""
    named = os.environ.get("KDCACHE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(named).expanduser() if named else Path(home).expanduser() / "kdcache"
    except RuntimeError:
        raise InvalidInputError("there is no home folder for a cache; name a folder in KDCACHE_CACHE") from None
    return Cache(folder, _limit(folder))


def _limit(folder: Path) -> int:
    text = os.environ.get("KDCACHE_CACHE_LIMIT", "")
    if text:
        if (found := SIZE.fullmatch(text.strip().upper())) is None:
            raise InvalidInputError(f"KDCACHE_CACHE_LIMIT={text[:40]} is no size; write 20GB, 500M, or 0 for no cache")
        return int(found[1]) * UNITS[found[2]]
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return min(LARGEST, shutil.disk_usage(folder).total // SHARE)
    except OSError as error:
        said = f"the cache {folder} cannot be looked at ({error.strerror})"
        raise InvalidInputError(f"{said}; name another folder in KDCACHE_CACHE, or set KDCACHE_CACHE_LIMIT") from error
