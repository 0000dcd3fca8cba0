"""Commits: the record that a block is whole, how it is read, and all of them in one file at a seal."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, FailFast, Field, StrictInt

from kdcache.base.arrays import Array
from kdcache.base.limits import COMMIT_LEAST, COMMIT_LIMIT, COMMITS_LIMIT, MIB, STRUCK_MAX
from kdcache.base.parallel import many
from kdcache.base.records import Record, shorten
from kdcache.errors import DamagedError, MissingBlockError, StoreError
from kdcache.places.place import Place
from kdcache.store.id_sums import PRIME
from kdcache.store.layout import SegmentLayout
from kdcache.store.provenance import Provenance
from kdcache.store.shards import check_shard

IdSum = Annotated[StrictInt, Field(ge=0, lt=PRIME)]
COMMIT_NAME = re.compile(r"([0-9]{6,15})\.json")


class Shard(Record):
    """One file of a block: its sha256 and its size in bytes."""

    sha256: str
    size: int


class Counts(Record):
    """Numbers of rows, counted while a block was extracted. A row is a (position, view) pair. Later versions may count
    more."""

    model_config = ConfigDict(frozen=True, extra="allow")

    clamped: int = 0
    labelled: int = 0
    correct: int = 0

    @classmethod
    def of(cls, label: Array, clamped: int) -> Self:
        """Counts from the distances [..., L] of hard labels to the top logit, NaN for none. A row is correct where one
        of its labels has the top logit."""
        labelled = ~np.isnan(label)
        nearest = label.min(axis=-1, initial=np.inf, where=labelled)
        return cls(clamped=clamped, labelled=int(labelled.any(axis=-1).sum()), correct=int((nearest == 0).sum()))


class Commit(Record):
    """The record that a block is whole; `mixed` says that it adopted another writer's differing shard. `struck` are the
    positions of samples without an answer, ascending. `ids`: as from `id_sums`, empty where the writer had no ids."""

    LATER: ClassVar[tuple[str, ...]] = ("struck", "ids")

    block: int
    rows: int
    shards: dict[str, Shard]
    counts: Counts
    mixed: bool = False
    struck: Annotated[tuple[StrictInt, ...], FailFast(), Field(min_length=1, max_length=STRUCK_MAX)] = ()
    ids: tuple[()] | tuple[IdSum, IdSum] = ()
    provenance: Provenance


def require_rows(folder: Place, layout: SegmentLayout, name: str, block: int, data: bytes) -> None:
    """Raises DamagedError where the bytes under a shard's key do not decode to the rows of its block."""
    spec = layout.arrays[name]
    try:
        check_shard(spec, data)
    except (ValueError, RuntimeError) as error:
        path = folder.path(spec.key(block))
        advice = f"delete this file, or run: kdcache verify {folder.root} --repair; then extract again"
        raise DamagedError(f"{path} was left there torn, it does not decode ({error}); {advice}") from error


def read_commit(folder: Place, layout: SegmentLayout, block: int) -> Commit | None:
    """The commit of one block, or None. Raises FormatError or DamagedError for a record that is not this block's."""
    key = layout.commit_key(block)
    data = folder.get(key, limit=COMMIT_LIMIT)
    return None if data is None else _parse(data, layout, block, str(folder.path(key)))


def list_commits(folder: Place, layout: SegmentLayout) -> dict[int, Commit]:
    """Every commit of a segment, by listing: for writers and for stores without a seal."""
    commits = {block: read_commit(folder, layout, block) for block in listed_blocks(folder, layout)}
    return {block: commit for block, commit in commits.items() if commit is not None}


def listed_blocks(folder: Place, layout: SegmentLayout) -> Iterator[int]:
    """Blocks of the commit files that lie there. Other files are passed over: file managers and network file systems
    leave files of their own."""
    for key in folder.keys(layout.commits_prefix):
        if name := COMMIT_NAME.fullmatch(key.rsplit("/", 1)[-1]):
            yield int(name[1])


def uncommitted(folder: Place, layout: SegmentLayout, blocks: Sequence[int]) -> list[int]:
    """Those of some blocks that have no commit file. Each is asked for alone, nothing is listed."""
    sizes = many(lambda block: folder.size(layout.commit_key(block)), blocks, far=folder.far)
    return [block for block, size in zip(blocks, sizes, strict=True) if size is None]


def commits_bytes(commits: Mapping[int, Commit], layout: SegmentLayout) -> bytes:
    """All commits of a whole segment as JSON lines, in the order of blocks. Raises MissingBlockError."""
    if count := layout.blocks - len(commits):
        first = next(block for block in range(layout.blocks) if block not in commits)
        raise MissingBlockError(
            f"{layout.name}: {count} of {layout.blocks} blocks have no commit, the first is {first}; "
            "run the same `kdcache extract` again to finish them"
        )
    data = b"".join(commits[block].to_bytes() for block in range(layout.blocks))
    if len(data) > COMMITS_LIMIT:
        problem = f"the commits of {layout.name} take {len(data)} bytes in one file, allowed are {COMMITS_LIMIT}"
        raise StoreError(f"{problem}; seal a store of fewer blocks: fewer views a pass make larger blocks")
    return data


class SealedCommits(Mapping[int, Commit]):
    """The commits of a sealed segment, from the bytes of its one file. A commit is parsed when it is asked for."""

    def __init__(self, data: bytes, layout: SegmentLayout, name: str) -> None:
        lines = data.count(b"\n")
        if lines != layout.blocks or len(data) < COMMIT_LEAST * lines:
            problem = f"lists {lines} blocks in {len(data)} bytes, the segment has {layout.blocks}"
            raise DamagedError(f"{name} {problem}; restore the file")
        self._data, self._ends = data, _line_ends(data)
        self._layout = layout
        self._name = name
        self._parsed: dict[int, Commit] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __contains__(self, block: object) -> bool:
        return isinstance(block, int) and 0 <= block < len(self)

    def to_bytes(self) -> bytes:
        """The file as it was sealed."""
        return self._data[: self._ends[-1]]

    def record(self, block: int) -> bytes:
        """The bytes of a block's commit file, as they were sealed."""
        return self._data[self._ends[block - 1] if block else 0 : self._ends[block]]

    @property
    def struck(self) -> tuple[int, ...]:
        """Positions of all struck samples, ascending. Commits that have none are not parsed."""
        word = b'"struck"'
        blocks = (block for block in self if word in self.record(block)) if word in self._data else ()
        return tuple(position for block in blocks for position in self[block].struck)

    def __getitem__(self, block: int) -> Commit:
        if block not in self:
            raise KeyError(block)
        if block not in self._parsed:
            self._parsed[block] = _parse(self.record(block), self._layout, block, self._name)
        return self._parsed[block]


def _line_ends(data: bytes) -> npt.NDArray[np.int64]:
    """End [lines] i64 of each line in `data`, its newline included. Found piece by piece, so that little memory is held
    beside the data."""
    ends = [
        np.flatnonzero(np.frombuffer(data[start : start + 16 * MIB], dtype=np.uint8) == ord("\n")) + start + 1
        for start in range(0, len(data), 16 * MIB)
    ]
    return np.concatenate(ends).astype(np.int64)


def _parse(data: bytes, layout: SegmentLayout, block: int, name: str) -> Commit:
    commit = Commit.from_bytes(data, name)
    in_range = 0 <= block < layout.blocks
    expected = set(layout.arrays_of(block)) if in_range else set()
    if commit.block != block or set(commit.shards) != expected:
        text = f"block {commit.block} with {sorted(commit.shards)}"
        raise DamagedError(f"{name} is of {text}, expected block {block} with {sorted(expected)}; restore the file")
    start, stop = layout.block_rows(block)
    if commit.rows != (rows := (stop - start) * len(layout.views)):
        raise DamagedError(f"{name} says {commit.rows} rows of block {block}, it has {rows}; restore the file")
    places = (start - 1, *commit.struck, stop)
    if any(upper <= lower for lower, upper in pairwise(places)):
        text = f"strikes {shorten(commit.struck)}, allowed are ascending positions {start} to {stop - 1}"
        raise DamagedError(f"{name} {text}; restore the file")
    return commit


def totals(commits: Mapping[int, Commit]) -> dict[str, int]:
    """Sums over all commits: rows, bytes, clamped, labelled and correct rows, struck samples, mixed blocks."""
    values = list(commits.values())
    return {
        "rows": sum(commit.rows for commit in values),
        "bytes": sum(shard.size for commit in values for shard in commit.shards.values()),
        "clamped": sum(commit.counts.clamped for commit in values),
        "labelled": sum(commit.counts.labelled for commit in values),
        "correct": sum(commit.counts.correct for commit in values),
        "struck": sum(len(commit.struck) for commit in values),
        "mixed_blocks": sum(commit.mixed for commit in values),
    }
