"""Push a sealed store to an object store or a folder; pull one from there or from a web server."""

import time

from kdcache.errors import InvalidInputError
from kdcache.files import Folder
from kdcache.manifest import Record
from kdcache.partial import spans
from kdcache.place import Place, is_url, open_place
from kdcache.progress import Progress, StopRequest, silent
from kdcache.seals import split_pin
from kdcache.share import SealedListing, sealed_files
from kdcache.transfer import JOBS, copy_sealed


class Shared(Record):
    """What was copied where, and how to open just that: `pin`."""

    store: str
    to: str
    content_id: str
    pin: str
    views: str
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    seconds: float
    note: str


def push(
    store: str, url: str, *, jobs: int = JOBS, progress: Progress = silent, stop: StopRequest | None = None
) -> Shared:
    """Copy what a store's seal lists to `url`; the latest seal, or the one that `store` pins.

    Only what is not there yet is written. Raises MismatchError where another store has the place, naming what differs.
    """
    path, pin = split_pin(store)
    source, target = open_place(path), open_place(url)
    if target.far and not target.lists:
        advice = "push to a bucket or a folder that a web server shows, and name its address to those who pull"
        raise InvalidInputError(f"{target.root} is read only; {advice}")
    listing = sealed_files(source, pin)
    return _copy(source, target, listing, jobs=jobs, progress=progress, stop=stop, what="pushing (bytes)")


def pull(
    url: str,
    store: str,
    *,
    views: str = "",
    jobs: int = JOBS,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> Shared:
    """Copy what a seal at `url` lists to a folder: all of it, or the segments of `views` (0:10)."""
    if is_url(store):
        raise InvalidInputError(f"{open_place(store).root} was named as the folder to pull to; name a path")
    path, pin = split_pin(url)
    source, span = open_place(path), _span(views)
    listing = sealed_files(source, pin, views=span)
    return _copy(source, Folder(store), listing, jobs=jobs, progress=progress, stop=stop, what="pulling (bytes)")


def _copy(
    source: Place,
    target: Place,
    listing: SealedListing,
    *,
    jobs: int,
    progress: Progress,
    stop: StopRequest | None,
    what: str,
) -> Shared:
    if source.root == target.root:
        raise InvalidInputError(f"{source.root} was named twice; name another place to copy to")
    began = time.monotonic()
    copied = copy_sealed(source, target, listing, jobs=jobs, progress=progress, what=what, stop=stop)
    return Shared(
        store=str(source.root),
        to=str(target.root),
        content_id=listing.content_id,
        pin=f"{target.root}@{listing.content_id[:32]}",
        views=spans(listing.segments),
        files=copied.files,
        bytes=copied.bytes,
        copied_files=copied.copied_files,
        copied_bytes=copied.copied_bytes,
        seconds=round(time.monotonic() - began, 2),
        note=_note(target, listing, copied.latest),
    )


def _note(target: Place, listing: SealedListing, latest: str) -> str:
    if latest != listing.content_id:
        said = f"without a pin, {target.root} still opens as seal {latest[:12]}, which lists views that this one lacks"
        return f"{said}; the pin opens this one"
    return f"views {spans(listing.left_out)} were left out" if listing.left_out else ""


def _span(views: str) -> tuple[int, int] | None:
    if not views:
        return None
    first, colon, last = views.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise InvalidInputError(f"--views {views[:40]} is no range of views; write --views 0:10, the end exclusive")
    return int(first), int(last)
