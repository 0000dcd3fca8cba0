"""A sealed store travels to a data set repository: commits of bounded size, data first, the seal alone at the end.

A commit is whole or absent, so readers see the old seal or the new one. What is there with equal bytes is skipped, and
so is what was uploaded before a push was stopped: the same command goes on.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import sleep
from typing import Any

from kdcache.base.limits import MANIFEST_LIMIT, MIB
from kdcache.base.progress import Progress, StopRequest
from kdcache.errors import InvalidInputError, StoreError
from kdcache.places import http_requests
from kdcache.places.http_requests import jittered
from kdcache.places.hub import LOGIN, HubAddress, HubServer, find_hub, split_hub
from kdcache.places.hub_client import HubClient, Standing, quiet
from kdcache.places.place import Place
from kdcache.places.web import WebFolder
from kdcache.sharing.sealed_files import SealedListing, SharedFile
from kdcache.sharing.transfer import Copied, fetched
from kdcache.store.layout import CARD, LATEST_SEAL, MANIFEST
from kdcache.store.seals import Seal, read_seal

FILES_MAX = 100_000  # of a repository, as the hub advises
FOLDER_MAX = 10_000  # entries of one folder, which the hub refuses to exceed
BATCH_BYTES = 64 * MIB  # that are held and uploaded at a time
COMMIT_FILES = 500
SEALINGS = 6  # last commits that are tried while others commit
REPLACED = frozenset({CARD, LATEST_SEAL})  # the only keys that a push writes over


@dataclass
class _Push:
    """A push under way."""

    source: Place
    address: HubAddress
    client: HubClient
    there: dict[str, Standing]
    report: Callable[[int], None]
    stop: StopRequest
    waiting: list[Any] = field(default_factory=list)  # uploaded, not yet committed
    files: int = 0
    bytes: int = 0
    card: str = ""


def copy_to_hub(
    source: Place, url: str, listing: SealedListing, *, jobs: int, progress: Progress, what: str, stop: StopRequest
) -> tuple[Copied, bool]:
    """Push what a listing names to a repository, which is made, private, where there is none; whether it was made.

    Raises StoreError before anything is sent where the layout would break the hub's limits or another store has the
    place, and for what the hub refuses; InterruptedRunError on request.
    """
    address, hub = split_hub(url), find_hub()
    if not hub.token:
        raise InvalidInputError(f"{address.text} was named to push to, and there is no token; {LOGIN}")
    done = 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        progress(what, done, listing.bytes)

    with quiet():
        client = HubClient(address, hub, jobs)
        listed = client.listed()
        push = _Push(source, address, client, listed or {}, report, stop)
        require_limits({address.inside(file.key) for file in listing.files} | push.there.keys(), address.text)
        manifest, *others = listing.last[:-2]
        _stands(push, manifest)
        if listed is None:
            client.create()
        before = [*listing.data, *listing.records, manifest, *others]
        _send(push, before)
        _commit(push)
        named = _seal(push, listing, before)
    return Copied(len(listing.files), listing.bytes, push.files, push.bytes, named, push.card), listed is None


def require_limits(paths: Iterable[str], name: str) -> None:
    """Raises StoreError where a repository of these files has more, in all or in a folder, than the hub takes."""
    files, folders, entries = set(paths), {""}, Counter[str]()
    for path in files:
        above = path.rpartition("/")[0]
        entries[above] += 1
        while above not in folders:
            folders.add(above)
            above = above.rpartition("/")[0]
            entries[above] += 1
    fullest, most = entries.most_common(1)[0]
    advice = "write the store to one file (kdcache export), and put that into the repository"
    if len(files) > FILES_MAX:
        raise StoreError(f"{name} would have {len(files)} files, the hub advises {FILES_MAX} at most; {advice}")
    if most > FOLDER_MAX:
        raise StoreError(
            f"{name} would have {most} entries in {fullest or 'its root'}, the hub takes {FOLDER_MAX}; {advice}"
        )


def _send(push: _Push, files: Iterable[SharedFile]) -> None:
    """Upload files that are not there, and commit them in bounded numbers."""
    batch: list[tuple[str, bytes]] = []
    for file in files:
        push.stop.check("run the same command again to go on")
        if _stands(push, file):
            push.report(file.size)
            continue
        batch.append((push.address.inside(file.key), fetched(push.source, file)))
        if len(batch) >= COMMIT_FILES or sum(len(data) for _, data in batch) >= BATCH_BYTES:
            _upload(push, batch)
            batch = []
    if batch:
        _upload(push, batch)


def _upload(push: _Push, batch: list[tuple[str, bytes]]) -> None:
    if len(push.waiting) + len(batch) > COMMIT_FILES:
        _commit(push)
    push.waiting += push.client.upload(batch)
    for _, data in batch:
        push.files += 1
        push.bytes += len(data)
        push.report(len(data))


def _commit(push: _Push) -> None:
    push.stop.check("run the same command again to go on")
    if push.waiting:
        push.client.commit(push.waiting)
        push.waiting = []


def _same(push: _Push, found: Standing, file: SharedFile) -> bool:
    if found.size != file.size:
        return False
    return found.sha256 == file.sha256 if found.sha256 else found.git == _git(fetched(push.source, file))


def _stands(push: _Push, file: SharedFile) -> bool:
    """Whether the repository has these very bytes. Raises StoreError where it has others that nothing may replace."""
    found = push.there.get(push.address.inside(file.key))
    if found is None:
        return False
    same = _same(push, found, file)
    if not same and file.key not in REPLACED:
        said = f"{push.address.text}/{file.key} is there with {found.size} other bytes, the seal lists {file.size}"
        raise StoreError(f"{said}; another store has the place: push to another path, {push.address.text}/NAME")
    if not same and file.key == CARD:
        push.card = "replaced"
    return same


def _seal(push: _Push, listing: SealedListing, before: Iterable[SharedFile]) -> str:
    """The last commit: the seal, and `latest` unless it names a seal with segments that this one lacks. It goes on top
    of the commit that was looked at, so another push in between is looked at too. The content id that `latest` names.
    """
    seal, latest = listing.last[-2:]
    for tries in range(SEALINGS):
        sleep(tries and jittered(http_requests.PATIENCE.pause * 2**tries, http_requests.PATIENCE))
        standing, commit = _standing(push, listing)
        _require_whole(push, before, commit)
        moves = standing is None or set(standing.segments) <= set(listing.seal.segments)
        new = [file for file in ([seal, latest] if moves else [seal]) if not _stands(push, file)]
        push.stop.check("run the same command again to go on")
        batch = [(push.address.inside(file.key), fetched(push.source, file)) for file in new]
        if not new or push.client.commit(push.client.upload(batch), commit or None):
            push.files += len(new)
            push.bytes += sum(file.size for file in new)
            push.report(seal.size + latest.size * moves)
            return listing.content_id if moves or standing is None else standing.content_id
    said = f"{push.address.text}: others committed {SEALINGS} times while the seal was to be written"
    raise StoreError(f"{said}; run the same command again")


def _require_whole(push: _Push, files: Iterable[SharedFile], commit: str) -> None:
    """Raises StoreError where the repository lacks a file, or has another: then no seal is written."""
    push.there = push.client.listed(commit) or {}
    for file in files:
        found = push.there.get(push.address.inside(file.key))
        if found is None:
            advice = "is its name in the repository's .gitignore? mend that, and run the same command again"
            raise StoreError(f"{push.address.text}/{file.key} was pushed and is not there; {advice}")
        if not _same(push, found, file):
            said = f"{push.address.text}/{file.key} is there with other bytes than were pushed"
            raise StoreError(f"{said}; remove it, and run the same command again")


def _standing(push: _Push, listing: SealedListing) -> tuple[Seal | None, str]:
    """The seal that `latest` names there, and the commit that this holds for."""
    server = HubServer(push.address, push.client.hub)
    place = WebFolder(push.address.text, server)
    place.require(MANIFEST, "another process deleted it", limit=MANIFEST_LIMIT)  # from here on, of one commit
    return read_seal(place, listing.identity, None), server.commit


def _git(data: bytes) -> str:
    """The id that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
