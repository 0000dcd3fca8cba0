"""What a merge will copy: stores of one identity, their blocks by sha256, and which bytes count where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcache.base.records import Record, require_equal
from kdcache.errors import InvalidInputError, MismatchError, MissingBlockError
from kdcache.places.folder import Folder
from kdcache.places.opening import open_folder
from kdcache.places.place import is_url
from kdcache.store.commits import Commit
from kdcache.store.layout import MANIFEST, SegmentLayout
from kdcache.store.seals import split_pin
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_digest

SHOWN = 8  # blocks that a message lists
Key = tuple[str, int]  # segment and block


class Choice(Record):
    """A block of which inputs hold different bytes, and the input whose bytes count because it was preferred."""

    segment: str
    block: int
    taken: str


@dataclass(frozen=True)
class Source:
    """A store, by the name it was given, and all that it has committed."""

    name: str
    store: Store
    commits: dict[Key, Commit]


@dataclass(frozen=True)
class Plan:
    """Segments that the output will have; for each block to copy the inputs that hold the bytes that count, the one it
    is taken from first; and how many blocks lie in the output already."""

    layouts: tuple[SegmentLayout, ...]
    wanted: dict[Key, list[Source]]
    chosen: tuple[Choice, ...]
    present: int


def open_inputs(inputs: Sequence[str], prefer: str | None) -> list[Source]:
    """Open two or more stores. Raises MismatchError where they are not of one identity and classifier."""
    if len(inputs) < 2:
        raise InvalidInputError(f"{len(inputs)} store was given to merge; name two or more, and the output last")
    if prefer is not None and prefer not in inputs:
        raise InvalidInputError(f"--prefer names {prefer}, which is none of the inputs {', '.join(inputs)}")
    sources = [_open_input(name) for name in inputs]
    first = sources[0]
    for other in sources[1:]:
        what, names = f"{other.name} is not of the identity of {first.name}:", (first.name, other.name)
        advice = "only segments and blocks of one identity can be merged; kdcache diff compares these stores"
        require_equal(first.store.identity, other.store.identity, what, advice, names=names)
        _require_equal_heads(first, other)
    _require_one_decoder(sources)
    if not any(source.commits for source in sources):
        raise MissingBlockError(f"none of {', '.join(inputs)} has a committed block; run kdcache extract")
    return sources


def _require_one_decoder(sources: list[Source]) -> None:
    """Images of one file differ by decoder once they are cropped, and no run could replay rows of both."""
    kinds = {source.store.manifest.provenance.decoder.partition(" ")[0]: source.name for source in sources}
    known = {kind: name for kind, name in kinds.items() if kind not in ("", "none")}
    if len(known) > 1:
        said = " and ".join(f"{name} by {kind}" for kind, name in sorted(known.items()))
        raise InvalidInputError(f"images were decoded otherwise: {said}; merge stores whose images had one decoder")


def open_output(out: str, first: Source) -> tuple[Folder, Source | None]:
    """The output's folder, and what stands there. Raises InvalidInputError where it is a pin or holds other files,
    MismatchError where it is a store of another identity or classifier."""
    if split_pin(out)[1] is not None:
        raise InvalidInputError(f"the output {out} is a pin, which can only be read; name a folder")
    folder = open_folder(out)
    if folder.size(MANIFEST) is None:
        root = Path(out)
        if root.exists() and (others := sorted({each.name for each in root.iterdir()} - {"kdcache"})):
            raise InvalidInputError(f"{out} holds other files ({others[0]}); choose another place for the store")
        return folder, None
    standing = _open_input(out)
    what, names = f"{out} is not of the identity of {first.name}:", (out, first.name)
    advice = "merge into a new folder, or into a store of the same identity"
    require_equal(standing.store.identity, first.store.identity, what, advice, names=names)
    return folder, standing


def make_plan(sources: Sequence[Source], standing: Source | None, prefer: str | None) -> Plan:
    """What to copy from where. What stands in the output is one more holder of its blocks, and is never replaced.

    Raises MismatchError for blocks of which bytes differ, InvalidInputError for segments that overlap.
    """
    holders = [*([] if standing is None else [standing]), *sources]
    layouts = _layouts(holders)
    wanted: dict[Key, list[Source]] = {}
    chosen, conflicts = [], []
    for key in sorted({key for source in sources for key in source.commits}):
        having = [source for source in holders if key in source.commits]
        best = _best(key, having, standing, prefer)
        if best is None:
            conflicts.append((key, having))
            continue
        equal = [source for source in having if source.commits[key].shards == best.commits[key].shards]
        if len(equal) < len(having):
            chosen.append(Choice(segment=key[0], block=key[1], taken=prefer or ""))
        if standing not in equal:
            wanted[key] = [best, *(source for source in equal if source is not best)]
    if conflicts:
        raise _conflict(conflicts, standing)
    return Plan(layouts, wanted, tuple(chosen), 0 if standing is None else len(standing.commits))


def _open_input(name: str) -> Source:
    """With a pin what its seal lists; a folder without one with all that is committed there, sealed or not."""
    path, pin = split_pin(name)
    store = Store.open(name) if pin or is_url(path) else Store.open_for_writing(path)
    commits = {
        (segment.layout.name, block): commit
        for segment in store.segments
        for block, commit in segment.commits().items()
    }
    return Source(name, store, commits)


def _require_equal_heads(first: Source, other: Source) -> None:
    """The identity holds a classifier's width alone."""
    if not first.store.identity.encoding.head:
        return
    digests = [head_digest(source.store.head()) for source in (first, other)]
    if digests[0] != digests[1]:
        what, differ = f"{other.name} has another classifier than {first.name}:", [("head", digests[0], digests[1])]
        raise MismatchError(what, differ, "extract one of them again", (first.name, other.name))


def _best(key: Key, having: list[Source], standing: Source | None, prefer: str | None) -> Source | None:
    """Whose bytes of a block count: anyone's where all are equal, else the preferred input's. None where that settles
    nothing: it does not hold the block, or the output holds other bytes."""
    if all(source.commits[key].shards == having[0].commits[key].shards for source in having):
        return having[0]
    preferred = next((source for source in having if source is not standing and source.name == prefer), None)
    if preferred is None or standing is None or key not in standing.commits:
        return preferred
    return preferred if standing.commits[key].shards == preferred.commits[key].shards else None


def _layouts(holders: Sequence[Source]) -> tuple[SegmentLayout, ...]:
    found: dict[str, tuple[SegmentLayout, str]] = {}
    for source in holders:
        for layout in (segment.layout for segment in source.store.segments):
            for other, name in found.values():
                if layout.name != other.name and layout.views.overlaps(other.views):
                    said = f"{source.name} has {layout.name}, {name} has {other.name}"
                    advice = "segments of a store may not overlap: keep one of the two, and extract the views it lacks"
                    raise InvalidInputError(f"views overlap: {said}; {advice}")
            found.setdefault(layout.name, (layout, source.name))
    return tuple(layout for _, (layout, _) in sorted(found.items()))


def _conflict(conflicts: list[tuple[Key, list[Source]]], standing: Source | None) -> MismatchError:
    """Names the blocks, and of each the first array that differs with both digests."""
    lines = []
    for key, having in conflicts[:SHOWN]:
        first = having[0].commits[key].shards
        other = next(source for source in having if source.commits[key].shards != first)
        shards = other.commits[key].shards
        name = next(name for name in first if first[name] != shards[name])
        said = (f"{first[name].sha256[:16]} ({having[0].name})", f"{shards[name].sha256[:16]} ({other.name})")
        lines.append((f"{key[0]} block {key[1]}, {name}", *said))
    advice = "the same rows were extracted twice with other last bits: --prefer INPUT takes one input's, and says which"
    if any(standing in having for _, having in conflicts):
        advice = f"{advice}; nothing that lies in the output is replaced: merge into a new folder to prefer another's"
    what = f"inputs hold different bytes of {len(conflicts)} blocks" + (", such as:" if conflicts[SHOWN:] else ":")
    return MismatchError(what, lines, advice, ("one", "another"))
