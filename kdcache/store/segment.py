"""A segment of a store: the one writer of its blocks, its commits, which say what blocks exist, and its one reader."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.computed_once import computed_once
from kdcache.base.limits import COMMIT_LIMIT, COMMITS_LIMIT
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, InvalidInputError, MissingBlockError
from kdcache.places.place import Place
from kdcache.store.array_spec import ArraySpec
from kdcache.store.awaited import awaited_blocks
from kdcache.store.commits import Commit, Counts, SealedCommits, list_commits, read_commit, uncommitted
from kdcache.store.layout import SegmentLayout, describe_segment, group_bytes, segment_digest
from kdcache.store.manifest import Identity, Provenance
from kdcache.store.plan import without_answer
from kdcache.store.read_ahead import Expectant
from kdcache.store.reading import EncodedRows, open_folders, parts_of, read_records
from kdcache.store.segment_layout import require_alone
from kdcache.store.shards import read_row, require_metadata
from kdcache.store.struck import check_ticket, require_answers, struck_rows
from kdcache.store.writing import write_block, writing, writing_store

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

PROBED = 8  # commit files that are asked for where none can be listed


class Segment:
    """The segment of some views. `commits_digest` is the sha256 that a seal gives for its commits, None without one;
    `left_out` are the arrays of taps that this copy lacks on purpose, `listed` the commits of a `snapshot`."""

    def __init__(
        self,
        folder: Place,
        identity: Identity,
        layout: SegmentLayout,
        commits_digest: str | None,
        left_out: Set[str] = frozenset(),
        listed: Mapping[int, Commit] | None = None,
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.layout = layout
        self.commits_digest = commits_digest
        self.left_out = layout.arrays.keys() & left_out
        self.listed = listed

    @property
    def views(self) -> ViewSpan:
        return self.layout.views

    @property
    def arrays_here(self) -> list[ArraySpec]:
        """The arrays of the layout, less those that this copy lacks on purpose."""
        return [spec for name, spec in self.layout.arrays.items() if name not in self.left_out]

    @property
    def left_out_taps(self) -> list[str]:
        """The names of the taps that this copy lacks on purpose."""
        return self.identity.encoding.tap_names(self.left_out)

    def require_held(self, names: Iterable[str]) -> None:
        """Raises MissingBlockError where this copy was made without one of some arrays."""
        if absent := self.left_out.intersection(names):
            taps = ", ".join(self.identity.encoding.tap_names(absent))
            problem = f"{self.folder.root} is a copy without taps {taps} of views {self.views}"
            raise MissingBlockError(f"{problem}; get them with kdcache pull from where it came from")

    def digest(self, commits_digest: str) -> str:
        return segment_digest(self.layout, self.identity.digest, commits_digest)

    def create(self) -> None:
        """Write the segment's metadata, its record last; a file that lies there already must be equal. Raises
        InvalidInputError, see `require_alone`."""
        with writing_store(self.folder, self.identity) as folder:
            folder.put_same(f"{self.layout.name}/zarr.json", group_bytes())
            for spec in self.layout.arrays.values():
                folder.put_same(f"{spec.path}/zarr.json", spec.metadata_bytes())
            folder.put_same(self.layout.record, self._record)
            require_alone(folder, self.views)

    def commit(
        self,
        block: int,
        *,
        arrays: dict[str, Array],
        counts: Counts,
        provenance: Provenance,
        adopt: bool = False,
        struck: Sequence[int] = (),
        ids: Sequence[int] = (),
    ) -> Commit | None:
        """Write one block whole and commit it: the one place where a block becomes part of a store.

        Shards are put create-only, the ticket (first array) before the others; then the commit, create-only too,
        describes what lies on disk. A writer that finds other bytes under the ticket's key leaves the block to whoever
        wrote them, and comes back at the end with `adopt`.

        `arrays` hold the block's rows in the store's shapes and dtypes. `struck` are positions of samples that cannot
        be decoded: what lies in their rows and their partners' is overwritten here. `ids` are the block's `id_sums`.
        Returns the commit, or None where another writer has taken the block with other bytes and `adopt` is off. Raises
        DamagedError for a shard that was left there torn: a shard is adopted only where it decodes to this block's
        rows. Struck rows are those of the ticket that lies there; StoreError where one of `struck` has an answer in it.
        """
        if (current := read_commit(self.folder, self.layout, block)) is not None:
            return current
        with writing(self.folder, self.layout, self._record) as folder:
            is_written = write_block(
                folder, self.layout, self.identity.plan, block, arrays,
                counts=counts, provenance=provenance, adopt=adopt, struck=struck, ids=ids,
            )  # fmt: skip
            return read_commit(folder, self.layout, block) if is_written else None

    @property
    def _record(self) -> bytes:
        """The bytes of the segment's record."""
        return canonical_json(describe_segment(self.layout, self.identity.digest))

    @computed_once
    def sealed_commits(self) -> SealedCommits:
        """The commits that the seal lists, from their one file. Raises DamagedError where it has another sha256."""
        assert self.commits_digest is not None
        key = self.layout.commits_file(self.commits_digest)
        data = self.folder.require(key, "restore it from another copy of the store", limit=COMMITS_LIMIT)
        if (digest := sha256_hex(data)) != self.commits_digest:
            path = self.folder.path(key)
            raise DamagedError(f"{path} has sha256 {digest}, the seal says {self.commits_digest}; restore the file")
        return SealedCommits(data, self.layout, str(self.folder.path(key)))

    @property
    def _known_commits(self) -> Mapping[int, Commit] | None:
        """The commits of the seal or of the snapshot; None where only the place knows them."""
        return self.listed if self.commits_digest is None else self.sealed_commits

    def snapshot(self, blocks: Sequence[int] | None = None) -> "Segment":
        """This segment as one listing shows it now, or with `blocks` alone, each of which is asked for by its own
        commit file. Its commits are not asked for again."""
        if self.commits_digest is not None:
            return self
        commits = self.commits() if blocks is None else {block: self.find_commit(block) for block in blocks}
        listed = {block: commit for block, commit in commits.items() if commit is not None}
        return Segment(self.folder, self.identity, self.layout, self.commits_digest, self.left_out, listed)

    def commits(self) -> Mapping[int, Commit]:
        """Block -> commit, from the seal's file or the snapshot, or by listing: then every commit file is read."""
        return list_commits(self.folder, self.layout) if (known := self._known_commits) is None else known

    def find_commit(self, block: int) -> Commit | None:
        """The commit of one block by its own file, without listing; None where there is none."""
        return (
            read_commit(self.folder, self.layout, block) if (known := self._known_commits) is None else known.get(block)
        )

    def commit_of(self, block: int) -> Commit:
        """The commit of one block, without listing. Raises MissingBlockError where there is none."""
        if (commit := self.find_commit(block)) is None:
            raise self._missing_block(block)
        return commit

    def uncommitted(self, blocks: Sequence[int]) -> list[int]:
        """Those of some blocks that have no commit by now: each is asked for by its own file, without listing."""
        return uncommitted(self.folder, self.layout, blocks)

    def read(self, view: int, positions: IntArray, names: list[str]) -> EncodedRows:
        """Arrays `names` of one view at `positions` [B], rows in that order.

        Raises MissingBlockError where a block is not committed and for taps that this copy was made without,
        DamagedError where a file is not what was committed, InvalidInputError for a position without an answer in the
        view.
        """
        self._check_range(view, positions)
        self.require_held(names)
        distinct = bool((positions[1:] > positions[:-1]).all())
        sorter = None if distinct else np.argsort(positions, kind="stable")
        sorted_positions = positions if sorter is None else positions[sorter]
        parts = parts_of(sorted_positions, self.layout, distinct=distinct)
        specs = {name: self.layout.arrays[name] for name in names}
        self._announce(view, [part.block for part in parts], specs)
        prefixes = [self.layout.commits_prefix, *(f"{spec.path}/c/0" for spec in specs.values())]
        with open_folders(self.folder, prefixes) as place:
            commits = self._check_blocks(place, [part.block for part in parts])
            if next(iter(self.layout.arrays)) in specs:  # fingerprints alone are read of struck rows too
                struck = [position for part in parts for position in commits[part.block].struck]
                require_answers(self.identity.plan, self.layout, view, sorted_positions, struck)
            for spec in specs.values():
                require_metadata(self.folder, spec)
            records = read_records(
                place,
                specs,
                parts,
                view - self.views.start,
                size_of=lambda block, name: commits[block].shards[name].size,
                check=lambda block, name, values: self._check_rows(view, block, name, values, commits[block].struck),
            )
        rows = EncodedRows(self.identity.encoding, self.identity.space, sorted_positions, records=records)
        return rows if sorter is None else rows.take(np.argsort(sorter))

    def struck(self, view: int | None = None) -> IntArray:
        """Ascending positions of the committed rows of a view that have no answer, since their sample or that of their
        mixing partner could not be decoded. Without a view: the positions of these samples."""
        commits = self.commits()
        in_blocks = (position for block in sorted(commits) for position in commits[block].struck)
        positions = np.array(commits.struck if isinstance(commits, SealedCommits) else [*in_blocks], dtype=np.int64)
        return positions if view is None else without_answer(self.identity.plan, positions, view, self.layout.rows)

    def _check_rows(self, view: int, block: int, name: str, values: Array, struck: Sequence[int]) -> None:
        """Check one view of a block's ticket, as `check_ticket` does; other arrays pass."""
        if name == next(iter(self.layout.arrays)):
            spec, classes = self.layout.arrays[name], self.identity.teacher.classes
            rows = struck_rows(self.identity.plan, self.layout, block, struck, ViewSpan.of(view))
            check_ticket(spec, values[None], rows, classes=classes, path=self.folder.path(spec.key(block)))

    def _announce(self, view: int, blocks: list[int], specs: Mapping[str, ArraySpec]) -> None:
        """Name the files of a read to a far place before the read, so that it fetches all of them at once."""
        if self.commits_digest is None or not isinstance(self.folder, Expectant):
            return
        self.folder.expect(awaited_blocks(self.layout, self.sealed_commits, specs, blocks, view - self.views.start))

    def canary(self, view: int) -> Array:
        """Thumbnails [min(64, N), 3, 8, 8] u8 of the first positions' views. Raises MissingBlockError for sequences."""
        self._check_range(view, np.zeros(1, dtype=np.int64))
        if "canary" not in self.layout.arrays:
            raise MissingBlockError(f"{self.layout.name} holds texts, which have no canary: a drift cannot be judged")
        return self._read_first_block("canary", view - self.views.start)

    @computed_once
    def class_means(self) -> Array:
        """Mean logit [C] f32 of each class over rows that have it outside the top k, less the mean of the row's tail.

        0 where a class is masked. The rows are block 0 in all its views: a sample of the segment where positions are
        shuffled.
        """
        return self._read_first_block("class_means", 0)

    def _read_first_block(self, name: str, row: int) -> Array:
        commits, spec = self._check_blocks(self.folder, [0]), self.layout.arrays[name]
        require_metadata(self.folder, spec)
        return read_row(self.folder, spec, 0, row, size=commits[0].shards[name].size)

    def _check_range(self, view: int, positions: IntArray) -> None:
        if view not in self.views:
            raise InvalidInputError(f"view {view} is not in {self.layout.name}")
        if len(positions) and (positions.min() < 0 or positions.max() >= self.layout.rows):
            text = f"{positions.min()} to {positions.max()}"
            raise InvalidInputError(
                f"positions {text} were asked of a store with positions 0 to {self.layout.rows - 1}"
            )

    def _check_commit(self, place: Place, block: int, expected: Commit) -> None:
        """Raises DamagedError where a sealed block is gone, or was extracted again after the seal.

        A repair may have removed it, and a new extraction may have written other last bits into files of the same
        sizes. The block's commit file tells. A copy of a store may hold no commit files: then nothing is compared.
        """
        if self.commits_digest is None:
            return
        key, line = self.layout.commit_key(block), self.sealed_commits.record(block)
        data = place.get(key, limit=COMMIT_LIMIT)
        if data == line or (data is None and not self._has_commits()):
            return
        current = None if data is None else read_commit(self.folder, self.layout, block)
        if current is None or current.shards != expected.shards:
            problem = "is gone" if current is None else "has other shards than the seal lists: it was extracted again"
            advice = f"finish it with kdcache extract and kdcache seal, or look: kdcache verify {self.folder.root}"
            advice = advice if self.folder.lists else self.folder.mend
            raise DamagedError(f"{self.folder.path(key)} {problem}; {advice}")

    def _has_commits(self) -> bool:
        """True where this copy of a sealed store has commit files. Where none can be listed, some are asked for."""
        return self.folder.has_folder(self.layout.commits_prefix) if self.folder.lists else self._has_probed_commits

    @computed_once
    def _has_probed_commits(self) -> bool:
        blocks = range(0, self.layout.blocks, max(self.layout.blocks // PROBED, 1))
        return any(self.folder.size(self.layout.commit_key(block)) is not None for block in blocks)

    def _check_blocks(self, place: Place, blocks: list[int]) -> Mapping[int, Commit]:
        """The segment's commits. Raises MissingBlockError where one of `blocks` has none.

        The commits say what exists, for Zarr returns fill values for a chunk that is missing.
        """
        commits = self.commits()
        for block in blocks:
            if block not in commits:
                raise self._missing_block(block)
            self._check_commit(place, block, commits[block])
        return commits

    def _missing_block(self, block: int) -> MissingBlockError:
        start, stop = self.layout.block_rows(block)
        return MissingBlockError(
            f"{self.layout.name}: positions {start} to {stop - 1} (block {block}) are not committed; "
            "run the same `kdcache extract` again to finish the store"
        )
