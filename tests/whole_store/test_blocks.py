"""blocks: whole blocks as a store's reader gives their rows, from files that are the committed ones."""

from pathlib import Path

import numpy as np
import pytest

from kdcache.base.canonical import canonical_json, parse_json, sha256_hex
from kdcache.errors import DamagedError, MissingBlockError
from kdcache.store import array_spec
from kdcache.store.shards import encode_shard
from kdcache.store.store import Store
from kdcache.store.whole_arrays import labels_between
from kdcache.whole_store.blocks import block_labels, read_block, view_rows
from kdcache.whole_store.store_address import shared_address
from tests.kits.stores import create_store, make_case, write_store, write_views

ROWS = 200


@pytest.mark.parametrize("packing", ["plain", "residuals"])
@pytest.mark.parametrize(("k", "mix"), [(5, "none"), (5, "mixup"), (None, "cutmix"), (None, "none")])
def test_blocks_hold_the_rows_that_a_reader_gives(tmp_path: Path, k: int | None, mix: str, packing: str) -> None:
    """The last block is ragged."""
    packing = "plain" if k is None else packing
    store = write_store(tmp_path / "a.kd", make_case(ROWS, k=k, mix=mix, packing=packing, features=3))
    segment = store.segments[0]
    for block in range(segment.layout.blocks):
        stored = read_block(segment, block, segment.layout.rowwise)
        labels = block_labels(store, segment, block)
        positions = np.arange(*segment.layout.block_rows(block))
        for row, view in enumerate(segment.views):
            np.testing.assert_array_equal(labels[row], store.hard_labels(view, positions))
            found = view_rows(segment, block, stored, row, labels[row])
            wanted = store.load(view, positions, features=True)
            for name, values in wanted.arrays.items():
                np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)
            np.testing.assert_array_equal(found.soft_labels().logits, wanted.soft_labels().logits)


def test_labels_of_a_span_come_from_the_chunks_that_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_spec, "PLAIN_CHUNK", 48)
    store = write_store(tmp_path / "a.kd", make_case(ROWS))
    for first, last in ((0, 200), (0, 48), (47, 49), (48, 96), (50, 60), (150, 200), (199, 200), (10, 197)):
        found = labels_between(store.folder, store.identity, first, last)
        np.testing.assert_array_equal(found, store.labels[first:last])
    (tmp_path / "a.kd/labels/c/1").unlink()
    assert len(labels_between(store.folder, store.identity, 96, 200)) == 104
    with pytest.raises(DamagedError, match=r"labels/c/1 is missing"):
        labels_between(store.folder, store.identity, 0, 64)


def test_a_segment_that_a_worker_does_not_see_is_named(tmp_path: Path) -> None:
    with shared_address(write_store(tmp_path / "a.kd", make_case(ROWS))) as address:
        assert address.segment("views-00000-00002").layout.blocks == 4
        with pytest.raises(MissingBlockError, match=r"a.kd shows no views-00002-00004 here"):
            address.segment("views-00002-00004")


def test_what_is_not_committed_or_is_no_class_is_refused(tmp_path: Path) -> None:
    case = make_case(ROWS)
    segment = write_views(create_store(tmp_path / "a.kd", case), 0, case.logits, blocks=(0, 2))
    with pytest.raises(MissingBlockError, match=r"positions 64 to 127 .block 1. are not committed"):
        read_block(segment, 1, ["classes"])
    spec = segment.layout.arrays["classes"]
    values = np.full((2, 64, 5), 29, dtype=np.uint16)
    values[1, 7] = 30
    data = encode_shard(spec, values)
    path = tmp_path / "a.kd" / segment.layout.commit_key(2)
    record = parse_json(path.read_bytes(), "commit")
    record["shards"]["classes"] = {"sha256": sha256_hex(data), "size": len(data)}
    path.write_bytes(canonical_json(record))
    (tmp_path / "a.kd" / spec.key(2)).write_bytes(data)
    opened = Store.open(tmp_path / "a.kd").segments[0]
    with pytest.raises(DamagedError, match=r"holds class id 30, allowed are 0 to 29"):
        read_block(opened, 2, ["classes", "gaps"])
    for damage, said in ((b"short", "has sha256"), (None, "is missing")):
        target = tmp_path / "a.kd" / segment.layout.arrays["gaps"].key(0)
        target.unlink() if damage is None else target.write_bytes(damage)
        with pytest.raises(DamagedError, match=said):
            read_block(opened, 0, ["classes", "gaps"])
