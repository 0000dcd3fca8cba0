"""Inspection of a store: is it what its manifest, commits and seals say? Structure, and sha256 of every file, no torch.

`inspect_files` is the entry. It collects findings about the whole store, its segments and its seals, then those of each
block from an engine. `forget_blocks` removes damaged blocks, so that extract redoes them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kdcache.base.engine import LOCAL, Engine
from kdcache.base.limits import ZARR_LIMIT
from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.records import Record
from kdcache.base.view_span import shown_spans
from kdcache.errors import KdcacheError
from kdcache.places.opening import open_place
from kdcache.places.place import Place
from kdcache.store.array_spec import ArraySpec
from kdcache.store.commits import listed_blocks
from kdcache.store.layout import LATEST_SEAL, group_bytes, labels_spec, order_spec, segment_name
from kdcache.store.partial import read_partial
from kdcache.store.seals import read_seal, sealed_ids, split_pin
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_specs
from kdcache.whole_store.engines import in_order, runs, shared_stores
from kdcache.whole_store.file_checks import (
    BlockInspection,
    BlockName,
    Finding,
    check_block,
    inspect_blocks,
    inspect_sealed_blocks,
)
from kdcache.whole_store.store_address import StoreAddress

NUMBER = re.compile("[0-9]{1,15}")


class Check(Record):
    """One check: its name, whether it passed, and a detail for people."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Inspection:
    """The result of looking at a store: findings that fail it, notes that do not, and the files and bytes that were
    checked. `blocks` counts all blocks of its segments, `missing` those that were never committed."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    blocks: int
    missing: int
    files: int
    bytes: int

    @property
    def whole(self) -> bool:
        return not self.findings and not self.missing


def inspect_files(url: str, *, engine: Engine = LOCAL, progress: Progress = silent) -> Inspection:
    """Check everything that can be checked from the store alone, by the latest seal or by the one that `url` pins.

    Raises StoreNotFoundError, FormatError, and the errors of reading a seal that is pinned; nothing else.
    """
    path, pin = split_pin(url)
    place = open_place(path)
    if not place.lists:
        return _inspect_sealed(Store.open(url), engine, progress)
    store = Store.listed(place)
    findings = [*_whole_arrays(store), *_seals(store, pin), *_absent_taps(store)]
    for segment in store.segments:
        findings += _metadata(store.folder, segment.layout.name, segment.arrays_here)
        findings += _commit_listing(segment)
    blocks = [(segment.layout.name, block) for segment in store.segments for block in _blocks_with_files(segment)]
    inspections = _inspect_blocks(inspect_blocks, blocks, store, engine, progress)
    findings += [finding for inspection in inspections for finding in inspection.findings]
    failures = tuple(finding for finding in findings if not finding.harmless)
    notes = tuple(finding.what for finding in findings if finding.harmless)
    total = sum(segment.layout.blocks for segment in store.segments)
    missing = total - sum(inspection.committed for inspection in inspections)
    return _inspection(failures, notes, inspections, total, missing)


def _inspect_sealed(store: Store, engine: Engine, progress: Progress) -> Inspection:
    """Check the files that the seal lists and no others, in a place that can neither be listed nor written."""
    findings: list[Finding] = list(_whole_arrays(store))
    notes = tuple(finding.what for finding in _absent_taps(store))
    blocks: list[BlockName] = []
    for segment in store.segments:
        findings += _metadata(store.folder, segment.layout.name, segment.arrays_here)
        try:
            blocks += [(segment.layout.name, block) for block, _ in segment.commits().items()]
        except KdcacheError as error:
            findings.append(Finding(str(error)))
    inspections = _inspect_blocks(inspect_sealed_blocks, blocks, store, engine, progress)
    findings += [finding for inspection in inspections for finding in inspection.findings]
    total = sum(segment.layout.blocks for segment in store.segments)
    return _inspection(tuple(findings), notes, inspections, total, 0)


def _inspect_blocks(
    inspect: Callable[[StoreAddress, Sequence[BlockName]], list[BlockInspection]],
    blocks: Sequence[BlockName],
    store: Store,
    engine: Engine,
    progress: Progress,
) -> list[BlockInspection]:
    """Run a check of blocks on the engine: one inspection a block, in order."""
    inspections: list[BlockInspection] = []
    with shared_stores(engine, store) as (address,):
        tasks = runs(blocks, engine.items_per_task)
        for results in in_order(engine, partial(inspect, address), tasks, far=store.folder.far):
            for inspection in results:
                inspections.append(inspection)
                progress(Activity("checking sha256 of files", "blocks"), len(inspections), len(blocks))
    return inspections


def _inspection(
    findings: tuple[Finding, ...],
    notes: tuple[str, ...],
    inspections: Sequence[BlockInspection],
    total: int,
    missing: int,
) -> Inspection:
    files = sum(inspection.files for inspection in inspections)
    size = sum(inspection.bytes for inspection in inspections)
    return Inspection(findings, notes, total, missing, files, size)


def forget_blocks(url: str, findings: tuple[Finding, ...]) -> list[BlockName]:
    """Remove commit and shards of every damaged block, so that extract redoes just those. Commits go first."""
    store = Store.open_for_writing(split_pin(url)[0])
    segments = {segment.layout.name: segment for segment in store.segments}
    blocks = sorted({finding.block for finding in findings if finding.block is not None})
    for name, block in blocks:
        layout = segments[name].layout
        store.folder.delete(layout.commit_key(block))
        for spec in layout.arrays_of(block).values():
            store.folder.delete(spec.key(block))
    return blocks


def _blocks_with_files(segment: Segment) -> list[int]:
    """Blocks that have at least one file in the folder, ascending.

    They are found by listing, so the work grows with the files and not with the rows that a manifest claims. A prefix
    that cannot be listed is passed over: the files that a commit names are then looked up one by one."""
    blocks: set[int] = set()
    prefixes = [(segment.layout.commits_prefix, 1)]  # with the part of the key behind it that is the block's number
    prefixes += [(f"{spec.path}/c", spec.block_axis or 0) for spec in segment.layout.arrays.values()]
    for prefix, place in prefixes:
        try:
            keys = list(segment.folder.keys(prefix))
        except KdcacheError:
            continue
        for key in keys:
            parts = key.removeprefix(f"{prefix}/").removesuffix(".json").split("/")
            if len(parts) > place and NUMBER.fullmatch(parts[place]):
                blocks.add(int(parts[place]))
    return sorted(block for block in blocks if block < segment.layout.blocks)


def _commit_listing(segment: Segment) -> Iterator[Finding]:
    """Findings in the listing of a segment's commits: a link among them, or a block beyond the last one."""
    try:
        for block in listed_blocks(segment.folder, segment.layout):
            if block >= segment.layout.blocks:
                path, last = segment.folder.path(segment.layout.commit_key(block)), segment.layout.blocks - 1
                yield Finding(f"{path} is of a block that there cannot be, the last is {last}; remove the file")
    except KdcacheError as error:
        yield Finding(str(error))


def _whole_arrays(store: Store) -> Iterator[Finding]:
    """order, labels and head: their values against the manifest's digests; and the card."""
    specs = [order_spec(store.rows), labels_spec(store.rows)]
    if width := store.identity.encoding.head:
        specs += head_specs(store.identity)
    yield from _metadata(store.folder, "", specs)
    yield from _metadata(store.folder, "head", []) if width else ()
    head = store.head if width else lambda: None
    for read in (lambda: store.order, lambda: store.labels, head, lambda: store.card):
        try:
            read()
        except KdcacheError as error:
            yield Finding(str(error))


def _metadata(folder: Place, group: str, specs: list[ArraySpec]) -> Iterator[Finding]:
    """zarr.json of a group and its arrays: byte for byte what the manifest predicts."""
    expected = {f"{group}/zarr.json".lstrip("/"): group_bytes()}
    expected |= {f"{spec.path}/zarr.json": spec.metadata_bytes() for spec in specs}
    for key, prediction in expected.items():
        try:
            data = folder.get(key, limit=ZARR_LIMIT)
        except KdcacheError as error:
            yield Finding(str(error))
            continue
        if data != prediction:
            problem = "is missing" if data is None else "is not what the manifest predicts"
            yield Finding(f"{folder.path(key)} {problem}")


def _seals(store: Store, pin: str | None) -> Iterator[Finding]:
    """Every seal: its name, the identity it seals, its segments, and the commits they list against those on disk."""
    if pin is not None:
        seal = read_seal(store.folder, store.identity, pin)
        assert seal is not None
        pin = seal.content_id
        yield Finding(f"seal {pin[:12]} was asked for; all other files of the store were checked too", harmless=True)
    latest = None
    try:
        seal = read_seal(store.folder, store.identity, None)
        latest = None if seal is None else seal.content_id
        if seal is None and sealed_ids(store.folder):
            advice = f"kdcache seal {store.folder.root}"
            yield Finding(f"{store.folder.path(LATEST_SEAL)} is missing; run: {advice}", advice=advice)
    except KdcacheError as error:
        yield Finding(str(error))
    yield from _absent_views(store)
    yield from _unlisted_segments(store)
    for content_id in sealed_ids(store.folder):
        yield from _seal(store, content_id, latest=latest, pin=pin)


def _absent_views(store: Store) -> Iterator[Finding]:
    """A note of the views that a partial copy was made without, by its own record."""
    names = {segment.layout.name for segment in store.segments}
    try:
        segments = [
            segment for segment in read_partial(store.folder).left_out if segment_name(segment.views) not in names
        ]
        if segments:
            views = shown_spans(segment.views for segment in segments)
            yield Finding(f"this is a partial copy: views {views} were not pulled", harmless=True)
    except KdcacheError as error:
        yield Finding(str(error))


def _absent_taps(store: Store) -> Iterator[Finding]:
    """A note for each segment of the taps that this copy was made without, by its own record."""
    for segment in store.segments:
        if names := segment.left_out_taps:
            text = f"this is a copy without taps {', '.join(names)} of views {segment.views}: they were not copied"
            yield Finding(text, harmless=True)


def _unlisted_segments(store: Store) -> Iterator[Finding]:
    """Segments with commits and without the record that lists them."""
    names = {segment.layout.name for segment in store.segments}
    for name in store.folder.folders("kdcache"):
        if name.startswith("views-") and name not in names and any(store.folder.keys(f"kdcache/{name}/commits")):
            path = store.folder.path(f"kdcache/{name}/segment.json")
            yield Finding(f"{path} is missing, though blocks are committed; restore it from another copy of the store")


def _seal(store: Store, content_id: str, *, latest: str | None, pin: str | None) -> Iterator[Finding]:
    """One seal: its file, its head, and its commits against those on disk."""
    try:
        sealed_store = Store.at(store.folder, content_id)
        if sealed_store.seal_record is not None and sealed_store.seal_record.head is not None:
            sealed_store.head()
        commits = [commit for segment in sealed_store.segments for commit in _replaced_commits(segment)]
    except KdcacheError as error:
        yield Finding(str(error))
        return
    if sealed_store.content_id == latest:
        command = f"kdcache seal {store.folder.root}"
        for path, _ in commits:
            yield Finding(f"{path} is not the commit that the latest seal lists; run: {command}", advice=command)
    elif paths := [path for path, new_shards in commits if new_shards]:
        asked_for = sealed_store.content_id == pin
        problem = (
            f"seal {content_id[:12]} is no longer served: {len(paths)} of its blocks were extracted again, {paths[0]}"
        )
        advice = f"open the latest seal instead ({store.folder.root}), or restore the sealed files from another copy"
        yield Finding(f"{problem}; {advice}" if asked_for else problem, advice=advice, harmless=not asked_for)


def _replaced_commits(segment: Segment) -> Iterator[tuple[str, bool]]:
    """Commits on disk that are whole and differ from the sealed ones: (path, True where the shards differ too)."""
    for block, sealed_commit in segment.commits().items():
        key = segment.layout.commit_key(block)
        if segment.folder.get(key) in (None, sealed_commit.to_bytes()):
            continue
        commit, findings = check_block(segment.folder, segment, block)
        if commit is not None and not findings:
            yield str(segment.folder.path(key)), commit.shards != sealed_commit.shards
