"""What is wrong with the files of a block: sizes and sha256 of what is committed, decoding of what is not.

Nothing that is committed is decoded; only shards that lie there without a commit are, for the next writer adopts them.
These are the functions that workers run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kdcache.errors import KdcacheError
from kdcache.places.parallel import many
from kdcache.places.place import Place
from kdcache.store.commits import Commit, Shard, read_commit, require_rows
from kdcache.store.layout import ArraySpec
from kdcache.store.segment import Segment
from kdcache.store.shards import largest_shard
from kdcache.whole_store.store_address import Source

Named = tuple[str, int]  # segment and block


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `block` is the (segment, number) that extract can redo, None where it cannot mend it;
    `advice` says what does, where it is not to restore a file. A harmless one is worth a note, and no failure."""

    what: str
    block: tuple[str, int] | None = None
    advice: str = ""
    harmless: bool = False


@dataclass(frozen=True)
class Looked:
    """What was found of one block: its committed files, and their bytes as committed; `committed` also where the commit
    itself is damaged."""

    findings: tuple[Finding, ...]
    committed: bool
    files: int
    bytes: int


def look_at(source: Source, blocks: Sequence[Named]) -> list[Looked]:
    """Check some blocks of a folder or bucket by their commit files. On a worker."""
    return _each(source, blocks, _looked)


def look_at_sealed(source: Source, blocks: Sequence[Named]) -> list[Looked]:
    """Check some blocks of what a seal lists, where nothing can be redone. On a worker."""
    return _each(source, blocks, _sealed)


def _each(source: Source, blocks: Sequence[Named], look: Callable[[Place, Segment, int], Looked]) -> list[Looked]:
    folder = source.store().folder
    found = [(source.segment(name), block) for name, block in blocks]
    if len(found) == 1:
        return [look(folder, *found[0])]
    return list(many(folder, lambda each: look(folder, *each), found))


def _looked(folder: Place, segment: Segment, block: int) -> Looked:
    commit, found = check_block(folder, segment, block)
    committed = commit is not None or _has_commit(folder, segment, block)
    return _counted(commit, found, committed=committed)


def _sealed(folder: Place, segment: Segment, block: int) -> Looked:
    commit = segment.commit_of(block)
    found = [replace(each, block=None) for each in _shards(folder, segment, block, commit)]
    return _counted(commit, found, committed=True)


def _counted(commit: Commit | None, found: Sequence[Finding], *, committed: bool) -> Looked:
    shards = {} if commit is None else commit.shards
    return Looked(tuple(found), committed, len(shards), sum(shard.size for shard in shards.values()))


def _has_commit(folder: Place, segment: Segment, block: int) -> bool:
    try:
        return folder.size(segment.layout.commit_key(block)) is not None
    except KdcacheError:
        return True


def check_block(folder: Place, segment: Segment, block: int) -> tuple[Commit | None, list[Finding]]:
    """One block's commit, and what is wrong with its files."""
    try:
        commit = read_commit(folder, segment.layout, block)
    except KdcacheError as error:
        return None, [Finding(str(error), (segment.layout.name, block))]
    if commit is None:
        return None, list(_torn(folder, segment, block))
    return commit, list(_shards(folder, segment, block, commit))


def _torn(folder: Place, segment: Segment, block: int) -> Iterator[Finding]:
    """Shards without a commit that do not decode: whoever extracts the block could not adopt them."""
    for name, spec in segment.layout.arrays_of(block).items():
        try:
            if (data := folder.get(spec.key(block), limit=largest_shard(spec))) is not None:
                require_rows(folder, segment.layout, name, block, data)
        except KdcacheError as error:
            yield Finding(str(error), (segment.layout.name, block))


def _shards(folder: Place, segment: Segment, block: int, commit: Commit) -> Iterator[Finding]:
    for name, shard in commit.shards.items():
        spec = segment.layout.arrays[name]
        if wrong := _wrong_shard(folder, spec, spec.key(block), shard):
            yield Finding(wrong, (segment.layout.name, block))


def _wrong_shard(folder: Place, spec: ArraySpec, key: str, shard: Shard) -> str:
    """What is wrong with a committed file; sizes first, so that no more is hashed than an array can hold."""
    path = folder.path(key)
    try:
        size = folder.size(key)
        if size is None:
            return f"{path} is missing"
        if size != shard.size or size > largest_shard(spec):
            return f"{path} has {size} bytes, committed were {shard.size}, allowed are up to {largest_shard(spec)}"
        found = folder.digest(key) or "nothing"
    except KdcacheError as error:
        return str(error)
    return "" if found == shard.sha256 else f"{path} has sha256 {found[:16]}, committed was {shard.sha256[:16]}"
