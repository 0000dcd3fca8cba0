"""Is a store what its manifest, commits and seals say? Structure, and sha256 of every file; no torch, no decoding."""

from collections.abc import Iterator
from dataclasses import dataclass

from kdcache.canonical import canonical_json, sha256_hex
from kdcache.commits import Commit, read_commit
from kdcache.errors import KdcacheError
from kdcache.files import Folder
from kdcache.layout import LATEST_SEAL, ArraySpec, group_bytes, labels_spec, order_spec, plain_array
from kdcache.manifest import Record
from kdcache.progress import Progress, silent
from kdcache.seals import read_seal, sealed_ids
from kdcache.segment import Segment
from kdcache.store import Store


class Check(Record):
    """One check: its name, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `block` is the (segment, number) that extract can redo, None where it cannot mend it."""

    what: str
    block: tuple[str, int] | None = None


@dataclass(frozen=True)
class Inspection:
    """What was looked at and what was found; `missing` counts blocks that were never committed."""

    findings: tuple[Finding, ...]
    blocks: int
    missing: int
    files: int
    bytes: int

    @property
    def whole(self) -> bool:
        return not self.findings and not self.missing


def inspect_files(path: str, *, progress: Progress = silent) -> Inspection:
    """Check everything that can be checked from the store alone. Raises StoreNotFoundError and FormatError only."""
    store = Store.open_for_writing(path)
    findings = [*_whole_store(store), *_seals(store)]
    files = size = missing = 0
    total = sum(segment.layout.blocks for segment in store.segments)
    done = 0
    for segment in store.segments:
        findings += _metadata(store.folder, segment.layout.name, list(segment.layout.arrays.values()))
        for block in range(segment.layout.blocks):
            try:
                commit = read_commit(store.folder, segment.layout, block)
            except KdcacheError as error:
                findings.append(Finding(str(error), (segment.layout.name, block)))
                commit = None
            else:
                missing += commit is None
            if commit is not None:
                findings += _shards(store.folder, segment, block, commit)
                files += len(commit.shards)
                size += sum(shard.size for shard in commit.shards.values())
            done += 1
            progress("checking sha256 of blocks", done, total)
    return Inspection(tuple(findings), total, missing, files, size)


def forget_blocks(path: str, findings: tuple[Finding, ...]) -> list[tuple[str, int]]:
    """Remove commit and shards of every damaged block, so that extract redoes just those. Commits go first."""
    store = Store.open_for_writing(path)
    segments = {segment.layout.name: segment for segment in store.segments}
    damaged = sorted({finding.block for finding in findings if finding.block is not None})
    for name, block in damaged:
        layout = segments[name].layout
        store.folder.delete(layout.commit_key(block))
        for spec in layout.arrays_of(block).values():
            store.folder.delete(spec.key(block))
    return damaged


def _whole_store(store: Store) -> Iterator[Finding]:
    """order, labels and head: their values against the manifest's digests."""
    specs = [order_spec(store.rows), labels_spec(store.rows)]
    if width := store.identity.encoding.head:
        classes = store.identity.teacher.classes
        specs += [
            plain_array("head/weight", (classes, width), "float32"),
            plain_array("head/bias", (classes,), "float32"),
        ]
    yield from _metadata(store.folder, "", specs)
    yield from _metadata(store.folder, "head", []) if width else ()
    head = store.head if width else lambda: None
    for read in (lambda: store.order, lambda: store.labels, head, lambda: store.card):
        try:
            read()
        except KdcacheError as error:
            yield Finding(str(error))


def _metadata(folder: Folder, group: str, specs: list[ArraySpec]) -> Iterator[Finding]:
    """zarr.json of a group and its arrays: byte for byte what the manifest predicts."""
    expected = {f"{group}/zarr.json".lstrip("/"): group_bytes()}
    expected |= {f"{spec.path}/zarr.json": spec.metadata_bytes() for spec in specs}
    for key, data in expected.items():
        found = folder.get(key)
        if found != data:
            what = "is missing" if found is None else "is not what the manifest predicts"
            yield Finding(f"{folder.path(key)} {what}")


def _seals(store: Store) -> Iterator[Finding]:
    """Every seal: its name, the identity it seals, its segments, and the commits they list against those on disk."""
    sealed_now = sealed_ids(store.folder)
    try:
        if read_seal(store.folder, store.identity, None) is None and sealed_now:
            yield Finding(f"{store.folder.path(LATEST_SEAL)} is missing; run: kdcache seal {store.folder.root}")
    except KdcacheError as error:
        yield Finding(str(error))
    listed = {segment.layout.name for segment in store.segments}
    for name in store.folder.folders("kdcache"):
        if name.startswith("views-") and name not in listed and any(store.folder.keys(f"kdcache/{name}/commits")):
            path = store.folder.path(f"kdcache/{name}/segment.json")
            yield Finding(f"{path} is missing, though blocks are committed; restore it from another copy of the store")
    for content_id in sealed_now:
        try:
            seal = read_seal(store.folder, store.identity, content_id)
            assert seal is not None
            sealed = Store.open(f"{store.folder.root}@{seal.content_id}")
            if (seal.order, seal.identity) != (store.identity.order.sha256, store.identity.digest):
                yield Finding(f"seal {content_id} is of another order or identity")
            if seal.head is not None:
                sealed.head()
            for segment in sealed.segments:
                yield from _against_seal(store.folder, segment, content_id)
        except KdcacheError as error:
            yield Finding(str(error))


def _against_seal(folder: Folder, segment: Segment, content_id: str) -> Iterator[Finding]:
    """Blocks whose commit on disk is not the one that was sealed."""
    for block, sealed in segment.commits().items():
        data = folder.get(segment.layout.commit_key(block))
        if data is not None and sha256_hex(data) != sha256_hex(canonical_json(sealed.model_dump(mode="json"))):
            where = folder.path(segment.layout.commit_key(block))
            yield Finding(f"{where} is not the commit that seal {content_id[:12]} lists", (segment.layout.name, block))


def _shards(folder: Folder, segment: Segment, block: int, commit: Commit) -> Iterator[Finding]:
    for name, shard in commit.shards.items():
        key = segment.layout.arrays[name].key(block)
        data = folder.get(key)
        found = None if data is None else sha256_hex(data)
        if found != shard.sha256:
            what = "is missing" if found is None else f"has sha256 {found[:16]}, committed was {shard.sha256[:16]}"
            yield Finding(f"{folder.path(key)} {what}", (segment.layout.name, block))
