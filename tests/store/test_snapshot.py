"""Snapshots: a store as one listing shows it, in a folder and in a bucket, and sealed from it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kdcache.errors import MissingBlockError
from kdcache.places.bucket import Bucket
from kdcache.sharing.push_pull import push
from kdcache.store.store import Store
from tests.kits.bucket import Proxy
from tests.kits.listings import counted
from tests.kits.stores import Case, create_store, make_case, write_store, write_views


def test_a_snapshot_shows_what_one_listing_showed(tmp_path: Path) -> None:
    case = make_case(200)
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits, blocks=(0, 2))
    with counted() as counts:
        snapshot = store.snapshot()
        write_views(store, 0, case.logits, blocks=(1,))
        assert sorted(snapshot.segments[0].commits()) == [0, 2]
        assert snapshot.segments[0].find_commit(1) is None
        assert len(snapshot.load(0, np.array([0, 150])).positions) == 2
        with pytest.raises(MissingBlockError, match="block 1"):
            snapshot.read(0, np.array([70]))
    assert counts["listings"] == 1
    assert sorted(store.segments[0].commits()) == [0, 1, 2]


def test_a_snapshot_of_some_blocks_lists_nothing(tmp_path: Path) -> None:
    case = make_case(200)
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits, blocks=(0, 2))
    with counted() as counts:
        snapshot = store.snapshot((0, 1))
        assert sorted(snapshot.segments[0].commits()) == [0]
        assert store.segments[0].uncommitted([0, 1, 2, 3]) == [1, 3]
        assert len(snapshot.load(1, np.array([5])).positions) == 1
    assert counts["listings"] == 0


def test_a_sealed_store_is_its_own_snapshot(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(200))
    assert store.snapshot().content_id == store.content_id
    assert store.snapshot().segments == store.segments


def test_a_snapshot_is_sealed_without_another_listing(tmp_path: Path) -> None:
    case = make_case(200)
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits)
    snapshot = store.snapshot()
    with counted() as counts:
        sealed = snapshot.seal()
    assert counts["listings"] == 0
    assert sealed == store.seal()


def test_a_snapshot_of_a_store_that_was_replaced_is_not_what_is_sealed(tmp_path: Path) -> None:
    case = make_case(200)
    other = Case(case.identity, case.order, case.labels, case.logits[::-1].copy())
    write_store(tmp_path / "other.kd", other)
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits)
    snapshot = store.snapshot()
    shutil.rmtree(tmp_path / "a.kd")
    shutil.copytree(tmp_path / "other.kd", tmp_path / "a.kd")
    assert snapshot.seal().content_id == Store.open(tmp_path / "other.kd").content_id


@pytest.mark.parametrize("rows", [128, 448])
def test_a_bucket_is_asked_for_one_listing_of_commits(s3: Proxy, place: str, tmp_path: Path, rows: int) -> None:
    write_store(tmp_path / "a.kd", make_case(rows))
    push(str(tmp_path / "a.kd"), place)
    store, blocks = Store.listed(Bucket(place)), -(-rows // 64)
    s3.asked.clear()
    snapshot = store.snapshot()
    assert len(snapshot.segments[0].commits()) == blocks
    assert sum(not request.key for request in s3.asked) == 1  # a listing is asked of the bucket itself
    s3.asked.clear()
    assert store.segments[0].uncommitted(range(blocks)) == []
    assert store.snapshot(range(blocks)).segments[0].commits() == snapshot.segments[0].commits()
    assert len(snapshot.load(0, np.arange(rows)).positions) == rows
    assert all(request.key for request in s3.asked)
