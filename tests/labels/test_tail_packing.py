"""Packing: residuals give every tail back, both packings the same soft labels, and the page's lines suffice."""

import re
from itertools import product
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdcache.errors import MismatchError
from kdcache.labels.encodings import encoding_of
from kdcache.labels.quantising import last_steps, pack, unpack
from kdcache.labels.topk import TopKEncoding
from kdcache.pipelines.extract.dry_run import estimate
from kdcache.pipelines.extract.stage import extract
from kdcache.store.reading import rows_first
from kdcache.store.store import Store
from kdcache.whole_store.diff import diff_stores
from tests.kits import stages
from tests.kits.stages import Stage
from tests.kits.stores import Case, make_case, write_store

stage = stages.stage
PAGE = Path(__file__).resolve().parents[2] / "docs/format.md"
PARTS = ("classes", "logits", "tail", "label")
INT16 = st.integers(-(2**15), 2**15 - 1) | st.sampled_from([-(2**15), -1, 0, 2**15 - 1])


def by_hand(tail: tuple[int, int, int], last: int, tail_classes: int) -> list[int]:
    """The definition on Python's integers."""
    l0 = round(128 * log(tail_classes)) if tail_classes else 0
    t1, t2, t4 = tail
    r2 = wrapped(t2 - (l0 + t1) // 2)
    return [wrapped(t1 + last), r2, wrapped(t4 - (l0 + t2) // 2 - r2 // 4)]


def wrapped(value: int) -> int:
    return (value + 2**15) % 2**16 - 2**15


@given(
    arrays(np.int16, st.tuples(st.integers(1, 5), st.just(3)), elements=INT16),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**24),
)
@settings(max_examples=300, deadline=None)
def test_any_three_integers_come_back_and_are_what_the_definition_says(tail: Any, last: int, n: int) -> None:
    far = np.full(len(tail), last, dtype=np.int32)
    residuals = pack(tail, far, n)
    assert residuals.dtype == np.int16
    np.testing.assert_array_equal(unpack(residuals, far, n), tail)
    np.testing.assert_array_equal(pack(unpack(tail, far, n), far, n), tail)  # so nothing is left out
    for row, found in zip(tail.tolist(), residuals.tolist(), strict=True):
        assert found == by_hand(tuple(row), last, n)


@pytest.mark.parametrize(("quantisation", "dtype", "step"), [("default", np.uint8, 8), ("high", np.uint16, 2)])
def test_the_last_logit_s_distance_wraps_where_gaps_are_huge(quantisation: str, dtype: Any, step: int) -> None:
    gaps = np.full((2, 70_000), np.iinfo(dtype).max, dtype=dtype)
    gaps[1] = 1
    wanted = [wrapped(int(row.astype("i8").sum()) * step) for row in gaps]
    assert np.asarray(last_steps(gaps, quantisation)).astype(np.int16).tolist() == wanted
    assert last_steps(None, quantisation) == 0


CASES = {
    "as ever": {},
    "k 1": {"k": 1},
    "no tail": {"k": 30},
    "a tail of one class": {"k": 29},
    "a tail of one class beside masked ones": {"k": 26, "masked": (0, 7, 29)},
    "high": {"quantisation": "high"},
    "masked": {"masked": (3, 4)},
    "mixing": {"mix": "mixup"},
    "ids of four bytes": {"classes": 65_600, "rows": 20, "views": 1},
}


def test_soft_labels_do_not_depend_on_the_packing(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, spread in product(CASES, [1, 60]):  # 60: gaps and tails that do not fit their integers
        with subtests.test(name, spread=spread):
            plain, packed = (
                spread_store(tmp_path / f"{name} {spread} {packing}.kd", name, spread, packing)
                for packing in ("plain", "residuals")
            )
            require_alike(plain, packed)


def spread_store(path: Path, name: str, spread: int, packing: str) -> Store:
    case = make_case(**{"rows": 150, **CASES[name]}, packing=packing)  # type: ignore[arg-type]
    return write_store(path, Case(case.identity, case.order, case.labels, case.logits * np.float32(spread)))


def require_alike(plain: Store, packed: Store) -> None:
    rows = np.random.RandomState(0).permutation(plain.rows)[:101]
    for view in plain.every_view:
        soft, unpacked = plain.read(view, rows), packed.read(view, rows)
        for part in PARTS:
            np.testing.assert_array_equal(getattr(unpacked, part), getattr(soft, part), err_msg=part)
        kept, residuals = plain.load(view, rows).arrays, packed.load(view, rows).arrays
        for array in kept.keys() - {"tail"}:
            np.testing.assert_array_equal(residuals[array], kept[array])
        assert not np.array_equal(residuals["tail"], kept["tail"])


def test_two_packings_are_two_stores_whose_rows_agree(tmp_path: Path) -> None:
    plain, packed = (
        write_store(tmp_path / packing, make_case(100, packing=packing)) for packing in ("plain", "residuals")
    )
    found = diff_stores(plain, packed, rows=0)
    assert [(each.field, each.a, each.b) for each in found.identity] == [
        ("encoding.packing", "'nothing'", "'residuals'")
    ]
    assert not found.same
    assert found.rows is not None
    assert (found.rows.rows, found.rows.agreement, found.rows.overlap) == (200, 1.0, 1.0)
    assert (found.rows.kl_ab.max, found.rows.kl_ba.max, found.rows.tail_a) == (0.0, 0.0, found.rows.tail_b)


def test_only_a_topk_store_is_packed_and_plain_is_not_written_down() -> None:
    with pytest.raises(ValueError, match="packing: Extra inputs are not permitted"):
        encoding_of({"name": "full", "packing": "residuals"})
    assert "packing" not in TopKEncoding(k=5).model_dump()
    assert TopKEncoding(k=5, packing="residuals").model_dump()["packing"] == "residuals"


def example() -> tuple[str, str]:
    """The page's reader, up to where it prints, and its line of settings."""
    (code,) = re.findall(r"```python\n(import hashlib.*?)print\(", PAGE.read_text(), re.DOTALL)
    (line,) = re.findall(r"^root, view, position = .*$", code, re.MULTILINE)
    return code, line


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the page's reader is short
def test_the_reader_of_the_page_reads_a_new_store_and_one_with_masked_classes(stage: Stage, tmp_path: Path) -> None:
    masked = write_store(tmp_path / "masked.kd", make_case(300, packing="residuals", masked=(3, 7)))
    code, line = example()
    for path in (stage.store, str(masked.folder.root)):
        for view, position in ((0, 0), (1, 299), (1, 64)):
            found: dict[str, Any] = {}
            exec(code.replace(line, f"root, view, position = {path!r}, {view}, {position}"), found)
            soft = Store.open(path).read(view, [position])
            for part in ("classes", "logits", "tail"):
                np.testing.assert_array_equal(found[part], getattr(soft, part)[0])
            np.testing.assert_allclose(found["logits"] - found["log_z"], soft.log_probs(1.0)[0], atol=1e-5)


def test_the_lines_of_the_page_unpack_a_segment_at_once(stage: Stage, tmp_path: Path) -> None:
    """Whole arrays by tensorstore, unpacked by the page's own lines; a class is masked."""
    path = extract(stage.asked(tmp_path / "new.kd", mask_classes=(3,))).store
    (code,) = re.findall(r"```python\n(def wrap.*?)```", PAGE.read_text(), re.DOTALL)
    values: dict[str, Any] = {"np": np, "n": 10 - 1 - 3}
    for name in ("gaps", "tail"):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/views-00000-00002/{name}/"}}
        values[name] = tensorstore.open(spec, read=True).result().read().result()
    assert values["gaps"].shape == (2, 2, stages.ROWS)
    exec(code, values)
    store = Store.open(path)
    for view in store.every_view:
        soft = store.read(view, np.arange(store.rows))
        np.testing.assert_array_equal(values["plain"][view].T / 128, soft.tail)


def test_new_stores_are_packed_and_plain_ones_stay_plain(stage: Stage, tmp_path: Path) -> None:
    assert Store.open(stage.store).identity.encoding.packing == "residuals"
    named: Any = stage.asked(tmp_path / "plain.kd", views="1", packing="plain")
    extract(named)
    resumed = extract(stage.asked(tmp_path / "plain.kd", views="1"))
    assert resumed.blocks_done_before == stages.BLOCKS
    extract(stage.asked(tmp_path / "plain.kd", views="1:2"))
    plain, packed = Store.open(tmp_path / "plain.kd"), Store.open(stage.store)
    assert (plain.every_view, plain.identity.encoding.packing) == ((0, 1), "plain")
    for view in plain.every_view:
        left, right = (store.read(view, np.arange(store.rows)) for store in (plain, packed))
        for part in PARTS:
            np.testing.assert_array_equal(getattr(left, part), getattr(right, part))
    with pytest.raises(MismatchError, match=r"encoding\.packing.*nothing.*residuals"):
        extract(stage.asked(tmp_path / "plain.kd", views="2:3", packing="residuals"))
    full = extract(stage.asked(tmp_path / "full.kd", views="1", encoding="full")).store
    assert "packing" not in Store.open(full).identity.encoding.model_dump()


def test_a_dry_run_counts_the_packing_that_extract_would_write(stage: Stage, tmp_path: Path) -> None:
    plain, packed = (estimate(stage.asked(tmp_path / "no.kd", packing=packing)) for packing in ("plain", "residuals"))
    assert packed == estimate(stage.asked(tmp_path / "no.kd")).model_copy(
        update={name: getattr(packed, name) for name in ("rows_a_second", "seconds", "memory_bound")}
    )
    assert packed.bytes_a_row != plain.bytes_a_row
    assert [each.quantisation_kl for each in packed.by_k] == [each.quantisation_kl for each in plain.by_k]
    full = estimate(stage.asked(tmp_path / "no.kd", encoding="full"))
    assert [each.bytes_a_row for each in full.by_k] == [each.bytes_a_row for each in packed.by_k]


@pytest.mark.parametrize("shape", [(3, 50), (50, 3), (1, 4), (2, 3, 40)])
def test_chunks_are_turned_whole_or_by_rows(shape: tuple[int, ...]) -> None:
    values, axis = np.random.RandomState(0).randint(0, 255, shape).astype(np.uint8), len(shape) - 1
    turned = np.moveaxis(values, axis, 0)
    for rows in (None, np.array([2, 0])):
        found = rows_first(values, axis, rows)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, turned if rows is None else turned[rows])
