"""Is a store what its manifest, commits and seals say? Structure, and sha256 of every file, without torch."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kdcache.base.limits import ZARR_LIMIT
from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.base.view_span import shown_spans
from kdcache.errors import KdcacheError
from kdcache.places.opening import open_place
from kdcache.places.place import Place
from kdcache.store.commits import listed_blocks
from kdcache.store.layout import LATEST_SEAL, ArraySpec, group_bytes, labels_spec, order_spec, segment_name
from kdcache.store.partial import read_partial
from kdcache.store.seals import read_seal, sealed_ids, split_pin
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_specs
from kdcache.whole_store.engines import HERE, Engine, runs
from kdcache.whole_store.file_checks import Finding, Looked, Named, check_block, look_at, look_at_sealed
from kdcache.whole_store.store_address import shared

NUMBER = re.compile("[0-9]{1,15}")


class Check(Record):
    """One check: its name, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Inspection:
    """What was looked at and what was found; `missing` counts blocks that were never committed."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    blocks: int
    missing: int
    files: int
    bytes: int

    @property
    def whole(self) -> bool:
        return not self.findings and not self.missing


def inspect_files(url: str, *, engine: Engine = HERE, progress: Progress = silent) -> Inspection:
    """Check everything that can be checked from the store alone, by the latest seal or by the one that `url` pins.

    Raises StoreNotFoundError and FormatError only, and whatever is wrong with the seal that is pinned.
    """
    path, pin = split_pin(url)
    place = open_place(path)
    if not place.lists:
        return _inspect_sealed(Store.open(url), engine, progress)
    store = Store.listed(place)
    findings = [*_whole_store(store), *_seals(store, pin)]
    for segment in store.segments:
        findings += _metadata(store.folder, segment.layout.name, list(segment.layout.arrays.values()))
        findings += _unlistable(segment)
    there = [(segment.layout.name, block) for segment in store.segments for block in _present(segment)]
    with shared(store) as source:
        engine.ready(source)
        looked = _look(partial(look_at, source), there, store, engine, progress)
    findings += [found for each in looked for found in each.findings]
    wrong = tuple(finding for finding in findings if not finding.harmless)
    notes = tuple(finding.what for finding in findings if finding.harmless)
    total = sum(segment.layout.blocks for segment in store.segments)
    return _inspection(wrong, notes, looked, total, total - sum(each.committed for each in looked))


def _inspect_sealed(store: Store, engine: Engine, progress: Progress) -> Inspection:
    """What the seal lists and nothing else, where nothing can be listed or redone."""
    findings: list[Finding] = list(_whole_store(store))
    there: list[Named] = []
    for segment in store.segments:
        findings += _metadata(store.folder, segment.layout.name, list(segment.layout.arrays.values()))
        try:
            there += [(segment.layout.name, block) for block, _ in segment.commits().items()]
        except KdcacheError as error:
            findings.append(Finding(str(error)))
    with shared(store) as source:
        engine.ready(source)
        looked = _look(partial(look_at_sealed, source), there, store, engine, progress)
    findings += [found for each in looked for found in each.findings]
    return _inspection(tuple(findings), (), looked, sum(segment.layout.blocks for segment in store.segments), 0)


def _look(
    function: Callable[[Sequence[Named]], list[Looked]],
    there: Sequence[Named],
    store: Store,
    engine: Engine,
    progress: Progress,
) -> list[Looked]:
    """What was found of each block, in order."""
    looked: list[Looked] = []
    for some in engine.each(function, runs(there, engine.together), far=store.folder.far):
        for each in some:
            looked.append(each)
            progress("checking sha256 of blocks", len(looked), len(there))
    return looked


def _inspection(
    findings: tuple[Finding, ...], notes: tuple[str, ...], looked: Sequence[Looked], total: int, missing: int
) -> Inspection:
    files, size = sum(each.files for each in looked), sum(each.bytes for each in looked)
    return Inspection(findings, notes, total, missing, files, size)


def forget_blocks(url: str, findings: tuple[Finding, ...]) -> list[tuple[str, int]]:
    """Remove commit and shards of every damaged block, so that extract redoes just those. Commits go first."""
    store = Store.open_for_writing(split_pin(url)[0])
    segments = {segment.layout.name: segment for segment in store.segments}
    damaged = sorted({finding.block for finding in findings if finding.block is not None})
    for name, block in damaged:
        layout = segments[name].layout
        store.folder.delete(layout.commit_key(block))
        for spec in layout.arrays_of(block).values():
            store.folder.delete(spec.key(block))
    return damaged


def _present(segment: Segment) -> list[int]:
    """Blocks of which any file lies there, by listing: the work grows with the files, not with the rows that a manifest
    claims. Of a folder that cannot be listed, what a commit names is found one by one."""
    found: set[int] = set()
    places = [(segment.layout.commits_prefix, 1)]
    places += [(f"{spec.path}/c", spec.block_axis or 0) for spec in segment.layout.arrays.values()]
    for prefix, cell in places:
        try:
            keys = list(segment.folder.keys(prefix))
        except KdcacheError:
            continue
        parts = [key.removeprefix(f"{prefix}/").removesuffix(".json").split("/") for key in keys]
        found.update(int(each[cell]) for each in parts if len(each) > cell and NUMBER.fullmatch(each[cell]))
    return sorted(block for block in found if block < segment.layout.blocks)


def _unlistable(segment: Segment) -> Iterator[Finding]:
    """What makes the commits of a segment unreadable as a whole: a link among them, or a block that there cannot be."""
    try:
        for block in listed_blocks(segment.folder, segment.layout):
            if block >= segment.layout.blocks:
                path, last = segment.folder.path(segment.layout.commit_key(block)), segment.layout.blocks - 1
                yield Finding(f"{path} is of a block that there cannot be, the last is {last}; remove the file")
    except KdcacheError as error:
        yield Finding(str(error))


def _whole_store(store: Store) -> Iterator[Finding]:
    """order, labels and head: their values against the manifest's digests."""
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
    for key, data in expected.items():
        try:
            found = folder.get(key, limit=ZARR_LIMIT)
        except KdcacheError as error:
            yield Finding(str(error))
            continue
        if found != data:
            what = "is missing" if found is None else "is not what the manifest predicts"
            yield Finding(f"{folder.path(key)} {what}")


def _seals(store: Store, pin: str | None) -> Iterator[Finding]:
    """Every seal: its name, the identity it seals, its segments, and the commits they list against those on disk."""
    if pin is not None:
        pinned = read_seal(store.folder, store.identity, pin)
        assert pinned is not None
        pin = pinned.content_id
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
    yield from _left_out(store)
    yield from _unlisted(store)
    yield from (found for name in sealed_ids(store.folder) for found in _seal(store, name, latest=latest, pin=pin))


def _left_out(store: Store) -> Iterator[Finding]:
    """What a partial copy says that it does not hold."""
    held = {segment.layout.name for segment in store.segments}
    try:
        if absent := tuple(each for each in read_partial(store.folder) if segment_name(each.views) not in held):
            yield Finding(
                f"this is a partial copy: views {shown_spans(segment.views for segment in absent)} were not pulled",
                harmless=True,
            )
    except KdcacheError as error:
        yield Finding(str(error))


def _unlisted(store: Store) -> Iterator[Finding]:
    """Segments with commits and without the record that lists them."""
    listed = {segment.layout.name for segment in store.segments}
    for name in store.folder.folders("kdcache"):
        if name.startswith("views-") and name not in listed and any(store.folder.keys(f"kdcache/{name}/commits")):
            path = store.folder.path(f"kdcache/{name}/segment.json")
            yield Finding(f"{path} is missing, though blocks are committed; restore it from another copy of the store")


def _seal(store: Store, name: str, *, latest: str | None, pin: str | None) -> Iterator[Finding]:
    """One seal, whose file has this name."""
    try:
        sealed = Store.at(store.folder, name)
        if sealed.seal_record is not None and sealed.seal_record.head is not None:
            sealed.head()
        others = [pair for segment in sealed.segments for pair in _others(segment)]
    except KdcacheError as error:
        yield Finding(str(error))
        return
    if sealed.content_id == latest:
        run = f"kdcache seal {store.folder.root}"
        for where, _ in others:
            yield Finding(f"{where} is not the commit that the latest seal lists; run: {run}", advice=run)
    elif gone := [where for where, changed in others if changed]:
        asked = sealed.content_id == pin
        what = f"seal {name[:12]} is no longer served: {len(gone)} of its blocks were extracted again, {gone[0]}"
        advice = f"open the latest seal instead ({store.folder.root}), or restore the sealed files from another copy"
        yield Finding(f"{what}; {advice}" if asked else what, advice=advice, harmless=not asked)


def _others(segment: Segment) -> Iterator[tuple[str, bool]]:
    """(file, whether its shards differ too) of each commit on disk that is whole and not the one that was sealed."""
    for block, sealed in segment.commits().items():
        key = segment.layout.commit_key(block)
        if segment.folder.get(key) in (None, sealed.to_bytes()):
            continue
        found, wrong = check_block(segment.folder, segment, block)
        if found is not None and not wrong:
            yield str(segment.folder.path(key)), found.shards != sealed.shards
