"""A folder is a place for a store: create-only puts survive a crash, and reads tell absent from empty."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kdcache.base.limits import DEPTH_MAX, METADATA_LIMIT
from kdcache.errors import DamagedError, FormatError, StoreError, StoreNotFoundError
from kdcache.places.create_only import TEMPORARY, CannotRefuseError, claim, discard, make_root, write_temporary
from kdcache.places.parts import Parts, of_descriptor
from kdcache.places.read_only import Insists
from kdcache.places.safe_open import LIST, Way, file_status, not_a_file, open_file, open_folder, split_key

PIECE = 2**20  # bytes that are hashed or written at a time


class Folder(Insists):
    """A folder of this machine as a place. Keys are relative, with forward slashes.

    No other code touches the files of a store there.
    """

    lists = True
    far = False

    def __init__(self, root: str | os.PathLike[str], *, ways: tuple[Way, ...] = ()) -> None:
        """`ways` lead to folders that are open already: keys in them are reached from there."""
        self.root = Path(root)
        self._ways = ways

    def path(self, key: str) -> Path:
        return self.root / key

    @property
    def mend(self) -> str:
        return f"run: kdcache verify {self.root} --repair"

    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None:
        """The bytes under a key, or None where there is nothing.

        Raises FormatError for more than `limit` bytes, before they are read, and DamagedError for anything that is not
        a regular file.
        """
        descriptor = self._descriptor(key)
        if descriptor is None:
            return None
        try:
            size = os.fstat(descriptor).st_size
            if size > limit:
                advice = "it was not written by kdcache: fetch the store again"
                raise FormatError(f"{self.path(key)} has {size} bytes, allowed are {limit}; {advice}")
            return _read(descriptor, size)
        finally:
            os.close(descriptor)

    @contextmanager
    def opened(self, key: str) -> Iterator[Parts]:
        """The open file under a key, to read parts of. Raises DamagedError where there is none."""
        descriptor = self._descriptor(key)
        if descriptor is None:
            raise DamagedError(f"{self.path(key)} is missing; {self.mend}")
        try:
            yield of_descriptor(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    @contextmanager
    def held(self, prefixes: Iterable[str]) -> Iterator["Folder"]:
        """This folder, with some folders in it ("" is the root) kept open: the way to their many files is walked once,
        and leads nowhere else once another folder has their name."""
        with ExitStack() as stack:
            ways = []
            for parts in (split_key(prefix) if prefix else [] for prefix in prefixes):
                if (descriptor := open_folder(self.root, parts)) is not None:
                    stack.callback(os.close, descriptor)
                    ways.append(Way(parts, descriptor))
            yield Folder(self.root, ways=tuple(ways))

    def _descriptor(self, key: str) -> int | None:
        parts = split_key(key)
        return open_file(self.root, parts, way=self._way(parts[:-1]))

    def _way(self, parts: list[str]) -> Way | None:
        """The first open folder on the way to a folder."""
        return next((way for way in self._ways if parts[: len(way.parts)] == way.parts), None)

    def digest(self, key: str) -> str | None:
        """sha256 of the bytes under a key, whatever their number, or None where there is nothing."""
        descriptor = self._descriptor(key)
        if descriptor is None:
            return None
        sha256 = hashlib.sha256()
        try:
            while data := os.read(descriptor, PIECE):
                sha256.update(data)
        finally:
            os.close(descriptor)
        return sha256.hexdigest()

    def size(self, key: str) -> int | None:
        """The number of bytes under a key, or None where there is nothing."""
        *parents, name = split_key(key)
        folder = open_folder(self.root, parents)
        if folder is None:
            return None
        try:
            status = file_status(folder, self.root, [*parents, name])
        finally:
            os.close(folder)
        return None if status is None else status.st_size

    def put_new(self, key: str, data: bytes) -> bool:
        """Create a key, whole or not at all. Returns False, and changes nothing, where the key exists.

        The steps are: temporary file, fsync, hard link, fsync of the folder. Raises StoreError where nothing can be
        written, or nothing without replacing.
        """
        *parents, name = split_key(key)
        folder = self._make_folder(parents)
        try:
            temporary = write_temporary(folder, data)
            try:
                is_new = claim(folder, temporary, name)
            finally:
                discard(folder, temporary)
            os.fsync(folder)  # where the key exists too: its creator may have died before this step
        except CannotRefuseError as error:
            advice = "put the store on a file system with hard links, and copy it afterwards"
            raise StoreError(
                f"{self.path(key)} cannot be created without replacing ({error.strerror}); {advice}"
            ) from error
        except OSError as error:
            raise _cannot_write(self.path(key).parent, error) from error
        finally:
            os.close(folder)
        return is_new

    def put_same(self, key: str, data: bytes) -> None:
        """Create a key, or find it with these very bytes. Raises StoreError where it holds other bytes."""
        if not self.put_new(key, data) and self.get(key, limit=max(len(data), METADATA_LIMIT)) != data:
            raise StoreError(f"{self.path(key)} exists with other contents; use another store path")

    def replace(self, key: str, data: bytes) -> None:
        """Write a key whole, over its old bytes: for the pointer to the latest seal and for the card, nothing else."""
        *parents, name = split_key(key)
        folder = self._make_folder(parents)
        try:
            temporary = write_temporary(folder, data)
            try:
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                discard(folder, temporary)
                raise
            os.fsync(folder)
        except OSError as error:
            raise _cannot_write(self.path(key).parent, error) from error
        finally:
            os.close(folder)

    def delete(self, key: str) -> None:
        """Remove a key, or the link in its place. A key that is gone, alone or with its folder, stays gone."""
        *parents, name = split_key(key)
        folder = open_folder(self.root, parents, LIST)
        if folder is None:
            return
        try:
            discard(folder, name)
            os.fsync(folder)
        except OSError as error:
            advice = "mend its permissions, or remove it by hand, and run the same command again"
            raise StoreError(f"{self.path(key)} cannot be removed ({error.strerror}); {advice}") from error
        finally:
            os.close(folder)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under a prefix, sorted; temporary files of a killed writer are not keys."""
        keys, folders = [], [prefix]
        while folders:
            base = folders.pop()
            if base.count("/") - prefix.count("/") > DEPTH_MAX:
                raise DamagedError(f"{self.path(base)} lies {DEPTH_MAX} folders deep; no store does: fetch it again")
            for name, is_folder in self._entries(base):
                key = f"{base}/{name}".lstrip("/")
                if is_folder:
                    folders.append(key)
                elif not name.startswith(TEMPORARY):
                    keys.append(key)
        yield from sorted(keys)

    def nothing(self, key: str) -> StoreNotFoundError:
        """The error to raise where the file that makes a folder a store is missing."""
        problem = f"holds no {key}" if self.root.is_dir() else "does not exist"
        return StoreNotFoundError(f"{self.root} {problem}; make a store with: kdcache extract {self.root} ...")

    def has_folder(self, prefix: str) -> bool:
        """True where a folder lies under a prefix."""
        folder = open_folder(self.root, split_key(prefix))
        if folder is not None:
            os.close(folder)
        return folder is not None

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under a prefix."""
        return sorted(name for name, is_folder in self._entries(prefix) if is_folder)

    def _entries(self, prefix: str) -> list[tuple[str, bool]]:
        """(name, true for a folder) of each entry directly under a prefix. Raises DamagedError for a link."""
        folder = open_folder(self.root, split_key(prefix) if prefix else [], LIST)
        if folder is None:
            return []
        try:
            with os.scandir(folder) as entries:
                names = []
                for entry in entries:
                    if entry.is_symlink():
                        raise not_a_file(self.path(prefix) / entry.name, entry.stat(follow_symlinks=False).st_mode)
                    names.append((entry.name, entry.is_dir(follow_symlinks=False)))
                return names
        finally:
            os.close(folder)

    def _make_folder(self, parts: list[str]) -> int:
        """Descriptor of a folder beneath the root, which is made where it is missing."""
        try:
            way = self._way(parts)
            if (folder := open_folder(self.root, parts, LIST, way=way)) is not None:
                return folder
            if way is None:
                make_root(self.root)
            for depth in range(1 if way is None else len(way.parts) + 1, len(parts) + 1):
                self._make_one(parts[:depth])
        except OSError as error:
            raise _cannot_write(self.root.joinpath(*parts), error) from error
        if (folder := open_folder(self.root, parts, LIST, way=way)) is None:
            path = self.root.joinpath(*parts)
            if way is not None and os.fstat(way.descriptor).st_nlink == 0:
                raise _cannot_write(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
            raise DamagedError(f"{path} is no folder; move it away, and run the same command again")
        return folder

    def _make_one(self, parts: list[str]) -> None:
        parent = open_folder(self.root, parts[:-1], LIST, way=self._way(parts[:-1]))
        if parent is None:
            return
        try:
            os.mkdir(parts[-1], dir_fd=parent)
            os.fsync(parent)
        except FileExistsError:
            return
        finally:
            os.close(parent)


def _cannot_write(folder: Path, error: OSError) -> StoreError:
    if error.errno == errno.ENOENT:
        problem = f"{folder} is gone: what lay there was removed, or another store put in its place"
        return StoreError(f"{problem}; nothing of it was changed: look what lies there, and run the same command again")
    advice = "free some space or mend its permissions, and run the same command again: nothing is half written"
    return StoreError(f"{folder} cannot be written ({error.strerror}); {advice}")


def _read(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    if len(data) == size:
        return data
    pieces = [data]
    while pieces[-1] and (rest := size - sum(map(len, pieces))):
        pieces.append(os.read(descriptor, rest))
    return b"".join(pieces)
