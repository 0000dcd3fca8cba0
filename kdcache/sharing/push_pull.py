"""Push a sealed store to an object store or a folder; pull one from there or from a web server."""

import time

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import Record
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.places.folder import Folder
from kdcache.places.opening import ARCHIVE, open_place
from kdcache.places.place import Place, is_url
from kdcache.sharing.sealed_files import SealedListing, sealed_files, views_of
from kdcache.sharing.transfer import JOBS, Copied, copy_sealed
from kdcache.store.layout import CARD
from kdcache.store.seals import split_pin

PUSHING, PULLING = "pushing (bytes)", "pulling (bytes)"


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
    if ARCHIVE.search(url.rstrip("/")):  # a folder of that name would be read as a zip file
        advice = "name an address without .zip, or write one file (kdcache export) and copy that there"
        raise InvalidInputError(
            f"{open_place(url.rstrip('/')).root} would be read as a zip file, and a push writes a folder; {advice}"
        )
    if url.lower().startswith("hf:"):
        return _push_to_hub(open_place(path), pin, url, jobs=jobs, progress=progress, stop=stop)
    source, target = open_place(path), open_place(url)
    if target.far and not target.lists:
        advice = "push to a bucket or a folder that a web server shows, and name its address to those who pull"
        raise InvalidInputError(f"{target.root} is read only; {advice}")
    listing = sealed_files(source, pin)
    return _copy(source, target, listing, jobs=jobs, progress=progress, stop=stop, what=PUSHING)


def _push_to_hub(
    source: Place, pin: str | None, url: str, *, jobs: int, progress: Progress, stop: StopRequest | None
) -> Shared:
    from kdcache.sharing.hub_push import copy_to_hub

    began, target = time.monotonic(), open_place(url)
    listing = sealed_files(source, pin)
    copied, made = copy_to_hub(
        source, url, listing, jobs=jobs, progress=progress, what=PUSHING, stop=stop or StopRequest()
    )
    note = _note(target, listing, copied)
    made_note = f"{target.root} was made, private: change that on its page" if made else ""
    return _shared(source, target, listing, copied, began, note="; ".join(each for each in (made_note, note) if each))


def pull(
    url: str,
    store: str,
    *,
    views: ViewSpan | None = None,
    jobs: int = JOBS,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> Shared:
    """Copy what a seal at `url` lists to a folder: all of it, or the segments of `views`."""
    if is_url(store):
        raise InvalidInputError(f"{open_place(store).root} was named as the folder to pull to; name a path")
    path, pin = split_pin(url)
    source = open_place(path)
    listing = sealed_files(source, pin, views=views)
    return _copy(source, Folder(store), listing, jobs=jobs, progress=progress, stop=stop, what=PULLING)


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
    copied = copy_sealed(
        source, target, listing, jobs=jobs, progress=progress, what=what, stop=stop, keep_card=what == PULLING
    )
    return _shared(source, target, listing, copied, began, note=_note(target, listing, copied))


def _shared(source: Place, target: Place, listing: SealedListing, copied: Copied, began: float, *, note: str) -> Shared:
    return Shared(
        store=str(source.root),
        to=str(target.root),
        content_id=listing.content_id,
        pin=f"{target.root}@{listing.content_id[:32]}",
        views=views_of(listing.segments),
        files=copied.files,
        bytes=copied.bytes,
        copied_files=copied.copied_files,
        copied_bytes=copied.copied_bytes,
        seconds=round(time.monotonic() - began, 2),
        note=note,
    )


def _note(target: Place, listing: SealedListing, copied: Copied) -> str:
    notes = []
    if (latest := copied.latest) != listing.content_id:
        said = f"without a pin, {target.root} still opens as seal {latest[:12]}, which lists views that this one lacks"
        notes.append(f"{said}; the pin opens this one")
    elif listing.left_out:
        notes.append(f"views {views_of(listing.left_out)} were left out")
    if copied.card == "kept":
        notes.append(f"the card here was kept, another came: to take that, remove {target.path(CARD)} and pull again")
    if copied.card == "replaced":
        notes.append("another card stood there and was replaced by this one")
    return "; ".join(notes)
