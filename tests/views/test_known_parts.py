"""Known parts: a store's samples are found in a data set that grew, among copies too, and changes are named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.views.data_parts import ids_digest, listed_indices, part_of, write_ids
from kdcache.views.known_parts import find_parts, part_indices
from kdcache.views.known_samples import Changes, StoredSamples, changes_between
from tests.kits.views import picture_data


@dataclass(frozen=True)
class Listed:
    """A data set by its ids, labels and one content of each sample."""

    ids: list[str]
    labels: IntArray
    values: list[int]

    @property
    def samples(self) -> "Listed":
        return self

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.zeros((1, 1, 3), "u1"), int(self.labels[index])

    def content(self, index: int) -> bytes:
        return bytes([self.values[index]])

    def probe(self, index: int) -> bytes:
        return self.content(index)


@dataclass(frozen=True)
class Kept:
    """A store of some samples of a data set, which keeps what a store keeps: contents, labels, and digests."""

    data: Listed
    indices: list[int]

    @property
    def rows(self) -> int:
        return len(self.indices)

    @property
    def identity(self) -> Any:
        store = self

        class Identity:
            class dataset:  # noqa: N801
                ids = ids_digest(store.data.ids[index] for index in store.indices)

            class encoding:  # noqa: N801
                contents = "bytes"
                kinds_of_contents = ("bytes",)

        return Identity

    @property
    def order(self) -> IntArray:
        return np.arange(self.rows)[::-1]

    @property
    def labels(self) -> IntArray:
        return self.data.labels[self.indices][::-1].astype(np.int64)

    @property
    def segments(self) -> list[Any]:
        return [self]

    @property
    def folder(self) -> Any:
        return Path("kept.kd")

    @property
    def layout(self) -> Any:
        return type("Layout", (), {"block": self.rows})

    @property
    def views(self) -> range:
        return range(1)

    def commits(self) -> dict[int, None]:
        return {0: None}

    def read(self, view: int, positions: IntArray, names: list[str]) -> Any:
        from kdcache.views.contents import content_fingerprint

        indices = [self.indices[index] for index in self.order[positions]]
        values = [content_fingerprint(self.data, index, None, "bytes") for index in indices]
        return type("Rows", (), {"arrays": {"contents": np.array(values, np.uint32)}})


@st.composite
def divided(draw: st.DrawFn) -> tuple[Listed, list[list[int]]]:
    """A data set, many of whose samples are copies of each other, divided among one to three stores."""
    values = draw(st.lists(st.integers(0, 9), min_size=1, max_size=24))
    owners = draw(st.lists(st.integers(0, 2), min_size=len(values), max_size=len(values)))
    labels = np.array([value % 2 for value in values], dtype=np.int32)
    parts = [[index for index, owner in enumerate(owners) if owner == number] for number in range(3)]
    return Listed([f"id {index}" for index in range(len(values))], labels, values), [part for part in parts if part]


@given(divided())
def test_every_division_is_found_again(case: tuple[Listed, list[list[int]]]) -> None:
    data, parts = case
    found, free = find_parts([Kept(data, part) for part in parts], data)
    assert [None if part is None else part.tolist() for part in found] == parts
    assert not free.any()


@given(divided(), st.data())
def test_what_is_in_no_store_is_free(case: tuple[Listed, list[list[int]]], choice: st.DataObject) -> None:
    data, parts = case
    part = parts[0]
    found, free = find_parts([Kept(data, part)], data)
    assert [None if indices is None else indices.tolist() for indices in found] == [part]
    assert np.flatnonzero(free).tolist() == sorted(set(range(len(data))) - set(part))
    harmed = Listed(data.ids, data.labels, [value + 100 for value in data.values])
    assert find_parts([Kept(harmed, part)], data)[0] == [None]


def test_another_label_or_id_is_no_part() -> None:
    data = Listed(["a", "b", "c"], np.array([0, 1, 0], np.int32), [1, 2, 3])
    relabelled = Listed(data.ids, np.array([0, 0, 0], np.int32), data.values)
    renamed = Listed(["a", "x", "c"], data.labels, data.values)
    from kdcache.views.known_samples import fingerprints_of

    contents = fingerprints_of(data, "bytes")
    assert part_indices(Kept(data, [0, 1]), data, contents) is not None
    assert part_indices(Kept(relabelled, [0, 1]), data, contents) is None
    assert part_indices(Kept(renamed, [0, 1]), data, contents) is None


def changes(before: list[int], after: list[int], *, same_ids: bool = False) -> Changes:
    data = Listed([str(index) for index in range(len(after))], np.zeros(len(after), np.int32), after)
    stored = StoredSamples(
        np.array(before, np.uint32), np.zeros(len(before), np.int64), np.ones(len(before), dtype=bool)
    )
    return changes_between(stored, data, np.array(after, np.uint32), same_ids=same_ids)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1, 2, 3], [1, 2, 9, 3], ([2], [], [], [])),
        ([1, 2, 3], [1, 3], ([], [1], [], [])),
        ([1, 2, 3], [1, 9, 3], ([], [], [1], [])),
        ([1, 2, 3, 4], [2, 3, 4, 1], ([], [], [], [3])),
        ([1, 2, 3], [1, 1, 2, 3], ([1], [], [], [])),
        ([1, 2, 3, 4], [1, 4, 3, 4], ([], [], [1], [])),
        ([1, 2], [1, 2], ([], [], [], [])),
    ],
    ids=["added", "removed", "changed", "moved", "a copy added", "replaced by a copy", "nothing"],
)
def test_changes_have_their_names(before: list[int], after: list[int], expected: tuple[list[int], ...]) -> None:
    result = changes(before, after)
    lists = (result.added, result.removed, result.changed, result.moved)
    assert tuple(indices.tolist() for indices in lists) == expected
    assert result.only_added == bool(expected[0])


@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 5), max_size=20))
def test_changes_count_every_sample(before: list[int], after: list[int]) -> None:
    result = changes(before, after)
    assert len(before) - len(result.removed) - len(result.changed) == (
        len(after) - len(result.added) - len(result.changed)
    )
    new = sorted(after[index] for index in [*result.added.tolist(), *result.changed.tolist()])
    remaining = list(after)
    for value in new:
        remaining.remove(value)
    for value in remaining:
        assert value in before


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), unique=True, min_size=1))
def test_any_ids_survive_their_file(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    """Ids that no file name can be (lone surrogates that stand for no byte) are not written."""
    try:
        for sample_id in ids:
            sample_id.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return
    path = tmp_path_factory.mktemp("ids") / "rows.txt"
    write_ids(path, ids)
    assert listed_indices(path, ids).tolist() == list(range(len(ids)))
    with pytest.raises(InvalidInputError, match="is there already"):
        write_ids(path, ids)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_other_editors_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "rows.txt").write_bytes("кот.png\r\nb.png\r\n".encode(encoding))
    assert listed_indices(tmp_path / "rows.txt", ["a.png", "b.png", "кот.png"]).tolist() == [1, 2]


def test_a_part_is_a_data_set_of_its_own() -> None:
    data = picture_data(20)
    part = part_of(data, np.array([3, 5, 11]))
    assert (len(part), list(part.ids), part.labels.tolist()) == (3, ["3", "5", "11"], data.labels[[3, 5, 11]].tolist())
    assert (part.samples[1][0] == data.samples[5][0]).all()
    assert part.probe(2) == data.probe(11)
    assert getattr(part.samples, "content", None) is None
