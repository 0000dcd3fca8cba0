"""A sealed store as one zip file. Each file is compared with the seal as it is written; the zip gets its name last.

A zip root is the store's root, so zarr and tensorstore read it too. Equal stores under one seal give equal bytes.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcache.base.limits import ZIP_ENTRIES_MAX
from kdcache.base.progress import Activity, Progress, silent
from kdcache.errors import DamagedError, InvalidInputError, StoreError
from kdcache.places.archive import PIECE
from kdcache.places.create_only import TEMPORARY, WRITE, CannotRefuseError, claim, discard
from kdcache.places.opening import open_place
from kdcache.places.place import Place, is_url
from kdcache.places.safe_open import LIST
from kdcache.places.zip_format import ZipWriter
from kdcache.sharing.sealed_files import SealedListing, SharedFile, sealed_files
from kdcache.store.seals import split_pin

WRITING = Activity("writing", "bytes")
NEW = WRITE & ~os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Exported:
    """A zip file that was written. Its own sha256 lets people compare a file that they fetched. `without` names the
    taps that were left out, of `without_bytes`."""

    content_id: str
    files: int
    bytes: int
    sha256: str
    without: tuple[str, ...]
    without_bytes: int


def export_store(url: str, target: str, *, without: Sequence[str] = (), progress: Progress = silent) -> Exported:
    """Write the files of a store's seal, the latest or the one that `url` pins, to the zip file `target`, create-only;
    less those of the taps that `without` names, `taps` for all or `tap:NAME`.

    A target that holds these very bytes is left as it is. Raises DamagedError for a file that differs from the seal,
    StoreError where the target holds other bytes or cannot be written, and the errors of opening the store.
    """
    if is_url(target) or not target.lower().endswith(".zip"):
        raise InvalidInputError(f"{target} was given to export to; name a file of this machine that ends in .zip")
    path, pin = split_pin(url)
    place = open_place(path)
    listing = sealed_files(place, pin, without=without)
    if len(listing.files) > ZIP_ENTRIES_MAX:
        problem = f"{place.root} has {len(listing.files)} files, one zip file holds up to {ZIP_ENTRIES_MAX}"
        raise StoreError(f"{problem}; copy the store with kdcache push instead")
    temporary = _Temporary(Path(target))
    try:
        _write(temporary, place, listing, progress)
        sha256, size = temporary.take_name()
    finally:
        temporary.discard()
    return Exported(listing.content_id, len(listing.files), size, sha256, listing.taps, listing.taps_bytes)


def _write(temporary: "_Temporary", place: Place, listing: SealedListing, progress: Progress) -> None:
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress(WRITING, done, listing.bytes)

    try:
        with os.fdopen(os.dup(temporary.descriptor), "wb", buffering=PIECE) as file:
            writer = ZipWriter(file)
            for entry in sorted(listing.files, key=lambda entry: entry.key):
                writer.add(entry.key, entry.size, _pieces(place, entry, count))
            writer.close()
        os.fsync(temporary.descriptor)
    except OSError as error:
        raise temporary.write_error(error) from error


def _pieces(place: Place, file: SharedFile, count: Callable[[int], None]) -> Iterator[bytes]:
    """The bytes of a file, in pieces. Raises DamagedError, at the latest at the end, where they are not the seal's."""
    if file.data is not None:
        yield file.data
        count(file.size)
        return
    sha256 = hashlib.sha256()
    with place.opened(file.key) as parts:
        if parts.size != file.size:
            problem = f"{place.path(file.key)} has {parts.size} bytes, committed were {file.size}"
            raise DamagedError(f"{problem}; {place.mend}")
        for offset in range(0, file.size, PIECE):
            piece = parts.part(offset, PIECE)
            if len(piece) != min(PIECE, file.size - offset):
                raise DamagedError(f"{place.path(file.key)} was cut while it was read; {place.mend}")
            sha256.update(piece)
            yield piece
            count(len(piece))
    if (digest := sha256.hexdigest()) != file.sha256:
        problem = f"{place.path(file.key)} has sha256 {digest[:16]}, committed was {file.sha256[:16]}"
        raise DamagedError(f"{problem}; {place.mend}")


class _Temporary:
    """A new file beside its target, which becomes the target or is deleted."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.name = f"{TEMPORARY}{os.urandom(16).hex()}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.folder = os.open(target.parent, LIST)
            try:
                self.descriptor = os.open(self.name, NEW, 0o666, dir_fd=self.folder)
            except OSError:
                os.close(self.folder)
                raise
        except OSError as error:
            raise self.write_error(error) from error

    def take_name(self) -> tuple[str, int]:
        """Give the file its target's name; returns its sha256 and size. Raises StoreError where other bytes have it."""
        sha256, size = _sha256(self.descriptor), os.fstat(self.descriptor).st_size
        try:
            is_new = claim(self.folder, self.name, self.target.name)
            os.fsync(self.folder)
        except CannotRefuseError as error:
            problem = f"{self.target} cannot be created without replacing ({error.strerror})"
            raise StoreError(f"{problem}; export to another file system, and copy the file afterwards") from error
        except OSError as error:
            raise self.write_error(error) from error
        if not is_new and not (self.target.is_file() and _has_sha256(self.target, sha256)):
            problem = f"{self.target} is there already, with other bytes than the {size} of sha256 {sha256[:16]}"
            raise StoreError(f"{problem}; remove it, or choose another name")
        return sha256, size

    def discard(self) -> None:
        os.close(self.descriptor)
        try:
            discard(self.folder, self.name)
        finally:
            os.close(self.folder)

    def write_error(self, error: OSError) -> StoreError:
        advice = "free some space or mend the permissions of its folder, and run the same command again"
        return StoreError(f"{self.target} cannot be written ({error.strerror}); {advice}")


def _sha256(descriptor: int) -> str:
    sha256, offset = hashlib.sha256(), 0
    while piece := os.pread(descriptor, PIECE, offset):
        sha256.update(piece)
        offset += len(piece)
    return sha256.hexdigest()


def _has_sha256(path: Path, sha256: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _sha256(descriptor) == sha256
    finally:
        os.close(descriptor)
