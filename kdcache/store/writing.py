"""A block is written through folders that stay open, so that a writer that sleeps meanwhile harms no other store.

Whoever wakes after its store was removed, or another put in its place, writes to folders that have no name any more.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from kdcache.base.canonical import sha256_hex
from kdcache.base.limits import MANIFEST_LIMIT, ZARR_LIMIT
from kdcache.errors import StoreError
from kdcache.places.place import Place
from kdcache.store.commits import Commit, Counts, Shard, require_rows
from kdcache.store.layout import MANIFEST, SegmentLayout
from kdcache.store.manifest import Identity, Provenance, parse_manifest
from kdcache.store.plan import ViewPlan
from kdcache.store.reading import open_folders
from kdcache.store.shards import decode_shard, encode_shard, largest_shard
from kdcache.store.struck import adopted, require_strikable, strike, struck_rows

RECORDS = "kdcache"  # the folder of a store's own records


@contextmanager
def writing(folder: Place, layout: SegmentLayout, record: bytes) -> Iterator[Place]:
    """A segment's place with its folders open, for writing to it. `record` is what the segment's own record must be.

    Raises StoreError where the segment is gone, or another store's lies there.
    """
    with open_folders(folder, [layout.name, RECORDS, ""]) as place:
        if place.get(layout.record, limit=ZARR_LIMIT) != record:
            raise replaced(folder)
        yield place


@contextmanager
def writing_store(folder: Place, identity: Identity) -> Iterator[Place]:
    """A store's place with its folders open, for writing to it. Raises StoreError where another store lies there."""
    with open_folders(folder, [RECORDS, ""]) as place:
        data = place.get(MANIFEST, limit=MANIFEST_LIMIT)
        if data is None or parse_manifest(data, str(place.path(MANIFEST))).identity != identity:
            raise replaced(folder)
        yield place


def replaced(folder: Place) -> StoreError:
    """The error of a writer whose store is gone from its place."""
    problem = f"the store at {folder.root} was removed while this process wrote to it, or another one put in its place"
    return StoreError(f"{problem}; nothing of that was changed: look what lies there, and run the same command again")


def write_block(
    folder: Place,
    layout: SegmentLayout,
    plan: ViewPlan,
    block: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    counts: Counts,
    provenance: Provenance,
    adopt: bool,
    struck: Sequence[int],
    ids: Sequence[int],
) -> bool:
    """Put a block's shards and its commit, as `Segment.commit` says. False where another writer has taken the block."""
    shards: dict[str, Shard] = {}
    mixed, struck = False, require_strikable(layout, block, struck)
    rows_struck = struck_rows(plan, layout, block, struck)
    for name, spec in layout.arrays_of(block).items():
        data = encode_shard(spec, strike(spec, arrays[name], rows_struck))
        key = spec.key(block)
        if not folder.put_new(key, data):
            other = folder.require(key, "another process deleted it; extract again", limit=largest_shard(spec))
            if other != data and not adopt and not shards:
                return False
            if other != data:
                require_rows(folder, layout, name, block, other)
                if not shards:
                    ticket = decode_shard(spec, other, block)
                    struck = adopted(spec, ticket, rows_struck, plan, layout, block)
                    rows_struck = struck_rows(plan, layout, block, struck)
                mixed, data = True, other
        shards[name] = Shard(sha256=sha256_hex(data), size=len(data))
    start, stop = layout.block_rows(block)
    rows = (stop - start) * len(layout.views)
    commit = Commit(block=block, rows=rows, shards=shards, counts=counts, mixed=mixed, provenance=provenance)
    folder.put_new(layout.commit_key(block), commit.model_copy(update={"struck": struck, "ids": tuple(ids)}).to_bytes())
    return True
