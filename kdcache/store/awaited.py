"""The blocks of a read as a far place is told of them beforehand: their files, with sizes and sha256 from the seal."""

from collections.abc import Mapping, Sequence

from kdcache.store.array_spec import ArraySpec
from kdcache.store.commits import SealedCommits
from kdcache.store.layout import SegmentLayout
from kdcache.store.read_ahead import AwaitedBlock, AwaitedFile
from kdcache.store.shards import longest_chunk


def awaited_blocks(
    layout: SegmentLayout, commits: SealedCommits, specs: Mapping[str, ArraySpec], blocks: Sequence[int], row: int
) -> list[AwaitedBlock]:
    """The files of some blocks and arrays, of which chunk `row` is about to be read."""
    awaited = []
    for block in blocks:
        shards = [(spec, commits[block].shards[name]) for name, spec in specs.items()]
        files = tuple(
            AwaitedFile(
                spec.key(block), shard.size, shard.sha256, spec.entry_of(row), spec.shape[0], longest_chunk(spec)
            )
            for spec, shard in shards
        )
        awaited.append(AwaitedBlock(layout.commit_key(block), commits.record(block), files))
    return awaited
