"""Struck rows: a sample without an answer is told from every answer, by commit and ticket alike, and is never read."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorstore

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, InvalidInputError, KdcacheError, StoreError
from kdcache.store.commits import Counts
from kdcache.store.manifest import Provenance
from kdcache.store.plan import partners_of
from kdcache.store.segment import Segment
from kdcache.store.shards import encode_shard
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.stores import block_arrays, commit_logits, create_store, make_case, write_store, write_views

Array = npt.NDArray[Any]

ROWS, STRUCK = 200, (3, 70, 90, 199)
KINDS = [
    (5, "none", "plain"),
    (5, "mixup", "residuals"),
    (1, "none", "residuals"),
    (None, "none", "plain"),
    (None, "cutmix", "plain"),
]


def expected(store: Store, view: int) -> Array:
    """[N] True for rows without an answer: a struck sample's, and its partner's in this view."""
    partners = partners_of(store.identity.plan, np.arange(ROWS), view, ROWS)
    return np.isin(np.arange(ROWS), STRUCK) | np.isin(partners, STRUCK)


def raw(store: Store, name: str) -> Array:
    """An array of the one segment by tensorstore, with its axis of positions behind that of views."""
    spec = store.segments[0].layout.arrays[name]
    place = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store.folder.root}/{spec.path}/"}}
    values = np.asarray(tensorstore.open(place, read=True).result().read().result())
    return np.moveaxis(values, spec.block_axis or 1, 1)


@pytest.mark.parametrize(("k", "mix", "packing"), KINDS)
def test_every_array_is_as_the_format_has_it(tmp_path: Path, k: int | None, mix: str, packing: str) -> None:
    case = make_case(ROWS, k=k, mix=mix, packing=packing, features=3, struck=STRUCK)
    store, twin = (
        write_store(tmp_path / "a.kd", case),
        write_store(tmp_path / "b.kd", make_case(ROWS, k=k, mix=mix, packing=packing, features=3)),
    )
    struck = np.stack([expected(store, view) for view in (0, 1)])
    assert struck.sum() == 2 * len(STRUCK) * (1 if mix == "none" else 2)
    for name in store.segments[0].layout.arrays:
        values, answers = raw(store, name), raw(twin, name)
        rows = struck[:, : values.shape[1]]
        if name == "logits":
            assert set(values[rows].view("u2").ravel().tolist()) == {0x7E00}
        else:
            assert (values[rows] == {"classes": 30, "label": 65535}.get(name, 0)).all(), name
        np.testing.assert_array_equal(values[~rows], answers[~rows], err_msg=name)


@pytest.mark.parametrize(("k", "mix", "packing"), KINDS)
def test_a_reader_lists_them_and_refuses_them(tmp_path: Path, k: int | None, mix: str, packing: str) -> None:
    store = write_store(tmp_path / "a.kd", make_case(ROWS, k=k, mix=mix, packing=packing, struck=STRUCK))
    twin = write_store(tmp_path / "b.kd", make_case(ROWS, k=k, mix=mix, packing=packing))
    listed = Store.open_for_writing(tmp_path / "a.kd")
    for view in (0, 1):
        struck = np.flatnonzero(expected(store, view))
        assert store.struck(view).tolist() == listed.struck(view).tolist() == struck.tolist()
        assert twin.struck(view).tolist() == []
        answered = np.setdiff1d(np.arange(ROWS), struck)[::-1]
        for name, values in store.load(view, answered).arrays.items():
            np.testing.assert_array_equal(values, twin.load(view, answered).arrays[name], err_msg=name)
        with pytest.raises(
            InvalidInputError, match=rf"view {view} has no answer at positions {struck[0]}, .* leave out"
        ):
            store.read(view, np.arange(ROWS))
        for position in struck.tolist():
            with pytest.raises(
                InvalidInputError, match=rf"positions {position}, which are struck.*Store\.struck\({view}\)"
            ):
                store.load(view, [position])
    assert store.segments[0].struck().tolist() == list(STRUCK)


def test_a_commit_lists_samples_and_is_as_ever_without_any(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(ROWS, mix="mixup", struck=STRUCK))
    commits = [json.loads(commit.to_bytes()) for commit in store.segments[0].commits().values()]
    assert [commit.get("struck") for commit in commits] == [[3], [70, 90], None, [199]]
    assert all(
        commit["rows"] == 2 * len(range(*store.segments[0].layout.block_rows(commit["block"]))) for commit in commits
    )
    fields = {"block", "counts", "mixed", "provenance", "rows", "shards"}
    assert set(commits[2]) == fields
    assert set(commits[0]) == fields | {"struck"}


def test_a_sealed_store_parses_only_the_commits_that_strike(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(ROWS, struck=(70,)))
    assert store.struck(0).tolist() == [70]
    assert list(store.segments[0].sealed_commits._parsed) == [1]


def write_one(store: Store, segment: Segment, logits: Array, struck: Any, *, adopt: bool = False) -> Any:
    arrays = block_arrays(store, segment, 1, logits)
    return segment.commit(1, arrays=arrays, counts=Counts(), provenance=Provenance(), adopt=adopt, struck=struck)


@pytest.mark.parametrize(
    ("struck", "error"),
    [
        ([63], r"positions 63 were struck in block 1 of .*, which holds 64 to 127"),
        ([70, 128], r"positions 70, 128 were struck in block 1"),
        ([-1], r"positions -1 were struck"),
    ],
)
def test_only_a_block_s_own_positions_are_struck(tmp_path: Path, struck: list[int], error: str) -> None:
    case = make_case(ROWS)
    store = create_store(tmp_path / "a.kd", case)
    segment = store.add_segment(ViewSpan(0, 2))
    with pytest.raises(InvalidInputError, match=error):
        write_one(store, segment, case.logits, struck)
    assert segment.commits() == {}


def test_a_block_strikes_a_thousand_at_most(tmp_path: Path) -> None:
    case = make_case(64 * 2048, classes=3, k=1, views=1)
    store = create_store(tmp_path / "a.kd", case)
    segment = store.add_segment(ViewSpan(0, 1))
    assert segment.layout.block == 2048
    start = 2048
    with pytest.raises(StoreError, match=r"1001 samples of block 1 cannot be decoded, allowed are 1000 a block; mend"):
        write_one(store, segment, case.logits, range(start, start + 1001))
    assert len(write_one(store, segment, case.logits, range(start, start + 1000)).struck) == 1000
    assert len(store.struck(0)) == 1000


def test_ids_of_65536_classes_leave_no_number_for_the_mark(tmp_path: Path) -> None:
    for classes, fits in ((65_535, True), (65_536, False), (65_537, True)):
        case = make_case(70, classes=classes, k=2, views=1)
        store = create_store(tmp_path / f"{classes}.kd", case)
        segment = store.add_segment(ViewSpan(0, 1))
        if not fits:
            with pytest.raises(InvalidInputError, match=r"no number that marks a struck row: it holds uint16.*65536"):
                write_one(store, segment, case.logits, [66])
        else:
            assert write_one(store, segment, case.logits, [66]).struck == (66,)
            assert store.struck(0).tolist() == [66]


def rewrite_ticket(store: Store, rows: Any, value: float) -> None:
    """Other values in some rows of block 1's ticket, under a commit that says so."""
    segment = Store.open_for_writing(store.folder.root).segments[0]
    name, spec = next(iter(segment.layout.arrays.items()))
    values = np.asarray(raw(store, name)[:, 64:128]).copy()
    values[rows] = value
    data = encode_shard(spec, values)
    path = Path(store.folder.root, spec.key(1))
    path.write_bytes(data)
    commit = json.loads(Path(store.folder.root, segment.layout.commit_key(1)).read_bytes())
    commit["shards"][name] = {"sha256": sha256_hex(data), "size": len(data)}
    Path(store.folder.root, segment.layout.commit_key(1)).write_bytes(canonical_json(commit))


@pytest.mark.parametrize("k", [5, None])
@pytest.mark.parametrize("case", ["a row that is not struck is marked", "a struck row is answered", "half a mark"])
def test_marks_and_commit_must_agree(tmp_path: Path, k: int | None, case: str) -> None:
    store = create_store(tmp_path / "a.kd", made := make_case(ROWS, k=k))
    write_views(store, 0, made.logits, struck=(70, 90))
    mark = 30.0 if k else np.nan
    changes: dict[str, tuple[Any, float]] = {
        "a row that is not struck is marked": ((0, 80 - 64), mark),
        "a struck row is answered": ((1, 70 - 64), 1.0),
        "half a mark": ((1, 90 - 64, 1), 1.0),
    }
    rewrite_ticket(store, *changes[case])
    opened = Store.open(tmp_path / "a.kd")
    with pytest.raises(
        DamagedError, match=r"is marked and not struck|holds class id 30|struck by the commit and holds"
    ):
        opened.read(0 if "not struck" in case else 1, [100])
    findings = inspect_files(str(tmp_path / "a.kd")).findings
    assert [finding.block for finding in findings] == [("views-00000-00002", 1)]
    assert opened.read(0, [0, 199]).logits.shape[0] == 2  # other blocks stay readable


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_an_adopted_ticket_brings_its_struck_rows(tmp_path: Path, mix: str) -> None:
    """The first writer could not decode two samples and died; the next one can, and keeps to the ticket."""
    case = make_case(ROWS, mix=mix)
    store = create_store(tmp_path / "a.kd", case)
    segment = store.add_segment(ViewSpan(0, 2))
    assert commit_logits(store, segment, 1, case.logits, struck=(70, 90)) is not None
    first = {name: raw(store, name) for name in segment.layout.rowwise}
    for name in segment.layout.rowwise[1:]:
        Path(store.folder.root, segment.layout.arrays[name].key(1)).unlink()
    Path(store.folder.root, segment.layout.commit_key(1)).unlink()
    assert write_one(store, segment, case.logits, ()) is None
    commit = write_one(store, segment, case.logits, (), adopt=True)
    assert (commit.mixed, commit.struck) == (True, (70, 90))
    for name, values in first.items():
        np.testing.assert_array_equal(raw(store, name), values, err_msg=name)
    assert inspect_files(str(tmp_path / "a.kd")).findings == ()


def test_a_ticket_with_answers_is_not_struck_afterwards(tmp_path: Path) -> None:
    case = make_case(ROWS)
    store = create_store(tmp_path / "a.kd", case)
    segment = store.add_segment(ViewSpan(0, 2))
    assert commit_logits(store, segment, 1, case.logits) is not None
    Path(store.folder.root, segment.layout.commit_key(1)).unlink()
    with pytest.raises(StoreError, match=r"another writer could decode positions 71 of block 1, this one could not"):
        write_one(store, segment, case.logits, [71], adopt=True)
    assert segment.commits() == {}


def test_a_ticket_that_no_strikes_give_is_not_adopted(tmp_path: Path) -> None:
    case = make_case(ROWS)
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits)
    rewrite_ticket(store, (0, 5), 30)  # in one view, though nothing is mixed
    segment = Store.open_for_writing(tmp_path / "a.kd").segments[0]
    Path(store.folder.root, segment.layout.commit_key(1)).unlink()
    with pytest.raises(DamagedError, match=r"classes/c/0/1/0 marks rows that no struck samples give; delete this file"):
        write_one(store, segment, case.logits, (), adopt=True)


def test_a_block_may_have_no_answer_at_all(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(ROWS, mix="mixup", struck=tuple(range(64, 128))))
    assert store.struck(1).tolist() == list(range(64, 128))
    with pytest.raises(KdcacheError, match=r"positions 64, 65, 66, 67, 68, 69, 70, 71 and 56 more, which are struck"):
        store.read(0, np.arange(ROWS))
    assert inspect_files(str(tmp_path / "a.kd")).whole


def test_the_mark_of_all_logits_is_any_nan(tmp_path: Path) -> None:
    """A stranger's NaN may have other bits."""
    store = create_store(tmp_path / "a.kd", case := make_case(ROWS, k=None))
    write_views(store, 0, case.logits, struck=(70,))
    (other,) = np.frombuffer(struct.pack("<H", 0xFE01), dtype="<f2")
    rewrite_ticket(store, (slice(None), 70 - 64), other)
    assert inspect_files(str(tmp_path / "a.kd")).whole
    assert len(store.read(0, [69, 71]).logits) == 2
