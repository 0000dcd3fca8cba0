"""Limits: what could not be opened again is not written, and a store without rights to write or list is read."""

import os
import traceback
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, FormatError, InvalidInputError, StoreError
from kdcache.store.commits import SealedCommits
from kdcache.store.manifest import Card, Identity
from kdcache.store.segment_layout import segment_layout
from kdcache.store.store import Store
from tests.kits.attacks import in_child
from tests.kits.stores import Case, create_store, make_case, write_store

NOBODY = 65534


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("dataset", {"class_names": ["name"] * 2**20}, "some 10.* values, allowed are 1048576"),
        ("views", {"transform": {"name": "x" * 2**24}}, "bytes, allowed are 16777216"),
    ],
)
def test_what_could_not_be_opened_again_is_not_written(tmp_path: Path, family: str, change: object, said: str) -> None:
    case = make_case(70)
    record = case.identity.model_dump(mode="json")
    record[family] = {**record[family], **change}  # type: ignore[dict-item]
    other = Case(Identity.model_validate(record), case.order, case.labels, case.logits)
    with pytest.raises(FormatError, match=said):
        create_store(tmp_path / "a.kd", other)
    assert not (tmp_path / "a.kd").exists()


def test_lines_that_are_too_short_for_commits_are_refused_before_they_are_found() -> None:
    layout = segment_layout(make_case(300).identity, ViewSpan(0, 1))
    with pytest.raises(DamagedError, match="lists 5 blocks in 5 bytes, the segment has 5"):
        SealedCommits(b"\n" * layout.blocks, layout, "commits.jsonl")


def test_sealed_commits_are_the_files_of_their_blocks(tmp_path: Path) -> None:
    segment = write_store(tmp_path / "a.kd", make_case(300)).segments[0]
    files = [(tmp_path / "a.kd" / segment.layout.commit_key(block)).read_bytes() for block in range(5)]
    assert [segment.sealed_commits.record(block) for block in range(5)] == files
    assert segment.sealed_commits.to_bytes() == b"".join(files)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ({"name": "full"}, "a row takes 2000000 bytes"),
        ({"name": "topk", "k": 300_000}, "a row takes 1200000 bytes"),
        ({"name": "topk", "k": 5, "features": 2**20}, "a row takes 2097152 bytes"),
        ({"name": "topk", "k": 5, "head": 100}, "the head takes 400000000 bytes"),
    ],
)
def test_rows_and_heads_that_are_too_large_are_refused(encoding: dict[str, object], said: str) -> None:
    record = make_case(70).identity.model_dump(mode="json")
    record["teacher"]["classes"] = 1_000_000
    with pytest.raises(ValueError, match=said):
        Identity.model_validate({**record, "encoding": encoding})


def test_a_card_and_views_have_a_limit(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(70))
    with pytest.raises(InvalidInputError, match=r"the card has .* bytes, allowed are 1048576"):
        store.write_card(Card(notes="x" * 2**20))
    with pytest.raises(InvalidInputError, match="views go from 0 to 100000"):
        store.add_segment(ViewSpan(99_999, 100_001))


def _as_nobody(path: str, pinned: str) -> str:
    """Open and read a store as somebody who may neither write nor list; what went wrong, or nothing."""
    try:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        for url in (path, pinned):
            store = Store.open(url)
            assert store.read(1, np.arange(store.rows)).logits.shape == (130, 5)
            assert len(store.order) == len(store.labels) == 130
        try:
            store.seal()
        except StoreError:
            return ""
        return "a store was sealed in a folder that may not be written"
    except BaseException:  # noqa: BLE001
        return traceback.format_exc()


@pytest.mark.parametrize("mode", [0o555, 0o111], ids=["read-only", "no listing"])
def test_a_sealed_store_is_read_without_rights_to_write_or_list(tmp_path: Path, mode: int) -> None:
    store = write_store(tmp_path / "a.kd", make_case(130))
    folders = [tmp_path / "a.kd", *(path for path in (tmp_path / "a.kd").rglob("*") if path.is_dir())]
    for above in (tmp_path, *tmp_path.parents[:3]):  # pytest's own folders are closed to others
        above.chmod(above.stat().st_mode | 0o111) if os.stat(above).st_uid == os.getuid() else None
    for folder in folders:
        folder.chmod(mode)
    try:
        assert in_child(_as_nobody, str(tmp_path / "a.kd"), f"{tmp_path / 'a.kd'}@{store.content_id}") == ""
    finally:
        for folder in folders:
            folder.chmod(0o755)
