"""Push a sealed store to an object store or a folder; pull one from there or from a web server."""

import time
from collections.abc import Sequence
from typing import ClassVar

from kdcache.base.progress import Activity, Progress, StopRequest, silent
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

PUSHING, PULLING = Activity("pushing", "bytes"), Activity("pulling", "bytes")


class Shared(Record):
    """A push or a pull that is done tells the files that it copied, and the pin that opens the copied seal alone.

    Attributes:
        store: The store that was copied.
        to: The place that it was copied to.
        content_id: The content id of the seal.
        pin: `to@ID`, which opens just this seal.
        views: The views that were copied, such as "0:10".
        files: The number of files of the seal.
        bytes: Their bytes.
        copied_files: The number of files that were missing there.
        copied_bytes: Their bytes.
        seconds: The time that it took.
        without: The taps that were not copied.
        without_bytes: Their bytes.
        note: A remark for people.
    """

    LATER: ClassVar[tuple[str, ...]] = ("without", "without_bytes")

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
    without: tuple[str, ...] = ()
    without_bytes: int = 0
    note: str


def push(
    store: str,
    url: str,
    *,
    without: Sequence[str] = (),
    jobs: int = JOBS,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> Shared:
    """A push copies the files of a store's seal to another place. Only files that are missing there are written; the
    seal comes last.

    Args:
        store: The store; its latest seal is copied, or the one that `store@ID` pins.
        url: The place: a folder, or an address such as `s3://BUCKET/NAME.kd`.
        without: Taps that are not copied: `taps` for all, or `tap:NAME`.
        jobs: The number of files that are copied at once.
        progress: A callable that hears of the bytes that are done.
        stop: A request to stop, which may be made meanwhile.

    Raises MismatchError, naming what differs, where another store has the place, and InvalidInputError for taps that
    the store does not keep and for a place that cannot be written to.

    Examples:
        >>> shared = push("digits.kd", "shared/digits.kd")
        >>> shared.pin == f"shared/digits.kd@{store.content_id[:32]}"
        True
    """
    path, pin = split_pin(store)
    if ARCHIVE.search(url.rstrip("/")):  # a folder of that name would be read as a zip file
        advice = "name an address without .zip, or write one file (kdcache export) and copy that there"
        raise InvalidInputError(
            f"{open_place(url.rstrip('/')).root} would be read as a zip file, and a push writes a folder; {advice}"
        )
    if url.lower().startswith("hf:"):
        return _push_to_hub(open_place(path), pin, url, without=without, jobs=jobs, progress=progress, stop=stop)
    source, target = open_place(path), open_place(url)
    if target.far and not target.lists:
        advice = "push to a bucket or a folder that a web server shows, and name its address to those who pull"
        raise InvalidInputError(f"{target.root} is read only; {advice}")
    listing = sealed_files(source, pin, without=without)
    return _copy(source, target, listing, jobs=jobs, progress=progress, stop=stop, label=PUSHING)


def _push_to_hub(
    source: Place,
    pin: str | None,
    url: str,
    *,
    without: Sequence[str],
    jobs: int,
    progress: Progress,
    stop: StopRequest | None,
) -> Shared:
    from kdcache.sharing.hub_push import copy_to_hub

    start_time, target = time.monotonic(), open_place(url)
    listing = sealed_files(source, pin, without=without)
    copy, is_new = copy_to_hub(
        source, url, listing, jobs=jobs, progress=progress, label=PUSHING, stop=stop or StopRequest()
    )
    note = _note(target, listing, copy)
    made_note = f"{target.root} was made, private: change that on its page" if is_new else ""
    return _summary(
        source, target, listing, copy, start_time, note="; ".join(text for text in (made_note, note) if text)
    )


def pull(
    url: str,
    store: str,
    *,
    views: ViewSpan | None = None,
    without: Sequence[str] = (),
    jobs: int = JOBS,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> Shared:
    """A pull copies the files of a seal at an address to a folder: all of them, or those of some views. Each file is
    held against its sha256; a pull that was stopped goes on where it stopped.

    Args:
        url: The address of the store, or `url@ID` for the seal of that content id.
        store: The folder that they are copied to.
        views: Views whose segments are copied; all by default.
        without: Taps that are not copied: `taps` for all, or `tap:NAME`.
        jobs: The number of files that are copied at once.
        progress: A callable that hears of the bytes that are done.
        stop: A request to stop, which may be made meanwhile.

    Raises InvalidInputError for an address in place of the folder, StoreNotFoundError, MismatchError and DamagedError.

    Examples:
        >>> pull("digits.kd", "copy.kd", views=ViewSpan(0, 2)).views
        '0:2'
    """
    if is_url(store):
        raise InvalidInputError(f"{open_place(store).root} was named as the folder to pull to; name a path")
    path, pin = split_pin(url)
    source = open_place(path)
    listing = sealed_files(source, pin, views=views, without=without)
    return _copy(source, Folder(store), listing, jobs=jobs, progress=progress, stop=stop, label=PULLING)


def _copy(
    source: Place,
    target: Place,
    listing: SealedListing,
    *,
    jobs: int,
    progress: Progress,
    stop: StopRequest | None,
    label: str,
) -> Shared:
    if source.root == target.root:
        raise InvalidInputError(f"{source.root} was named twice; name another place to copy to")
    start_time = time.monotonic()
    copy = copy_sealed(
        source, target, listing, jobs=jobs, progress=progress, label=label, stop=stop, keep_card=label == PULLING
    )
    return _summary(source, target, listing, copy, start_time, note=_note(target, listing, copy))


def _summary(
    source: Place, target: Place, listing: SealedListing, copy: Copied, start_time: float, *, note: str
) -> Shared:
    return Shared(
        store=str(source.root),
        to=str(target.root),
        content_id=listing.content_id,
        pin=f"{target.root}@{listing.content_id[:32]}",
        views=views_of(listing.segments),
        files=copy.files,
        bytes=copy.bytes,
        copied_files=copy.copied_files,
        copied_bytes=copy.copied_bytes,
        seconds=round(time.monotonic() - start_time, 2),
        without=listing.taps,
        without_bytes=listing.taps_bytes,
        note=note,
    )


def _note(target: Place, listing: SealedListing, copy: Copied) -> str:
    notes = []
    if (latest := copy.latest) != listing.content_id:
        text = f"without a pin, {target.root} still opens as seal {latest[:12]}, which lists views that this one lacks"
        notes.append(f"{text}; the pin opens this one")
    elif listing.partial.left_out:
        notes.append(f"views {views_of(listing.partial.left_out)} were left out")
    if listing.taps:
        notes.append(f"taps {', '.join(listing.taps)} were not copied: {listing.taps_bytes:,} bytes")
    if copy.card == "kept":
        notes.append(f"the card here was kept, another came: to take that, remove {target.path(CARD)} and pull again")
    if copy.card == "replaced":
        notes.append("another card stood there and was replaced by this one")
    return "; ".join(notes)
