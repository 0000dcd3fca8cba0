"""seals: a content id names one store for ever; opening by it lists nothing and writes nothing."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.errors import (
    DamagedError,
    FormatError,
    InvalidInputError,
    MissingBlockError,
    StoreError,
    StoreNotFoundError,
)
from kdcache.places.folder import Folder
from kdcache.store.seals import split_pin
from kdcache.store.shards import encode_shard
from kdcache.store.store import Store
from tests.kits.stores import all_files, block_arrays, commit_logits, create_store, make_case, write_store, write_views

ROWS = 130
CASE = make_case(ROWS, views=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sealed store of views 0 and 1."""
    store = create_store(tmp_path / "a.kd", CASE)
    write_views(store, 0, CASE.logits[:2])
    store.seal()
    return tmp_path / "a.kd"


def content_id(path: Path) -> str:
    found = Store.open(path).content_id
    assert found is not None
    return found


def test_the_content_id_is_the_sha256_of_the_seal(path: Path) -> None:
    pin = content_id(path)
    assert len(pin) == 64
    assert sha256_hex((path / f"kdcache/seals/{pin[:32]}.json").read_bytes()) == pin
    assert (path / "kdcache/seals/latest").read_text() == pin + "\n"


def test_sealing_again_changes_nothing(path: Path) -> None:
    before = all_files(path)
    Store.open_for_writing(path).seal()
    assert all_files(path) == before


def test_the_content_id_covers_the_content(path: Path, tmp_path: Path) -> None:
    one_logit = CASE.logits[:2].copy()
    one_logit[1, 77, 3] += 9.0
    store = create_store(tmp_path / "b.kd", CASE)
    write_views(store, 0, one_logit)
    assert store.seal().content_id != content_id(path)


@pytest.mark.parametrize("digits", [64, 40, 32, 31, 8, 1])
def test_a_pin_may_be_long_or_short(path: Path, digits: int) -> None:
    pin = content_id(path)
    store = Store.open(f"{path}@{pin[:digits]}")
    assert store.content_id == pin
    assert len(store.read(1, np.arange(ROWS)).logits) == ROWS


def test_an_unknown_pin_is_refused(path: Path) -> None:
    pin = content_id(path)
    other = "".join("0" if digit == "f" else "f" for digit in pin)
    for unknown in (other, other[:32], other[:8]):
        with pytest.raises(StoreNotFoundError, match=f"{unknown}"):
            Store.open(f"{path}@{unknown}")
    with pytest.raises(DamagedError):  # the first 32 digits are known, the rest are another store's
        Store.open(f"{path}@{pin[:32]}{other[32:]}")


def test_a_short_pin_that_names_two_seals_is_refused(path: Path) -> None:
    pin = content_id(path)
    shutil.copy(path / f"kdcache/seals/{pin[:32]}.json", path / f"kdcache/seals/{pin[:4]}{'0' * 28}.json")
    with pytest.raises(StoreNotFoundError, match=r"names 2 seals.*give more digits"):
        Store.open(f"{path}@{pin[:4]}")


def test_an_at_sign_may_be_part_of_a_path(tmp_path: Path) -> None:
    store = write_store(tmp_path / "me@abc", make_case(70))
    assert Store.open(tmp_path / "me@abc").content_id == store.content_id
    assert Store.open(f"{tmp_path / 'me@abc'}@{store.content_id}").content_id == store.content_id
    assert split_pin("user@host/a.kd") == ("user@host/a.kd", None)
    assert split_pin("a.kd@0123abcd") == ("a.kd", "0123abcd")
    assert split_pin("a.kd@0123ABCD") == ("a.kd", "0123abcd")
    assert split_pin("a.kd@") == ("a.kd@", None)


def test_a_pin_may_be_in_capitals(path: Path) -> None:
    pin = content_id(path)
    for capitals in (pin.upper(), pin.upper()[:32], pin.upper()[:12]):
        assert Store.open(f"{path}@{capitals}").content_id == pin


def test_more_views_are_another_segment_and_another_seal(path: Path) -> None:
    early, before = content_id(path), all_files(path)
    store = Store.open_for_writing(path)
    write_views(store, 2, CASE.logits[2:4])
    assert Store.open(path).every_view == (0, 1)  # unsealed views are not shown
    late = store.seal().content_id
    write_views(Store.open_for_writing(path), 4, CASE.logits[4:])
    assert Store.open(path).every_view == (0, 1, 2, 3)
    assert Store.open(f"{path}@{early}").every_view == (0, 1)
    assert Store.open(f"{path}@{late}").every_view == (0, 1, 2, 3)
    assert Store.open_for_writing(path).every_view == (0, 1, 2, 3, 4)
    with pytest.raises(InvalidInputError, match="no view 2"):
        Store.open(f"{path}@{early}").read(2, np.array([0]))
    after = all_files(path)
    assert {name for name in before if after[name] != before[name]} == {"kdcache/seals/latest"}
    for view in range(4):
        top = CASE.logits[view].argmax(axis=1)
        np.testing.assert_array_equal(Store.open(path).read(view, np.arange(ROWS)).classes[:, 0], top)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 3), (1, 2), (0, 5)])
def test_overlapping_views_are_refused(path: Path, start: int, stop: int) -> None:
    before = all_files(path)
    with pytest.raises(InvalidInputError, match=f"views {start}:{stop} overlap views-00000-00002.*from 2 on"):
        Store.open_for_writing(path).add_segment(ViewSpan(start, stop))
    assert all_files(path) == before
    assert Store.open_for_writing(path).add_segment(ViewSpan(0, 2)).layout.name == "views-00000-00002"


def test_nothing_to_seal_is_refused(tmp_path: Path) -> None:
    store = create_store(tmp_path / "a.kd", CASE)
    with pytest.raises(MissingBlockError, match="no segment to seal"):
        store.seal()


def test_a_sealed_store_opens_without_listing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = content_id(path)

    def refuse(*_: object) -> Iterator[str]:
        raise AssertionError("a sealed store was listed")

    shutil.rmtree(path / "kdcache/views-00000-00002/commits")  # the seal's one file holds them all
    monkeypatch.setattr(Folder, "keys", refuse)
    monkeypatch.setattr(Folder, "folders", refuse)
    for url in (str(path), f"{path}@{pin}", f"{path}@{pin[:32]}"):
        store = Store.open(url, expect=CASE.identity)
        assert store.every_view == (0, 1)
        assert len(store.labels) == len(store.order) == ROWS
        assert len(store.read(0, np.array([129, 0, 64])).logits) == 3
        assert store.segments[0].canary(0).shape == (64, 3, 8, 8)


def test_a_read_only_tree_is_enough(path: Path) -> None:
    """Permissions stop an ordinary user; for root, the times of all files and folders tell whether one was written."""
    tree = [path, *path.rglob("*")]
    for place in tree:
        place.chmod(0o555 if place.is_dir() else 0o444)
    before = {place: os.stat(place).st_mtime_ns for place in tree}
    try:
        store = Store.open(path)
        assert len(store.labels) == ROWS
        for view in store.every_view:
            assert len(store.read(view, np.arange(ROWS)).logits) == ROWS
        assert {place: os.stat(place).st_mtime_ns for place in [path, *path.rglob("*")]} == before
    finally:
        for place in tree:
            place.chmod(0o755 if place.is_dir() else 0o644)


def test_an_altered_seal_is_refused(path: Path) -> None:
    pin = content_id(path)
    seal = path / f"kdcache/seals/{pin[:32]}.json"
    whole = seal.read_bytes()
    for altered in (whole.replace(b"[0,2]", b"[0,1]"), whole[:-1], b"", b"{}"):
        assert altered != whole
        seal.write_bytes(altered)
        for url in (str(path), f"{path}@{pin}", f"{path}@{pin[:8]}"):
            with pytest.raises(DamagedError, match="content id"):
                Store.open(url)
    seal.unlink()
    with pytest.raises(StoreNotFoundError, match="no seal"):
        Store.open(path)


def test_a_seal_whose_digests_do_not_follow_is_refused(path: Path) -> None:
    """Named by its own sha256, but its segment is not what the digest says."""
    seal = Store.open(path).seal_record
    assert seal is not None
    entry = seal.segments[0].model_copy(update={"commits": "0" * 64})
    forged = seal.model_copy(update={"segments": (entry,)})
    Folder(path).put_same(f"kdcache/seals/{forged.content_id[:32]}.json", forged.to_bytes())
    with pytest.raises(DamagedError, match="the digest of views-00000-00002 does not follow"):
        Store.open(f"{path}@{forged.content_id}")


ENTRY = {"commits": "0" * 64, "digest": "0" * 64}
FORGED: list[tuple[str, Any]] = [
    ("segments", [{**ENTRY, "views": [2, 2]}]),
    ("segments", [{**ENTRY, "views": [3, 1]}]),
    ("segments", [{**ENTRY, "views": [-1, 2]}]),
    ("segments", [{**ENTRY, "views": [0, 100_001]}]),
    ("segments", [{**ENTRY, "views": [4, 6]}, {**ENTRY, "views": [0, 5]}]),
    ("segments", [{**ENTRY, "views": [0, 2]}] * 2),
    ("segments", [{**ENTRY, "views": [0, 2], "commits": "../" * 21 + "x"}]),
    ("segments", [{**ENTRY, "views": [0, 2], "digest": "A" * 64}]),
    ("identity", "0" * 63),
    ("order", "0" * 64 + "\n"),
    ("labels", ""),
    ("head", "g" * 64),
]


@pytest.mark.parametrize(("field", "value"), FORGED, ids=str)
def test_a_seal_with_fields_that_none_holds_is_refused(path: Path, field: str, value: Any) -> None:
    """Named by its own sha256, so that only its fields can give it away."""
    seal = Store.open(path).seal_record
    assert seal is not None
    data = canonical_json({**seal.model_dump(mode="json"), field: value})
    Folder(path).put_new(f"kdcache/seals/{sha256_hex(data)[:32]}.json", data)
    with pytest.raises(FormatError, match=f"{sha256_hex(data)[:32]}.json: .*{field if field != 'segments' else ''}"):
        Store.open(f"{path}@{sha256_hex(data)}")


@pytest.mark.parametrize("latest", [b"", b"\xff\n", b"0" * 64, b"../../etc/passwd", b"\0"])
def test_an_altered_pointer_is_refused(path: Path, latest: bytes) -> None:
    (path / "kdcache/seals/latest").write_bytes(latest)
    with pytest.raises(StoreError, match="seal"):
        Store.open(path)


def test_a_seal_of_another_store_is_refused(path: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "b.kd", make_case(ROWS, seed=5))
    shutil.copytree(tmp_path / "b.kd/kdcache/seals", path / "kdcache/seals", dirs_exist_ok=True)
    with pytest.raises(DamagedError, match="seals identity"):
        Store.open(f"{path}@{other.content_id}")


def test_a_sealed_block_that_was_extracted_again_is_not_shown_as_the_sealed_one(tmp_path: Path) -> None:
    """Other last bits may fit into files of the very same sizes; checksums inside them are right."""
    case = make_case(70, 8, 2, views=1)
    other = case.logits.copy()
    other[0, 3] = other[0, 3, ::-1]
    sealed = write_store(tmp_path / "a.kd", case)
    rows = sealed.load(0, np.arange(70)).arrays
    layout = sealed.segments[0].layout
    sizes = {name: sealed.folder.size(spec.key(0)) for name, spec in layout.arrays.items()}
    store = Store.open_for_writing(tmp_path / "a.kd")
    for spec in layout.arrays.values():
        store.folder.delete(spec.key(0))
    store.folder.delete(layout.commit_key(0))
    arrays = block_arrays(store, store.segments[0], 0, other)
    for name, spec in layout.arrays.items():
        store.folder.put_new(spec.key(0), encode_shard(spec, arrays[name]))
    assert sizes == {name: store.folder.size(spec.key(0)) for name, spec in layout.arrays.items()}
    for said in ("is gone", "was extracted again"):
        with pytest.raises(DamagedError, match=rf"000000\.json .*{said}.*kdcache verify"):
            Store.open(f"{store.folder.root}@{sealed.content_id}").load(0, np.arange(70))
        assert commit_logits(store, store.segments[0], 0, other) is not None
    shutil.rmtree(tmp_path / "a.kd" / layout.commits_prefix)
    copy = write_store(tmp_path / "b.kd", case)
    shutil.rmtree(tmp_path / "b.kd" / layout.commits_prefix)
    read = Store.open(copy.folder.root).load(0, np.arange(70)).arrays  # a copy may leave the commit files out
    assert all(np.array_equal(read[name], rows[name]) for name in rows)
