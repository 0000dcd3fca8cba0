"""A sealed store travels: from any place that is read to any that is written, data first, the seal last.

A file that is there already is skipped once its bytes are known to be right. Every file is compared with its sha256 on
the way. Whatever stops a copy, the same command goes on, and readers see the old seal or the new one.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field

from kdcache.base.canonical import sha256_hex
from kdcache.base.limits import CARD_LIMIT, MANIFEST_LIMIT
from kdcache.base.parallel import Budget
from kdcache.base.progress import Progress, StopRequest
from kdcache.base.records import require_equal
from kdcache.errors import DamagedError, FormatError, StoreError, StoreNotFoundError
from kdcache.places.bucket import Bucket
from kdcache.places.checked_files import require_sha256
from kdcache.places.place import Place
from kdcache.sharing.sealed_files import SealedListing, SharedFile
from kdcache.store.layout import CARD, LATEST_SEAL, MANIFEST, PARTIAL
from kdcache.store.manifest import Identity, parse_manifest
from kdcache.store.partial import NOTHING, read_partial, replace_partial
from kdcache.store.seals import Seal, read_seal, sealed_ids

JOBS = 8
HELD = 256 * 2**20  # bytes of shards in memory at once
LOOK = 0.2  # seconds between looks at a request to stop


@dataclass(frozen=True)
class Copied:
    """The result of a copy: files in all, files that it wrote, and the content id that `latest` names at its end."""

    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    latest: str
    card: str = ""  # the fate of another card that stood there: kept or replaced


@dataclass
class _Work:
    """A copy under way."""

    source: Place
    target: Place
    stop: StopRequest
    report: Callable[[int], None]
    entries: dict[str, tuple[int, str]] | None  # a bucket's files (size, tag) by key, from one listing
    budget: Budget = field(default_factory=lambda: Budget(HELD))
    keep_card: bool = False
    card: str = ""
    files: int = 0
    bytes: int = 0


def copy_sealed(
    source: Place,
    target: Place,
    listing: SealedListing,
    *,
    jobs: int = JOBS,
    progress: Progress,
    label: str,
    stop: StopRequest | None = None,
    keep_card: bool = False,
) -> Copied:
    """Write the files of a listing to `target`. Another card that stands there is replaced, or kept with `keep_card`.

    Raises MismatchError where another store has the place, DamagedError where a file differs from its sha256, and
    InterruptedRunError on request. Files that were written stay, and count for the next call.
    """
    _require_same_store(target, listing)
    total, done = listing.bytes, 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        progress(label, done, total)

    entries = target.entries() if isinstance(target, Bucket) else None
    work = _Work(source, target, stop or StopRequest(), report, entries, keep_card=keep_card)
    with ThreadPoolExecutor(jobs, thread_name_prefix="kdcache") as threads:
        for step in (listing.data, listing.records):
            _run(threads, work, step, jobs)
    latest = _finish(work, listing)
    return Copied(len(listing.files), total, work.files, work.bytes, latest, work.card)


def _require_same_store(target: Place, listing: SealedListing) -> None:
    """Raises MismatchError, naming what differs, or StoreError where another store than the listing's has the place."""
    current, manifest = target.get(MANIFEST, limit=MANIFEST_LIMIT), listing.last[0]
    if current is None or current == manifest.data:
        return
    other = parse_manifest(current, str(target.path(MANIFEST)))
    require_equal(other.identity, listing.identity, f"{target.root} is another store:", "use another address or path")
    raise StoreError(
        f"{target.root} was extracted apart from this store (its manifest has sha256 {sha256_hex(current)[:16]}, "
        f"this one's {manifest.sha256[:16]}), though identities are equal; use another address or path"
    )


def _run(threads: ThreadPoolExecutor, work: _Work, files: Sequence[SharedFile], jobs: int) -> None:
    """Copy files in any order, some at a time. The first error ends the call once the running copies have ended."""
    futures: set[Future[tuple[SharedFile, bool]]] = set()
    queue = iter(files)
    try:
        while True:
            work.stop.check("run the same command again to go on")
            while len(futures) < 2 * jobs and (file := next(queue, None)) is not None:
                futures.add(threads.submit(_copy, work, file))
            if not futures:
                return
            results, futures = wait(futures, timeout=LOOK, return_when=FIRST_COMPLETED)
            for future in results:
                _count(work, *future.result())
    finally:
        for future in futures:
            future.cancel()


def _count(work: _Work, file: SharedFile, written: bool) -> None:
    work.files += written
    work.bytes += file.size * written
    work.report(file.size)


def _copy(work: _Work, file: SharedFile) -> tuple[SharedFile, bool]:
    """Copy one file, unless it is there; with it, true where it was written. Raises StoreError where other bytes have
    its key."""
    work.budget.take(file.size)
    try:
        if work.entries is None and _holds(work.target, file):
            return file, False
        if work.entries is not None and (entry := work.entries.get(file.key)) is not None:
            _require_bytes(work, file, entry)
            return file, False
        if work.target.put_new(file.key, fetch(work.source, file)):
            return file, True
        _require_bytes(work, file, (file.size, ""))
        return file, False
    finally:
        work.budget.give(file.size)


def _holds(target: Place, file: SharedFile) -> bool:
    """True where a folder holds a file. Raises StoreError where it holds another file under its key."""
    size = target.size(file.key)
    if size is None:
        return False
    if size != file.size or (digest := target.digest(file.key)) is None:
        raise _taken_error(target, file, f"{size} bytes")
    if digest != file.sha256:
        raise _taken_error(target, file, f"sha256 {digest[:16]}")
    return True


def _require_bytes(work: _Work, file: SharedFile, entry: tuple[int, str]) -> None:
    """Raises StoreError where a target's file, of (size, entity tag) `entry`, has other bytes.

    A tag that is the MD5 of our bytes proves that they are equal. Any other tag proves nothing, since tags are opaque:
    then the file is read back.
    """
    size, tag = entry
    if size != file.size:
        raise _taken_error(work.target, file, f"{size} bytes")
    if tag and hashlib.md5(fetch(work.source, file), usedforsecurity=False).hexdigest() == tag:
        return
    if (digest := work.target.digest(file.key)) != file.sha256:
        raise _taken_error(work.target, file, f"sha256 {(digest or 'nothing')[:16]}")


def _taken_error(target: Place, file: SharedFile, content: str) -> StoreError:
    problem = (
        f"{target.path(file.key)} is there with {content}, the seal lists {file.size} bytes, sha256 {file.sha256[:16]}"
    )
    return StoreError(f"{problem}; it is another store's or damaged: remove this file, or use another address or path")


def fetch(source: Place, file: SharedFile) -> bytes:
    """A file's bytes, compared with its sha256. A far place is asked again: bytes may be spoiled on the way."""
    if file.data is not None:
        return file.data
    return require_sha256(source, file.key, file.size, file.sha256, says="the seal lists")


def _finish(work: _Work, listing: SealedListing) -> str:
    """Write manifest, card, the record of what is left out, and seal, one by one; then `latest`. Returns the content id
    that `latest` names."""
    target = work.target
    for file in listing.last:
        work.stop.check("run the same command again to go on")
        assert file.data is not None
        written = False
        if file.key == PARTIAL:
            _leave_out(target, listing)  # before the seal: at no moment does a partial copy pass for a whole one
        elif file.key == CARD:
            written = _write_card(work, file.data)
        elif file.key == LATEST_SEAL:
            written = _move_latest(target, listing)
        elif not (written := target.put_new(file.key, file.data)) and target.digest(file.key) != file.sha256:
            raise _taken_error(target, file, "other contents")
        _count(work, file, written)
    _leave_out(target, listing)
    seal = read_seal(target, listing.identity, None)
    assert seal is not None
    return seal.content_id


def _write_card(work: _Work, card: bytes) -> bool:
    """Write the card, unless another is there and stays; true where it was written. No hash covers cards, so two may
    differ, and neither is known to be the newer one."""
    current = work.target.get(CARD, limit=CARD_LIMIT)
    if current == card:
        return False
    if current is not None:
        work.card = "kept" if work.keep_card else "replaced"
    if work.card != "kept":
        work.target.replace(CARD, card)
    return work.card != "kept"


def _leave_out(target: Place, listing: SealedListing) -> None:
    """Bring `kdcache/partial.json` up to date: it lists what was left out before or is left out now, less what is
    there."""
    current = read_partial(target, target=True)
    if current != NOTHING or listing.partial != NOTHING:
        sealed = {segment for seal in _seals(target, listing) for segment in seal.segments}
        replace_partial(target, current, current.after_copy(listing.partial, listing.segments, sealed))


def standing_seals(target: Place, identity: Identity, names: Iterable[str]) -> list[Seal]:
    """The seals of these names that stand at a target. One that cannot be read is passed over: it must not keep newer
    ones out."""
    seals = []
    for name in names:
        with suppress(DamagedError, FormatError, StoreNotFoundError):
            seals.append(read_seal(target, identity, name))
    return [seal for seal in seals if seal is not None]


def _seals(target: Place, listing: SealedListing) -> list[Seal]:
    return standing_seals(target, listing.identity, sealed_ids(target))


def _move_latest(target: Place, listing: SealedListing) -> bool:
    """Let `latest` name this seal, unless it names one with a segment that this one lacks; true where it was written.

    Two copies at once may each see the other's seal too late. So both look before they write and again afterwards, and
    the seal with more segments stays.
    """
    current = read_seal(target, listing.identity, None)
    if current is not None and (current == listing.seal or not set(current.segments) <= set(listing.seal.segments)):
        return False
    content_id = ""
    while (newest_id := _newest(target, listing).content_id) != content_id:
        target.replace(LATEST_SEAL, newest_id.encode() + b"\n")
        content_id = newest_id
    return True


def _newest(target: Place, listing: SealedListing) -> Seal:
    """This seal, or one of the target's that lists all of its segments and more."""
    newest = listing.seal
    for seal in _seals(target, listing):
        if set(newest.segments) < set(seal.segments):
            newest = seal
    return newest
