"""A sealed store travels to a data set repository: commits of bounded size, data first, the seal alone at the end.

A commit is whole or absent, so readers see the old seal or the new one. A file that is there with equal bytes is
skipped, and so is one that was uploaded before a push was stopped: the same command goes on.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from kdcache.base.limits import MANIFEST_LIMIT, MIB
from kdcache.base.progress import Progress, StopRequest
from kdcache.errors import InvalidInputError, StoreError
from kdcache.places.hub import LOGIN, HubAddress, HubServer, find_hub, split_hub
from kdcache.places.hub_client import HubClient, Standing, quiet, sending_patience
from kdcache.places.patience import TryAgainError
from kdcache.places.place import Place
from kdcache.places.web import WebFolder
from kdcache.sharing.sealed_files import SealedListing, SharedFile, known_file
from kdcache.sharing.transfer import Copied, fetch, standing_seals
from kdcache.store.layout import CARD, LATEST_SEAL, MANIFEST, PARTIAL
from kdcache.store.partial import NOTHING, read_partial
from kdcache.store.seals import read_seal, seal_names

FILES_MAX = 100_000  # of a repository, as the hub advises
FOLDER_MAX = 10_000  # entries of one folder, which the hub refuses to exceed
BATCH_BYTES = 64 * MIB  # that are held and uploaded at a time
COMMIT_FILES = 500
SEALINGS = 6  # last commits that are tried while others commit
REPLACED = frozenset({CARD, PARTIAL, LATEST_SEAL})  # the only keys that a push writes over


@dataclass
class _Push:
    """A push under way."""

    source: Place
    address: HubAddress
    client: HubClient
    entries: dict[str, Standing]  # the repository's files by path
    report: Callable[[int], None]
    stop: StopRequest
    uploads: list[Any] = field(default_factory=list)  # not yet committed
    files: int = 0
    bytes: int = 0
    card: str = ""


def copy_to_hub(
    source: Place, url: str, listing: SealedListing, *, jobs: int, progress: Progress, label: str, stop: StopRequest
) -> tuple[Copied, bool]:
    """Push the files of a listing to a repository. It is made, private, where there is none; true where it was made.

    Raises StoreError before anything is sent where the layout would break the hub's limits or another store has the
    place, and for a request that the hub refuses; InterruptedRunError on request.
    """
    address, hub = split_hub(url), find_hub()
    if not hub.token:
        raise InvalidInputError(f"{address.text} was named to push to, and there is no token; {LOGIN}")
    done = 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        progress(label, done, listing.bytes)

    with quiet():
        client = HubClient(address, hub, jobs)
        entries = client.listed()
        push = _Push(source, address, client, entries or {}, report, stop)
        require_limits({address.inside(file.key) for file in listing.files} | push.entries.keys(), address.text)
        manifest, *extra_files = (file for file in listing.last[:-2] if file.key != PARTIAL)
        _holds(push, manifest)
        if entries is None:
            client.create()
        files = [*listing.data, *listing.records, manifest, *extra_files]
        _send(push, files)
        _commit(push)
        latest = _seal(push, listing, files)
    return Copied(len(listing.files), listing.bytes, push.files, push.bytes, latest, push.card), entries is None


def require_limits(paths: Iterable[str], name: str) -> None:
    """Raises StoreError where these files are more than the hub takes, in a repository or in one folder."""
    files, folders, entries = set(paths), {""}, Counter[str]()
    for path in files:
        folder = path.rpartition("/")[0]
        entries[folder] += 1
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
            entries[folder] += 1
    fullest_folder, most = entries.most_common(1)[0]
    advice = "write the store to one file (kdcache export), and put that into the repository"
    if len(files) > FILES_MAX:
        raise StoreError(f"{name} would have {len(files)} files, the hub advises {FILES_MAX} at most; {advice}")
    if most > FOLDER_MAX:
        raise StoreError(
            f"{name} would have {most} entries in {fullest_folder or 'its root'}, the hub takes {FOLDER_MAX}; {advice}"
        )


def _send(push: _Push, files: Iterable[SharedFile]) -> None:
    """Upload files that are not there, and commit them in bounded numbers."""
    batch: list[tuple[str, bytes]] = []
    for file in files:
        push.stop.check("run the same command again to go on")
        if _holds(push, file):
            push.report(file.size)
            continue
        batch.append((push.address.inside(file.key), fetch(push.source, file)))
        if len(batch) >= COMMIT_FILES or sum(len(data) for _, data in batch) >= BATCH_BYTES:
            _upload(push, batch)
            batch = []
    if batch:
        _upload(push, batch)


def _upload(push: _Push, batch: list[tuple[str, bytes]]) -> None:
    if len(push.uploads) + len(batch) > COMMIT_FILES:
        _commit(push)
    push.uploads += push.client.upload(batch)
    for _, data in batch:
        push.files += 1
        push.bytes += len(data)
        push.report(len(data))


def _commit(push: _Push) -> None:
    push.stop.check("run the same command again to go on")
    if push.uploads:
        push.client.commit(push.uploads)
        push.uploads = []


def _is_same(push: _Push, entry: Standing, file: SharedFile) -> bool:
    if entry.size != file.size:
        return False
    return entry.sha256 == file.sha256 if entry.sha256 else entry.git == _git_id(fetch(push.source, file))


def _holds(push: _Push, file: SharedFile) -> bool:
    """True where the repository has a file with these bytes. Raises StoreError where it has others under a key that may
    not be replaced."""
    entry = push.entries.get(push.address.inside(file.key))
    if entry is None:
        return False
    same = _is_same(push, entry, file)
    if not same and file.key not in REPLACED:
        problem = f"{push.address.text}/{file.key} is there with {entry.size} other bytes, the seal lists {file.size}"
        raise StoreError(f"{problem}; another store has the place: push to another path, {push.address.text}/NAME")
    if not same and file.key == CARD:
        push.card = "replaced"
    return same


def _seal(push: _Push, listing: SealedListing, files: Iterable[SharedFile]) -> str:
    """Write the last commit: the record of what is left out, the seal, and `latest` unless it names a seal with
    segments that this one lacks. Returns the content id that `latest` names.

    The commit goes on top of the one that was looked at. Where another push came in between, that is looked at too.
    """

    def refusal(error: TryAgainError, tries: str) -> StoreError:
        problem = f"{push.address.text} {error} while the seal was to be written, {tries}"
        return StoreError(f"{problem}; run the same command again")

    patience = replace(sending_patience(), tries=SEALINGS)
    return patience.outlast(lambda: _seal_once(push, listing, files), refusal)


def _seal_once(push: _Push, listing: SealedListing, files: Iterable[SharedFile]) -> str:
    """The same in one try. Raises TryAgainError where another push came in between."""
    seal, latest = listing.last[-2:]
    place, commit = _opened(push)
    current = read_seal(place, listing.identity, None)
    _require_whole(push, files, commit)
    moves = current is None or set(current.segments) <= set(listing.seal.segments)
    last_files = [*_record(push, place, listing), seal, *([latest] if moves else [])]
    missing_files = [file for file in last_files if not _holds(push, file)]
    push.stop.check("run the same command again to go on")
    batch = [(push.address.inside(file.key), fetch(push.source, file)) for file in missing_files]
    if missing_files and not push.client.commit(push.client.upload(batch), commit or None):
        raise TryAgainError("was committed to by others")
    push.files += len(missing_files)
    push.bytes += sum(file.size for file in missing_files)
    push.report(sum(file.size for file in listing.last if file.key == PARTIAL) + seal.size + latest.size * moves)
    return listing.content_id if moves or current is None else current.content_id


def _require_whole(push: _Push, files: Iterable[SharedFile], commit: str) -> None:
    """Raises StoreError where the repository lacks a file or has another under its key: then no seal is written."""
    push.entries = push.client.listed(commit) or {}
    for file in files:
        entry = push.entries.get(push.address.inside(file.key))
        if entry is None:
            advice = "is its name in the repository's .gitignore? mend that, and run the same command again"
            raise StoreError(f"{push.address.text}/{file.key} was pushed and is not there; {advice}")
        if not _is_same(push, entry, file):
            problem = f"{push.address.text}/{file.key} is there with other bytes than were pushed"
            raise StoreError(f"{problem}; remove it, and run the same command again")


def _opened(push: _Push) -> tuple[WebFolder, str]:
    """The store in the repository, and the commit at which it is read."""
    server = HubServer(push.address, push.client.hub)
    place = WebFolder(push.address.text, server)
    place.require(MANIFEST, "another process deleted it", limit=MANIFEST_LIMIT)  # later reads are of the same commit
    return place, server.commit


def _record(push: _Push, place: WebFolder, listing: SealedListing) -> list[SharedFile]:
    """The record of what the repository will lack, where it says something else than the one that stands there."""
    current = read_partial(place, target=True)
    if current == listing.partial == NOTHING:
        return []
    names = [path.removeprefix(push.address.inside("kdcache/seals/")) for path in push.entries]
    seals = standing_seals(place, listing.identity, seal_names(names))
    sealed = {segment for seal in seals for segment in seal.segments}
    record = current.after_copy(listing.partial, listing.segments, sealed)
    return [] if record == current else [known_file(PARTIAL, record.to_bytes())]


def _git_id(data: bytes) -> str:
    """The git id (blob, SHA-1) of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
