"""Checks of the files of a block: size and sha256 of committed shards, decoding of shards without a commit.

A committed shard is never decoded, but a ticket whose commit strikes rows: it must mark these and no others. A shard
that lies there without a commit is decoded too, because the next writer adopts it.
Workers run these functions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kdcache.base.parallel import many
from kdcache.errors import KdcacheError
from kdcache.places.place import Place
from kdcache.store.array_spec import ArraySpec
from kdcache.store.commits import Commit, Shard, read_commit, require_rows
from kdcache.store.segment import Segment
from kdcache.store.shards import decode_shard, largest_shard
from kdcache.store.struck import check_ticket, struck_rows
from kdcache.whole_store.store_address import StoreAddress

BlockName = tuple[str, int]  # segment and block


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a store. A `harmless` one is worth a note and is no failure.

    `block` is the (segment, block) that extract can redo, None where extract cannot mend it. `advice` is the remedy,
    empty where that is to restore a file."""

    what: str
    block: BlockName | None = None
    advice: str = ""
    harmless: bool = False


@dataclass(frozen=True)
class BlockInspection:
    """Findings of one block, the count of its committed files, and their bytes as committed. `committed` is True also
    where the commit itself is damaged."""

    findings: tuple[Finding, ...]
    committed: bool
    files: int
    bytes: int


def inspect_blocks(address: StoreAddress, blocks: Sequence[BlockName]) -> list[BlockInspection]:
    """Check some blocks of a folder or bucket by their commit files. On a worker."""
    return _inspect(address, blocks, _inspect_block)


def inspect_sealed_blocks(address: StoreAddress, blocks: Sequence[BlockName]) -> list[BlockInspection]:
    """Check some blocks of a seal in a place where no block can be redone. On a worker."""
    return _inspect(address, blocks, _inspect_sealed_block)


def _inspect(
    address: StoreAddress, blocks: Sequence[BlockName], inspect: Callable[[Place, Segment, int], BlockInspection]
) -> list[BlockInspection]:
    folder = address.store().folder
    tasks = [(address.segment(name), block) for name, block in blocks]
    if len(tasks) == 1:
        return [inspect(folder, *tasks[0])]
    return list(many(lambda task: inspect(folder, *task), tasks, far=folder.far))


def _inspect_block(folder: Place, segment: Segment, block: int) -> BlockInspection:
    commit, findings = check_block(folder, segment, block)
    committed = commit is not None or _lies_there(folder, segment.layout.commit_key(block))
    return _inspection(folder, segment, commit, findings, committed=committed)


def _inspect_sealed_block(folder: Place, segment: Segment, block: int) -> BlockInspection:
    commit = segment.commit_of(block)
    findings = [replace(finding, block=None) for finding in _check_shards(folder, segment, block, commit)]
    return _inspection(folder, segment, commit, findings, committed=True)


def _inspection(
    folder: Place, segment: Segment, commit: Commit | None, findings: Sequence[Finding], *, committed: bool
) -> BlockInspection:
    shards = {} if commit is None else _shards_here(folder, segment, commit)
    return BlockInspection(tuple(findings), committed, len(shards), sum(shard.size for shard in shards.values()))


def _lies_there(folder: Place, key: str) -> bool:
    """True where something has a key, a file or not."""
    try:
        return folder.size(key) is not None
    except KdcacheError:
        return True


def check_block(folder: Place, segment: Segment, block: int) -> tuple[Commit | None, list[Finding]]:
    """The commit of a block, None where it is missing or damaged, and findings about the block's files."""
    try:
        commit = read_commit(folder, segment.layout, block)
    except KdcacheError as error:
        return None, [Finding(str(error), (segment.layout.name, block))]
    if commit is None:
        return None, list(_check_uncommitted(folder, segment, block))
    return commit, list(_check_shards(folder, segment, block, commit))


def _check_uncommitted(folder: Place, segment: Segment, block: int) -> Iterator[Finding]:
    """Findings for shards without a commit that do not decode: an extraction of the block could not adopt them."""
    for name, spec in segment.layout.arrays_of(block).items():
        try:
            if (data := folder.get(spec.key(block), limit=largest_shard(spec))) is not None:
                require_rows(folder, segment.layout, name, block, data)
        except KdcacheError as error:
            yield Finding(str(error), (segment.layout.name, block))


def _shards_here(folder: Place, segment: Segment, commit: Commit) -> dict[str, Shard]:
    """The shards of a commit, less those that this copy was made without. Those of them that lie there all the same, as
    after a pull that was stopped, are looked at in a folder; elsewhere each would be a request."""
    arrays = segment.layout.arrays
    return {
        name: shard
        for name, shard in commit.shards.items()
        if name not in segment.left_out or (not folder.far and _lies_there(folder, arrays[name].key(commit.block)))
    }


def _check_shards(folder: Place, segment: Segment, block: int, commit: Commit) -> Iterator[Finding]:
    for name, shard in _shards_here(folder, segment, commit).items():
        spec = segment.layout.arrays[name]
        if problem := _shard_problem(folder, spec, spec.key(block), shard):
            yield Finding(problem, (segment.layout.name, block))
        elif commit.struck and spec is next(iter(segment.layout.arrays.values())):
            yield from _check_marks(folder, segment, block, commit)


def _check_marks(folder: Place, segment: Segment, block: int, commit: Commit) -> Iterator[Finding]:
    """A finding where a ticket of the committed sha256 marks other rows than its commit strikes."""
    layout, identity = segment.layout, segment.identity
    spec = next(iter(layout.arrays.values()))
    path, key = folder.path(spec.key(block)), spec.key(block)
    try:
        values = decode_shard(spec, folder.require(key, folder.mend, limit=largest_shard(spec)), block)
        struck = struck_rows(identity.plan, layout, block, commit.struck)
        check_ticket(spec, values, struck, classes=identity.teacher.classes, path=path)
    except (KdcacheError, ValueError, RuntimeError) as error:
        yield Finding(f"{path}: {error}", (layout.name, block))


def _shard_problem(folder: Place, spec: ArraySpec, key: str, shard: Shard) -> str:
    """The problem with a committed file, or an empty text. The size is checked before anything is hashed, so that no
    more bytes are hashed than an array can hold."""
    path = folder.path(key)
    try:
        size = folder.size(key)
        if size is None:
            return f"{path} is missing"
        if size != shard.size or size > largest_shard(spec):
            return f"{path} has {size} bytes, committed were {shard.size}, allowed are up to {largest_shard(spec)}"
        sha256 = folder.digest(key) or "nothing"
    except KdcacheError as error:
        return str(error)
    return "" if sha256 == shard.sha256 else f"{path} has sha256 {sha256[:16]}, committed was {shard.sha256[:16]}"
