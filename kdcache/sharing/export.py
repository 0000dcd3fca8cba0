"""A sealed store as one zip file: each file checked against the seal as it is written, the name given at the end.

A zip root is the store's root, so zarr and tensorstore read it too. Equal stores under one seal give equal bytes.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdcache.base.limits import ZIP_ENTRIES_MAX
from kdcache.base.progress import Progress, silent
from kdcache.errors import DamagedError, InvalidInputError, StoreError
from kdcache.places.archive import PIECE
from kdcache.places.create_only import TEMPORARY, WRITE, CannotRefuseError, claim, discard
from kdcache.places.opening import open_place
from kdcache.places.place import Place, is_url
from kdcache.places.safe_open import LIST
from kdcache.places.zip_format import ZipWriter
from kdcache.sharing.sealed_files import SealedListing, SharedFile, sealed_files
from kdcache.store.seals import split_pin

WRITING = "writing bytes"
NEW = WRITE & ~os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Exported:
    """What was written: the file's own sha256 lets people compare what they fetched."""

    content_id: str
    files: int
    bytes: int
    sha256: str


def export_store(url: str, target: str, *, progress: Progress = silent) -> Exported:
    """Write what a store's seal lists, the latest or the one that `url` pins, to the zip file `target`, create-only.

    A target that holds these very bytes is left as it is. Raises DamagedError for a file that is not what the seal
    says, StoreError where the target holds other bytes or cannot be written, and whatever opening the store raises.
    """
    if is_url(target) or not target.lower().endswith(".zip"):
        raise InvalidInputError(f"{target} was given to export to; name a file of this machine that ends in .zip")
    path, pin = split_pin(url)
    place = open_place(path)
    listing = sealed_files(place, pin)
    if len(listing.files) > ZIP_ENTRIES_MAX:
        said = f"{place.root} has {len(listing.files)} files, one zip file holds up to {ZIP_ENTRIES_MAX}"
        raise StoreError(f"{said}; copy the store with kdcache push instead")
    temporary = _Temporary(Path(target))
    try:
        _write(temporary, place, listing, progress)
        sha256, size = temporary.named()
    finally:
        temporary.discard()
    return Exported(listing.content_id, len(listing.files), size, sha256)


def _write(temporary: "_Temporary", place: Place, listing: SealedListing, progress: Progress) -> None:
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress(WRITING, done, listing.bytes)

    try:
        with os.fdopen(os.dup(temporary.descriptor), "wb", buffering=PIECE) as file:
            writer = ZipWriter(file)
            for each in sorted(listing.files, key=lambda each: each.key):
                writer.add(each.key, each.size, _pieces(place, each, count))
            writer.close()
        os.fsync(temporary.descriptor)
    except OSError as error:
        raise temporary.failed(error) from error


def _pieces(place: Place, file: SharedFile, count: Callable[[int], None]) -> Iterator[bytes]:
    """The bytes of a file. Raises DamagedError, at the end at the latest, where they are not what the seal says."""
    if file.data is not None:
        yield file.data
        count(file.size)
        return
    sha256 = hashlib.sha256()
    with place.opened(file.key) as opened:
        if opened.size != file.size:
            said = f"{place.path(file.key)} has {opened.size} bytes, committed were {file.size}"
            raise DamagedError(f"{said}; {place.mend}")
        for offset in range(0, file.size, PIECE):
            piece = opened.part(offset, PIECE)
            if len(piece) != min(PIECE, file.size - offset):
                raise DamagedError(f"{place.path(file.key)} was cut while it was read; {place.mend}")
            sha256.update(piece)
            yield piece
            count(len(piece))
    if (found := sha256.hexdigest()) != file.sha256:
        said = f"{place.path(file.key)} has sha256 {found[:16]}, committed was {file.sha256[:16]}"
        raise DamagedError(f"{said}; {place.mend}")


class _Temporary:
    """A new file beside its target, that becomes the target or goes away."""

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
            raise self.failed(error) from error

    def named(self) -> tuple[str, int]:
        """sha256 and size of the file, once it has its name. Raises StoreError where other bytes have it."""
        sha256, size = _sha256(self.descriptor), os.fstat(self.descriptor).st_size
        try:
            created = claim(self.folder, self.name, self.target.name)
            os.fsync(self.folder)
        except CannotRefuseError as error:
            said = f"{self.target} cannot be created without replacing ({error.strerror})"
            raise StoreError(f"{said}; export to another file system, and copy the file afterwards") from error
        except OSError as error:
            raise self.failed(error) from error
        if not created and not (self.target.is_file() and _same(self.target, sha256)):
            said = f"{self.target} is there already, with other bytes than the {size} of sha256 {sha256[:16]}"
            raise StoreError(f"{said}; remove it, or choose another name")
        return sha256, size

    def discard(self) -> None:
        os.close(self.descriptor)
        try:
            discard(self.folder, self.name)
        finally:
            os.close(self.folder)

    def failed(self, error: OSError) -> StoreError:
        advice = "free some space or mend the permissions of its folder, and run the same command again"
        return StoreError(f"{self.target} cannot be written ({error.strerror}); {advice}")


def _sha256(descriptor: int) -> str:
    sha256, offset = hashlib.sha256(), 0
    while piece := os.pread(descriptor, PIECE, offset):
        sha256.update(piece)
        offset += len(piece)
    return sha256.hexdigest()


def _same(path: Path, sha256: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _sha256(descriptor) == sha256
    finally:
        os.close(descriptor)
