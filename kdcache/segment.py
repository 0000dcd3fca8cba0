"""One segment of a store: which of its blocks exist, and the one reader of its arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.canonical import canonical_json, sha256_hex
from kdcache.commits import Commit, Counts, SealedCommits, commit_block, list_commits, read_commit
from kdcache.encoding import decode_label, decode_logits, decode_tail
from kdcache.errors import DamagedError, InvalidInputError, MissingBlockError
from kdcache.layout import SegmentLayout, group_bytes
from kdcache.limits import COMMIT_LIMIT
from kdcache.manifest import Identity, Provenance
from kdcache.place import AwaitedBlock, AwaitedFile, Expectant, Place
from kdcache.shards import longest_chunk, read_row, require_metadata
from kdcache.softlabels import FullLabels, SoftLabels, TopKLabels

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

PROBED = 8  # commit files that are asked for where none can be listed


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one view as the store holds them, positions first: small in memory, decoded a batch at a time."""

    identity: Identity
    positions: IntArray
    arrays: dict[str, Array]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def take(self, rows: IntArray) -> "EncodedRows":
        """Some rows, by their place in `positions`."""
        taken = {name: np.take(array, rows, axis=0) for name, array in self.arrays.items()}
        return EncodedRows(self.identity, np.take(self.positions, rows), taken)

    def soft_labels(self) -> SoftLabels:
        """The rows decoded to f32; classes keep their dtype."""
        encoding, teacher = self.identity.encoding, self.identity.teacher
        label = decode_label(self.arrays["label"]) if encoding.k is not None else self._full_label()
        if encoding.k is None:
            logits = self.arrays["logits"].astype(np.float32)
            return FullLabels(logits, label, teacher.classes, teacher.masked_classes)
        logits = decode_logits(self.arrays["classes"], self.arrays.get("gaps"), encoding.quantisation)
        tail = decode_tail(self.arrays["tail"])
        return TopKLabels(self.arrays["classes"], logits, tail, label, teacher.classes, teacher.masked_classes)

    def _full_label(self) -> Array:
        """The full encoding keeps no label distance: it is read from the logits of the labels that came along."""
        labels = self.arrays["hard"].astype(np.int64)
        column = labels if labels.ndim == 2 else labels[:, None]
        logits = np.take_along_axis(self.arrays["logits"], np.maximum(column, 0), axis=1).astype(np.float32)
        known = np.where((column >= 0) & np.isfinite(logits), logits, np.float32(np.nan))
        return known if labels.ndim == 2 else known[:, 0]


def describe_segment(layout: SegmentLayout, identity_digest: str) -> dict[str, Any]:
    """segment.json: what the segment digest covers besides the commits."""
    return {
        "identity": identity_digest,
        "views": [layout.start, layout.stop],
        "block": layout.block,
        "arrays": {name: spec.metadata() for name, spec in layout.arrays.items()},
    }


def segment_digest(layout: SegmentLayout, identity_digest: str, commits_digest: str) -> str:
    """What a seal says of a segment."""
    return sha256_hex(canonical_json({"segment": describe_segment(layout, identity_digest), "commits": commits_digest}))


class Segment:
    """Views start:stop of a store. `commits_digest` is what a seal says of its commits, None where there is no seal."""

    def __init__(self, folder: Place, identity: Identity, layout: SegmentLayout, commits_digest: str | None) -> None:
        self.folder = folder
        self.identity = identity
        self.layout = layout
        self.commits_digest = commits_digest

    @property
    def views(self) -> range:
        return range(self.layout.start, self.layout.stop)

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
        data = self.folder.require(key, "restore it from another copy of the store")
        if (found := sha256_hex(data)) != self.commits_digest:
            path = self.folder.path(key)
            raise DamagedError(f"{path} has sha256 {found}, the seal says {self.commits_digest}; restore the file")
        return SealedCommits(data, self.layout, str(self.folder.path(key)))

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
        blocks = np.unique(positions // self.layout.block)
        self._announce(view, blocks, names)
        self._check_blocks(blocks, names)
        loaded = np.concatenate(
            [np.arange(*self.layout.block_rows(block), dtype=np.int64) for block in blocks.tolist()] or [positions]
        )
        arrays = {name: self._blocks(name, view, blocks.tolist()) for name in names}
        classes = self.identity.teacher.classes
        if "classes" in arrays and (found := int(arrays["classes"].max(initial=0))) >= classes:
            said = f"{self.folder.path(self.layout.arrays['classes'].path)} holds class id {found}"
            raise DamagedError(f"{said}, allowed are 0 to {classes - 1}; fetch the store again")
        rows = EncodedRows(self.identity, loaded, arrays)
        return rows if np.array_equal(loaded, positions) else rows.take(np.searchsorted(loaded, positions))

    def _announce(self, view: int, blocks: IntArray, names: list[str]) -> None:
        """Tell a far place what is about to be read, so that it fetches all of it at once."""
        if self.commits_digest is None or not isinstance(self.folder, Expectant):
            return
        awaited, row = [], view - self.layout.start
        for block in blocks.tolist():
            specs = [self.layout.arrays[name] for name in names]
            shards = [self.sealed_commits[block].shards[name] for name in names]
            files = tuple(
                AwaitedFile(spec.key(block), shard.size, shard.sha256, row, spec.shape[0], longest_chunk(spec))
                for spec, shard in zip(specs, shards, strict=True)
            )
            awaited.append(AwaitedBlock(self.layout.commit_key(block), self.sealed_commits.record(block), files))
        self.folder.expect(awaited)

    def _blocks(self, name: str, view: int, blocks: list[int]) -> Array:
        """Rows of some blocks, positions first."""
        spec = self.layout.arrays[name]
        assert spec.block_axis is not None
        require_metadata(self.folder, spec)
        row, axis = view - self.layout.start, spec.block_axis - 1
        if blocks:
            return np.concatenate([np.moveaxis(read_row(self.folder, spec, b, row), axis, 0) for b in blocks])
        shape = [size for axis, size in enumerate(spec.shape) if axis not in (0, spec.block_axis)]
        return np.empty((0, *shape), dtype=spec.dtype)

    def canary(self, view: int) -> Array:
        """Thumbnails [min(64, N), 3, 8, 8] u8 of the first positions' views."""
        self._check_range(view, np.zeros(1, dtype=np.int64))
        self._check_blocks(np.zeros(1, dtype=np.int64), ["canary"])
        require_metadata(self.folder, self.layout.arrays["canary"])
        return read_row(self.folder, self.layout.arrays["canary"], 0, view - self.layout.start)

    @cached_property
    def class_means(self) -> Array:
        """Mean logit [C] f32 of each class while outside the top k, less the mean of its row's tail; 0 where masked.

        Over block 0, all its views: a sample of the segment where positions are shuffled.
        """
        self._check_blocks(np.zeros(1, dtype=np.int64), ["class_means"])
        require_metadata(self.folder, self.layout.arrays["class_means"])
        return read_row(self.folder, self.layout.arrays["class_means"], 0, 0)

    def _check_range(self, view: int, positions: IntArray) -> None:
        if view not in self.views:
            raise InvalidInputError(f"view {view} is not in {self.layout.name}")
        if len(positions) and (positions.min() < 0 or positions.max() >= self.layout.rows):
            span = f"{positions.min()} to {positions.max()}"
            raise InvalidInputError(
                f"positions {span} were asked of a store with positions 0 to {self.layout.rows - 1}"
            )

    def _check_standing(self, block: int, sealed: Commit) -> None:
        """A repair may have removed a sealed block, and other last bits may have taken its place in files of the same
        sizes. Its commit tells; a copy of a store may leave all commit files out."""
        if self.commits_digest is None:
            return
        key, line = self.layout.commit_key(block), self.sealed_commits.record(block)
        data = self.folder.get(key, limit=COMMIT_LIMIT)
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

    def _check_blocks(self, blocks: IntArray, names: list[str]) -> None:
        """Zarr returns fill values for what is missing: so ask the commits, and the sizes of the files."""
        commits = self.commits()
        for block in blocks.tolist():
            if block not in commits:
                first, last = self.layout.block_rows(block)
                raise MissingBlockError(
                    f"{self.layout.name}: positions {first} to {last - 1} (block {block}) are not committed; "
                    "run the same `kdcache extract` again to finish the store"
                )
            self._check_standing(block, commits[block])
            for name in names:
                key = self.layout.arrays[name].key(block)
                found, wanted = self.folder.size(key), commits[block].shards[name].size
                if found != wanted:
                    what = "is missing" if found is None else f"has {found} bytes, committed were {wanted}"
                    raise DamagedError(f"{self.folder.path(key)} {what}; {self.folder.mend}")
