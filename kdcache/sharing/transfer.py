"""A sealed store travels: from any place that is read to any that is written, data first, the seal last.

What is there already is skipped once its bytes are known to be right; every file is held against its sha256 on the way;
whatever stops it, the same command goes on, and readers see the old seal or the new one.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field

from kdcache.base.canonical import sha256_hex
from kdcache.base.limits import CARD_LIMIT, MANIFEST_LIMIT
from kdcache.base.progress import Progress, StopRequest
from kdcache.base.records import require_equal
from kdcache.errors import DamagedError, FormatError, StoreError, StoreNotFoundError
from kdcache.places.bucket import Bucket
from kdcache.places.checked_files import require_sha256
from kdcache.places.parallel import Budget
from kdcache.places.place import Place
from kdcache.sharing.sealed_files import SealedListing, SharedFile
from kdcache.store.layout import CARD, LATEST_SEAL, MANIFEST, PARTIAL
from kdcache.store.manifest import parse_manifest
from kdcache.store.partial import Partial, read_partial
from kdcache.store.seals import Seal, read_seal, sealed_ids

JOBS = 8
HELD = 256 * 2**20  # bytes of shards in memory at once
LOOKED = 0.2  # seconds between looks at a request to stop


@dataclass(frozen=True)
class Copied:
    """What a copy wrote, what was there, and which seal `latest` names at its end."""

    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    latest: str
    card: str = ""  # what became of another card that stood there: kept or replaced


@dataclass
class _Work:
    """A copy under way."""

    source: Place
    target: Place
    stop: StopRequest
    report: Callable[[int], None]
    there: dict[str, tuple[int, str]] | None  # what a bucket holds already, by one listing
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
    what: str,
    stop: StopRequest | None = None,
    keep_card: bool = False,
) -> Copied:
    """Write what a listing names to `target`; another card that stands there is replaced, or kept.

    Raises MismatchError where another store has the place, DamagedError where a file is not what its sha256 says,
    InterruptedRunError on request; what was written stays, and counts.
    """
    _require_same_store(target, listing)
    total, done = listing.bytes, 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        progress(what, done, total)

    there = target.entries() if isinstance(target, Bucket) else None
    work = _Work(source, target, stop or StopRequest(), report, there, keep_card=keep_card)
    with ThreadPoolExecutor(jobs, thread_name_prefix="kdcache") as threads:
        for step in (listing.data, listing.records):
            _run(threads, work, step, jobs)
    latest = _finish(work, listing)
    return Copied(len(listing.files), total, work.files, work.bytes, latest, work.card)


def _require_same_store(target: Place, listing: SealedListing) -> None:
    """The store that has the place must be this one. Raises MismatchError, naming what differs, or StoreError."""
    standing, ours = target.get(MANIFEST, limit=MANIFEST_LIMIT), listing.last[0]
    if standing is None or standing == ours.data:
        return
    found = parse_manifest(standing, str(target.path(MANIFEST)))
    require_equal(found.identity, listing.identity, f"{target.root} is another store:", "use another address or path")
    raise StoreError(
        f"{target.root} was extracted apart from this store (its manifest has sha256 {sha256_hex(standing)[:16]}, "
        f"this one's {ours.sha256[:16]}), though identities are equal; use another address or path"
    )


def _run(threads: ThreadPoolExecutor, work: _Work, files: Sequence[SharedFile], jobs: int) -> None:
    """Copy files in any order, some at a time; the first error ends it once what runs has ended."""
    waiting: set[Future[tuple[SharedFile, bool]]] = set()
    remaining = iter(files)
    try:
        while True:
            work.stop.check("run the same command again to go on")
            while len(waiting) < 2 * jobs and (file := next(remaining, None)) is not None:
                waiting.add(threads.submit(_copy, work, file))
            if not waiting:
                return
            ended, waiting = wait(waiting, timeout=LOOKED, return_when=FIRST_COMPLETED)
            for future in ended:
                _count(work, *future.result())
    finally:
        for future in waiting:
            future.cancel()


def _count(work: _Work, file: SharedFile, written: bool) -> None:
    work.files += written
    work.bytes += file.size * written
    work.report(file.size)


def _copy(work: _Work, file: SharedFile) -> tuple[SharedFile, bool]:
    """One file, unless it is there. Raises StoreError where other bytes have its place."""
    work.budget.take(file.size)
    try:
        if work.there is None and _holds(work.target, file):
            return file, False
        if work.there is not None and (found := work.there.get(file.key)) is not None:
            _require_bytes(work, file, found)
            return file, False
        if work.target.put_new(file.key, fetched(work.source, file)):
            return file, True
        _require_bytes(work, file, (file.size, ""))
        return file, False
    finally:
        work.budget.give(file.size)


def _holds(target: Place, file: SharedFile) -> bool:
    """Whether a folder holds a file. Raises StoreError where it holds another under its key."""
    size = target.size(file.key)
    if size is None:
        return False
    if size != file.size or (found := target.digest(file.key)) is None:
        raise _taken(target, file, f"{size} bytes")
    if found != file.sha256:
        raise _taken(target, file, f"sha256 {found[:16]}")
    return True


def _require_bytes(work: _Work, file: SharedFile, found: tuple[int, str]) -> None:
    """Raises StoreError where a target's file is another. An entity tag that is the MD5 of our bytes says that it is
    the same; one that is not (they are opaque) says nothing, and the file is read back."""
    size, tag = found
    if size != file.size:
        raise _taken(work.target, file, f"{size} bytes")
    if tag and hashlib.md5(fetched(work.source, file), usedforsecurity=False).hexdigest() == tag:
        return
    if (digest := work.target.digest(file.key)) != file.sha256:
        raise _taken(work.target, file, f"sha256 {(digest or 'nothing')[:16]}")


def _taken(target: Place, file: SharedFile, found: str) -> StoreError:
    said = f"{target.path(file.key)} is there with {found}, the seal lists {file.size} bytes, sha256 {file.sha256[:16]}"
    return StoreError(f"{said}; it is another store's or damaged: remove this file, or use another address or path")


def fetched(source: Place, file: SharedFile) -> bytes:
    """A file's bytes, held against its sha256. A far place is asked again: bytes may be spoiled on the way."""
    if file.data is not None:
        return file.data
    return require_sha256(source, file.key, file.size, file.sha256, says="the seal lists")


def _finish(work: _Work, listing: SealedListing) -> str:
    """Manifest, card, what is left out and the seal, one by one; then `latest`. Returns the content id it names."""
    target = work.target
    for file in listing.last:
        work.stop.check("run the same command again to go on")
        assert file.data is not None
        written = False
        if file.key == PARTIAL:
            _leave_out(target, listing)  # before the seal: there is no moment in which a part passes for the whole
        elif file.key == CARD:
            written = _write_card(work, file.data)
        elif file.key == LATEST_SEAL:
            written = _move_latest(target, listing)
        elif not (written := target.put_new(file.key, file.data)) and target.digest(file.key) != file.sha256:
            raise _taken(target, file, "other contents")
        _count(work, file, written)
    _leave_out(target, listing)
    seal = read_seal(target, listing.identity, None)
    assert seal is not None
    return seal.content_id


def _write_card(work: _Work, card: bytes) -> bool:
    """The card: no hash covers it, so two may differ, and nothing says which is newer. Whether it was written."""
    standing = work.target.get(CARD, limit=CARD_LIMIT)
    if standing == card:
        return False
    if standing is not None:
        work.card = "kept" if work.keep_card else "replaced"
    if work.card != "kept":
        work.target.replace(CARD, card)
    return work.card != "kept"


def _leave_out(target: Place, listing: SealedListing) -> None:
    """Bring `kdcache/partial.json` up to date: what was left out before or now, less what is there whole: what seals
    list that stand there already, but for what was left out before."""
    before = read_partial(target, target=True)
    if not before and not listing.left_out:
        return
    whole = {each for seal in _seals(target, listing) for each in seal.segments if each not in before}
    whole |= set(listing.segments)
    left_out = [each for each in dict.fromkeys((*before, *listing.left_out)) if each not in whole]
    if left_out:
        target.replace(PARTIAL, Partial(left_out=tuple(left_out)).to_bytes())
    elif before:
        target.delete(PARTIAL)


def _seals(target: Place, listing: SealedListing) -> list[Seal]:
    """The seals that stand there. One that does not read seals nothing, and must not keep newer ones out."""
    found = []
    for name in sealed_ids(target):
        with suppress(DamagedError, FormatError, StoreNotFoundError):
            found.append(read_seal(target, listing.identity, name))
    return [seal for seal in found if seal is not None]


def _move_latest(target: Place, listing: SealedListing) -> bool:
    """Let `latest` name this seal, unless the one that it names lists a segment that this one lacks: then it stays.
    Whether it was written.

    Two copies at once may each find the other's seal too late; so both look before they write and again afterwards, and
    the one with more stays.
    """
    standing = read_seal(target, listing.identity, None)
    if standing is not None and (standing == listing.seal or not set(standing.segments) <= set(listing.seal.segments)):
        return False
    named = ""
    while (newest := _newest(target, listing).content_id) != named:
        target.replace(LATEST_SEAL, newest.encode() + b"\n")
        named = newest
    return True


def _newest(target: Place, listing: SealedListing) -> Seal:
    """This seal, or the one there that lists all of its segments and more."""
    newest = listing.seal
    for seal in _seals(target, listing):
        if set(newest.segments) < set(seal.segments):
            newest = seal
    return newest
