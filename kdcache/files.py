"""A folder as a place for a store: create-only puts that survive a crash, and reads that tell absent from empty."""

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from kdcache.errors import DamagedError, StoreError

TEMPORARY = ".tmp-"


class Folder:
    """The only code that touches a store's files. Keys are relative, with forward slashes."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        return self.root / key

    def get(self, key: str) -> bytes | None:
        """The bytes under a key, or None when there is nothing."""
        try:
            return self.path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def require(self, key: str, advice: str) -> bytes:
        """The bytes under a key that must be there. Raises DamagedError."""
        data = self.get(key)
        if data is None:
            raise DamagedError(f"{self.path(key)} is missing; {advice}")
        return data

    def size(self, key: str) -> int | None:
        """Bytes under a key, or None when there is nothing."""
        try:
            return self.path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put_new(self, key: str, data: bytes) -> bool:
        """Write whole or not at all, never over another: temporary file, fsync, hard link, fsync of the folder.

        Returns False, and changes nothing, where the key exists. Raises StoreError on file systems without hard links.
        """
        target = self.path(key)
        self._make_folder(target.parent)
        temporary = self._write_temporary(target.parent, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                advice = "put the store on a file system with hard links, and copy it afterwards"
                raise StoreError(
                    f"{target} cannot be created without replacing ({error.strerror}); {advice}"
                ) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
        return True

    def put_same(self, key: str, data: bytes) -> None:
        """Create a key, or find it with these very bytes. Raises StoreError where it holds others."""
        if not self.put_new(key, data) and self.get(key) != data:
            raise StoreError(f"{self.path(key)} exists with other contents; use another store path")

    def replace(self, key: str, data: bytes) -> None:
        """Write over what is there, at once: for the pointer to the latest seal and for the card, nothing else."""
        target = self.path(key)
        self._make_folder(target.parent)
        os.replace(self._write_temporary(target.parent, data), target)
        _sync_folder(target.parent)

    def delete(self, key: str) -> None:
        """Remove a key; one that is gone, alone or with its folder, stays gone."""
        path = self.path(key)
        if path.parent.is_dir():
            path.unlink(missing_ok=True)
            _sync_folder(path.parent)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under a prefix, sorted; temporary files of a killed writer are not keys."""
        base = self.path(prefix)
        for folder, folders, names in os.walk(base, onerror=_not_listed):
            folders.sort()
            for name in sorted(names):
                if not name.startswith(TEMPORARY):
                    yield str((Path(folder) / name).relative_to(self.root).as_posix())

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under a prefix."""
        try:
            return sorted(entry.name for entry in os.scandir(self.path(prefix)) if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            _not_listed(error)
            raise

    def _write_temporary(self, folder: Path, data: bytes) -> Path:
        temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            temporary.unlink(missing_ok=True)
            advice = "free some space or mend its permissions, and run the same command again: nothing is half written"
            raise StoreError(f"{folder} cannot be written ({error.strerror}); {advice}") from error
        return temporary

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync_folder(new.parent)


def _not_listed(error: OSError) -> None:
    """What may not be listed is not empty."""
    if isinstance(error, PermissionError):
        advice = "mend its permissions; reading a sealed store needs no listing, writing and verifying do"
        raise StoreError(f"{error.filename} cannot be listed ({error.strerror}); {advice}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
