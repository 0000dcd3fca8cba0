"""Taps: outputs of layers lie behind the soft labels, and are bounded, carried by every copy and never read unasked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.canonical import canonical_json
from kdcache.base.limits import VIEWS_MAX, ZARR_LIMIT
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError, MissingBlockError
from kdcache.labels.encoding import TAPS_MAX, Encoding, Tap
from kdcache.labels.full import FullEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.sharing.merge import merge_stores
from kdcache.sharing.push_pull import pull, push
from kdcache.store.layout import describe_segment
from kdcache.store.segment_layout import block_size, segment_layout
from kdcache.store.store import Store
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.verify import inspect_files
from tests.kits.recode import recoded
from tests.kits.stores import Case, block_arrays, create_store, make_case, write_store, write_views

MAPS: Any = (Tap(name="layer1", shape=(2, 3)), Tap(name="blocks.3.norm_2", shape=(4,)))
PLACES = np.array([199, 0, 64, 65])


def case_of(encoding: Encoding, rows: int = 200) -> Case:
    return make_case(rows, encoding=encoding)


def read_taps(store: Store, view: int = 1) -> list[Any]:
    rows = store.load(view, PLACES, taps=[tap.name for tap in MAPS])
    return [rows.tap(tap.name).tolist() for tap in MAPS]


@pytest.fixture
def full(tmp_path: Path) -> Store:
    return write_store(tmp_path / "full.kd", case_of(FullEncoding(taps=MAPS, features=3)))


def test_they_lie_between_features_and_pixels(full: Store) -> None:
    names = list(segment_layout(full.identity, ViewSpan(0, 2)).arrays)
    assert names == ["logits", "features", "taps.0", "taps.1", "pixels", "canary"]
    assert full.load(0, PLACES).arrays.keys() == {"logits", "pixels", "hard"}
    case = case_of(full.identity.encoding)
    first, second = full.load(1, PLACES, taps=["layer1"]), full.load(1, PLACES, taps=["blocks.3.norm_2"])
    np.testing.assert_array_equal(first.tap("layer1"), case.logits[1, PLACES, 1:7].astype("f2").reshape(4, 2, 3))
    np.testing.assert_array_equal(second.tap("blocks.3.norm_2"), case.logits[1, PLACES, 2:6].astype("f2"))
    assert "taps.1" not in first.arrays


def test_recode_carries_them(full: Store, tmp_path: Path) -> None:
    summary, cut = recoded(tmp_path / "full.kd", tmp_path / "cut.kd", top_k=3, drop=("features",))
    assert summary.encoding.endswith("taps layer1, blocks.3.norm_2")
    assert cut.identity.encoding.taps == MAPS
    assert read_taps(cut) == read_taps(full)


def test_recode_drops_them_one_by_one(full: Store, tmp_path: Path) -> None:
    """What is left moves to another array and keeps its values."""
    _, cut = recoded(tmp_path / "full.kd", tmp_path / "cut.kd", drop=("tap:layer1", "features"))
    assert [tap.name for tap in cut.identity.encoding.taps] == ["blocks.3.norm_2"]
    kept = cut.load(1, PLACES, taps=["blocks.3.norm_2"])
    assert "taps.0" in kept.arrays
    assert kept.tap("blocks.3.norm_2").tolist() == read_taps(full)[1]
    _, none = recoded(tmp_path / "full.kd", tmp_path / "none.kd", drop=("taps",))
    assert not none.identity.encoding.taps
    assert not list((tmp_path / "none.kd").glob("views-*/taps*"))
    with pytest.raises(MissingBlockError, match="no tap 'layer1' is kept; there are none"):
        none.load(1, PLACES, taps=["layer1"])
    for source, drop, message in [
        ("full.kd", "tap:layer2", r"store that keeps tap:layer1, tap:blocks.3.norm_2; name one of those"),
        ("none.kd", "taps", r"--drop taps was asked of a store that keeps no taps"),
        ("none.kd", "tap:layer1", r"--drop tap:layer1 was asked of a store that keeps no taps"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            recoded(tmp_path / source, tmp_path / "other.kd", drop=(drop,))
    with pytest.raises(ValueError, match=r"'layer1' is none of features, head, taps"):
        recoded(tmp_path / "full.kd", tmp_path / "other.kd", drop=("layer1",))


def test_every_copy_has_them(full: Store, tmp_path: Path) -> None:
    """Pushed and pulled, merged from two parts, and extended by views; other taps are another store."""
    push(str(tmp_path / "full.kd"), str(tmp_path / "far.kd"))
    pull(str(tmp_path / "far.kd"), str(tmp_path / "near.kd"))
    near = Store.open(tmp_path / "near.kd")
    assert (near.content_id, read_taps(near)) == (full.content_id, read_taps(full))
    case = case_of(full.identity.encoding)
    parts = []
    for part in (0, 1):
        store = create_store(tmp_path / f"part{part}.kd", case)
        write_views(store, part, case.logits[part : part + 1])
        store.seal()
        parts.append(str(tmp_path / f"part{part}.kd"))
    merge_stores(parts, str(tmp_path / "both.kd"))
    assert read_taps(Store.open(tmp_path / "both.kd")) == read_taps(full)
    assert inspect_files(str(tmp_path / "both.kd")).whole
    other = case_of(FullEncoding(taps=MAPS[:1], features=3))
    with pytest.raises(MismatchError, match=r"encoding\.taps"):
        create_store(tmp_path / "full.kd", other)
    write_store(tmp_path / "other.kd", other)
    difference = diff_stores(full, Store.open(tmp_path / "other.kd"))
    assert [field.field for field in difference.identity] == ["encoding.taps"]
    assert difference.rows is not None
    assert difference.rows.kl_ab.max == 0


def test_values_that_differ_are_found_by_diff(full: Store, tmp_path: Path) -> None:
    store = create_store(tmp_path / "twin.kd", case := case_of(full.identity.encoding))
    segment = store.add_segment(ViewSpan(0, 2))
    for block in range(segment.layout.blocks):
        arrays = block_arrays(store, segment, block, case.logits)
        arrays["taps.1"] = arrays["taps.1"] + np.float16(1)
        commit = full.segments[0].commit_of(block)
        segment.commit(block, arrays=arrays, counts=commit.counts, provenance=commit.provenance)
    store.seal()
    difference = diff_stores(full, Store.open(tmp_path / "twin.kd"))
    assert not difference.same
    assert "taps.1" in difference.content[0].a


def test_a_block_is_as_small_as_its_widest_tap_asks() -> None:
    identity = case_of(TopKEncoding(k=5, taps=(Tap(name="map", shape=(64, 28, 28)),)), 100_000).identity
    assert block_size(identity, ViewSpan(0, 2)) == 256  # 100,352 bytes a row: 64 MB // (2 * 100352) = 318
    assert block_size(case_of(TopKEncoding(k=5), 100_000).identity, ViewSpan(0, 2)) == 1024


def test_a_shard_beyond_256_mb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    encoding = TopKEncoding(k=5, taps=(Tap(name="stage4", shape=(512, 32, 32)),))  # 1 MiB a row: the reader's bound
    store = create_store(tmp_path / "wide.kd", case_of(encoding, 64))
    advice = (
        r"stage4 of 512 x 32 x 32 takes 268435456 bytes in 64 rows of 4 views, allowed are 256000000; keep a pooled"
    )
    with pytest.raises(InvalidInputError, match=advice):
        store.add_segment(ViewSpan(0, 4))
    assert not list((tmp_path / "wide.kd").glob("views-*"))
    assert store.add_segment(ViewSpan(0, 3)).layout.block == 64


def test_the_most_taps_fit_a_segment_s_record() -> None:
    """Every record that a writer may write can be read: 64 taps of long names and of four axes stay below 64 KiB."""
    taps = tuple(Tap(name=f"{number:0200d}", shape=(1, 1, 1, 2**19)) for number in range(TAPS_MAX))
    identity = case_of(TopKEncoding(k=5, taps=taps, features=9)).identity
    record = describe_segment(segment_layout(identity, ViewSpan(VIEWS_MAX - 2, VIEWS_MAX)), identity.digest)
    assert len(canonical_json(record)) < ZARR_LIMIT


@pytest.mark.parametrize("name", ["", "a" * 201, "layer 1", "läyer", "a/b", "a\n", "tap:1"])
def test_a_name_is_letters_digits_dots_and_underscores(name: str) -> None:
    with pytest.raises(ValueError, match=r"letters, digits, dots and underscores|at most 200"):
        TopKEncoding(k=5, taps=(Tap(name=name, shape=(1,)),))


def test_they_are_absent_where_there_are_none() -> None:
    assert "taps" not in TopKEncoding(k=5).model_dump(mode="json")
    assert "taps" not in FullEncoding().model_dump()
    record = FullEncoding(taps=MAPS).model_dump(mode="json")
    assert record["taps"] == [{"name": "layer1", "shape": [2, 3]}, {"name": "blocks.3.norm_2", "shape": [4]}]
