"""One segment of a store: which of its blocks exist, and the one reader of its arrays."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.limits import COMMIT_LIMIT, COMMITS_LIMIT, VIEWS_MAX, ZARR_LIMIT
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, FormatError, InvalidInputError, MissingBlockError
from kdcache.places.place import Place
from kdcache.store.commits import Commit, Counts, SealedCommits, commit_block, list_commits, read_commit
from kdcache.store.layout import (
    ArraySpec,
    SegmentLayout,
    describe_segment,
    group_bytes,
    segment_digest,
    segment_layout,
    segment_name,
)
from kdcache.store.manifest import Identity, Provenance
from kdcache.store.read_ahead import AwaitedBlock, AwaitedFile, Expectant
from kdcache.store.reading import nearby, parts_of, read_records
from kdcache.store.rows import EncodedRows
from kdcache.store.shards import longest_chunk, read_row, require_metadata

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

PROBED = 8  # commit files that are asked for where none can be listed


class Segment:
    """Views start:stop of a store. `commits_digest` is what a seal says of its commits, None where there is no seal."""

    def __init__(self, folder: Place, identity: Identity, layout: SegmentLayout, commits_digest: str | None) -> None:
        self.folder = folder
        self.identity = identity
        self.layout = layout
        self.commits_digest = commits_digest

    @property
    def views(self) -> ViewSpan:
        return self.layout.views

    def digest(self, commits_digest: str) -> str:
        return segment_digest(self.layout, self.identity.digest, commits_digest)

    def create(self) -> None:
        """Write the segment's metadata, or find it there; the record goes last."""
        self.folder.put_same(f"{self.layout.name}/zarr.json", group_bytes())
        for spec in self.layout.arrays.values():
            self.folder.put_same(f"{spec.path}/zarr.json", spec.metadata_bytes())
        self.folder.put_same(self.layout.record, canonical_json(describe_segment(self.layout, self.identity.digest)))

    def commit(
        self, block: int, *, arrays: dict[str, Array], counts: Counts, provenance: Provenance, adopt: bool = False
    ) -> Commit | None:
        """Commit one block; see `commits.commit_block`."""
        return commit_block(
            self.folder, self.layout, block, arrays=arrays, counts=counts, provenance=provenance, adopt=adopt
        )

    @cached_property
    def sealed_commits(self) -> SealedCommits:
        """The commits that the seal lists, from their one file."""
        assert self.commits_digest is not None
        key = self.layout.commits_file(self.commits_digest)
        data = self.folder.require(key, "restore it from another copy of the store", limit=COMMITS_LIMIT)
        if (found := sha256_hex(data)) != self.commits_digest:
            path = self.folder.path(key)
            raise DamagedError(f"{path} has sha256 {found}, the seal says {self.commits_digest}; restore the file")
        return SealedCommits(data, self.layout, str(self.folder.path(key)))

    def commit_of(self, block: int) -> Commit:
        """The commit of one block, without listing. Raises MissingBlockError where there is none."""
        sealed = self.commits_digest is not None
        commit = self.sealed_commits[block] if sealed else read_commit(self.folder, self.layout, block)
        if commit is None:
            raise self._uncommitted(block)
        return commit

    def commits(self) -> Mapping[int, Commit]:
        """Block -> commit, from the seal's file, or by listing where there is no seal."""
        if self.commits_digest is not None:
            return self.sealed_commits
        return list_commits(self.folder, self.layout)

    def read(self, view: int, positions: IntArray, names: list[str]) -> EncodedRows:
        """Arrays `names` of one view at `positions` [B], rows in that order.

        Raises MissingBlockError where a block is not committed, DamagedError where a file is not what was committed.
        """
        self._check_range(view, positions)
        distinct = bool((positions[1:] > positions[:-1]).all())
        sorter = None if distinct else np.argsort(positions, kind="stable")
        ascending = positions if sorter is None else positions[sorter]
        parts = parts_of(ascending, self.layout, distinct=distinct)
        specs = {name: self.layout.arrays[name] for name in names}
        self._announce(view, [part.block for part in parts], specs)
        prefixes = [self.layout.commits_prefix, *(f"{spec.path}/c/0" for spec in specs.values())]
        with nearby(self.folder, prefixes) as near:
            commits = self._check_blocks(near, [part.block for part in parts])
            for spec in specs.values():
                require_metadata(self.folder, spec)
            records = read_records(
                near,
                specs,
                parts,
                view - self.views.start,
                size_of=lambda block, name: commits[block].shards[name].size,
                classes=self.identity.teacher.classes,
            )
        rows = EncodedRows(self.identity, ascending, records=records)
        return rows if sorter is None else rows.take(np.argsort(sorter))

    def _announce(self, view: int, blocks: list[int], specs: Mapping[str, ArraySpec]) -> None:
        """Tell a far place what is about to be read, so that it fetches all of it at once."""
        if self.commits_digest is None or not isinstance(self.folder, Expectant):
            return
        sealed, row, awaited = self.sealed_commits, view - self.views.start, []
        for block in blocks:
            shards = [(spec, sealed[block].shards[name]) for name, spec in specs.items()]
            files = tuple(
                AwaitedFile(spec.key(block), shard.size, shard.sha256, row, spec.shape[0], longest_chunk(spec))
                for spec, shard in shards
            )
            awaited.append(AwaitedBlock(self.layout.commit_key(block), sealed.record(block), files))
        self.folder.expect(awaited)

    def canary(self, view: int) -> Array:
        """Thumbnails [min(64, N), 3, 8, 8] u8 of the first positions' views."""
        self._check_range(view, np.zeros(1, dtype=np.int64))
        return self._first_block("canary", view - self.views.start)

    @cached_property
    def class_means(self) -> Array:
        """Mean logit [C] f32 of each class while outside the top k, less the mean of its row's tail; 0 where masked.

        Over block 0, all its views: a sample of the segment where positions are shuffled.
        """
        return self._first_block("class_means", 0)

    def _first_block(self, name: str, row: int) -> Array:
        commits, spec = self._check_blocks(self.folder, [0]), self.layout.arrays[name]
        require_metadata(self.folder, spec)
        return read_row(self.folder, spec, 0, row, size=commits[0].shards[name].size)

    def _check_range(self, view: int, positions: IntArray) -> None:
        if view not in self.views:
            raise InvalidInputError(f"view {view} is not in {self.layout.name}")
        if len(positions) and (positions.min() < 0 or positions.max() >= self.layout.rows):
            span = f"{positions.min()} to {positions.max()}"
            raise InvalidInputError(
                f"positions {span} were asked of a store with positions 0 to {self.layout.rows - 1}"
            )

    def _check_standing(self, place: Place, block: int, sealed: Commit) -> None:
        """A repair may have removed a sealed block, and other last bits may have taken its place in files of the same
        sizes. Its commit tells; a copy of a store may leave all commit files out."""
        if self.commits_digest is None:
            return
        key, line = self.layout.commit_key(block), self.sealed_commits.record(block)
        data = place.get(key, limit=COMMIT_LIMIT)
        if data == line or (data is None and not self._keeps_commits()):
            return
        standing = None if data is None else read_commit(self.folder, self.layout, block)
        if standing is None or standing.shards != sealed.shards:
            what = "is gone" if standing is None else "has other shards than the seal lists: it was extracted again"
            advice = f"finish it with kdcache extract and kdcache seal, or look: kdcache verify {self.folder.root}"
            advice = advice if self.folder.lists else self.folder.mend
            raise DamagedError(f"{self.folder.path(key)} {what}; {advice}")

    def _keeps_commits(self) -> bool:
        """Whether this copy of a sealed store has commit files; where nothing can be listed, some are asked for."""
        if self.folder.lists:
            return self.folder.has_folder(self.layout.commits_prefix)
        return self._commit_seen

    @cached_property
    def _commit_seen(self) -> bool:
        some = range(0, self.layout.blocks, max(self.layout.blocks // PROBED, 1))
        return any(self.folder.size(self.layout.commit_key(block)) is not None for block in some)

    def _check_blocks(self, place: Place, blocks: list[int]) -> Mapping[int, Commit]:
        """The commits, which are asked for what exists: Zarr returns fill values for what is missing."""
        commits = self.commits()
        for block in blocks:
            if block not in commits:
                raise self._uncommitted(block)
            self._check_standing(place, block, commits[block])
        return commits

    def _uncommitted(self, block: int) -> MissingBlockError:
        first, last = self.layout.block_rows(block)
        return MissingBlockError(
            f"{self.layout.name}: positions {first} to {last - 1} (block {block}) are not committed; "
            "run the same `kdcache extract` again to finish the store"
        )


def listed_segments(folder: Place, identity: Identity) -> list[Segment]:
    """The segments of a store that have a record, by listing. Raises FormatError for another store's."""
    found, digest = [], identity.digest
    for name in folder.folders("kdcache"):
        parts = name.split("-")
        ends = [int(part) for part in parts[1:] if part.isdecimal()]
        if len(ends) == 2 and ends[0] < ends[1] <= VIEWS_MAX and name == segment_name(views := ViewSpan(*ends)):
            segment = Segment(folder, identity, segment_layout(identity, views), None)
            if (data := folder.get(segment.layout.record, limit=ZARR_LIMIT)) is not None:
                if data != canonical_json(describe_segment(segment.layout, digest)):
                    path = folder.path(segment.layout.record)
                    raise FormatError(
                        f"{path} is not what this store's manifest predicts; restore it from another copy"
                    )
                found.append(segment)
    return sorted(found, key=lambda segment: segment.views)
