"""store: what was written is what is read, everything else is refused, and equal input gives equal bytes."""

from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorstore
import zarr

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError, MissingBlockError, StoreNotFoundError
from kdcache.labels.full import FullLabels
from kdcache.labels.quantising import LABEL_STEPS
from kdcache.labels.topk_labels import TopKLabels
from kdcache.store.commits import Counts
from kdcache.store.manifest import Identity, Provenance
from kdcache.store.plan import partners_of
from kdcache.store.store import Store
from tests.kits.stores import (
    Case,
    all_files,
    block_arrays,
    create_store,
    make_case,
    pixels_of,
    write_store,
    write_views,
)

Array = npt.NDArray[Any]
ROWS = 200  # blocks of 64: three whole ones and a ragged one of 8

KINDS: dict[str, dict[str, Any]] = {
    "topk": {},
    "k1": {"k": 1},
    "high": {"quantisation": "high"},
    "every class": {"k": 30},
    "masked": {"k": 6, "masked": (2, 29)},
    "mixup": {"mix": "mixup"},
    "full": {"k": None},
    "full cutmix": {"k": None, "mix": "cutmix", "masked": (4,)},
    "wide ids": {"classes": 65_537, "k": 3, "rows": 70, "views": 1},
    "features": {"features": 7},
    "tiny": {"rows": 3, "views": 3},
}


Written = Callable[[str], tuple[Case, Store]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A kind -> what its store was made from, and the store, written once and never changed."""
    folder = tmp_path_factory.mktemp("written")

    @cache
    def write(kind: str) -> tuple[Case, Store]:
        case = make_case(**{"rows": ROWS, **KINDS[kind]})
        return case, write_store(folder / f"{kind}.kd", case)

    return write


def test_equal_input_gives_equal_bytes(tmp_path: Path, written: Written, subtests: pytest.Subtests) -> None:
    for kind in KINDS:
        with subtests.test(kind):
            case, store = written(kind)
            write_store(tmp_path / f"{kind}.kd", case)
            ours, theirs = all_files(Path(store.folder.root)), all_files(tmp_path / f"{kind}.kd")
            assert list(ours) == list(theirs)
            assert [name for name in ours if ours[name] != theirs[name]] == []
            assert len(ours) > 10


def test_what_was_written_is_read(written: Written, subtests: pytest.Subtests) -> None:
    for kind in KINDS:
        with subtests.test(kind):
            case, store = written(kind)
            np.testing.assert_array_equal(store.order, case.order)
            np.testing.assert_array_equal(store.labels, case.labels)
            for view in store.every_view:
                require_written(case, store, view)


def require_written(case: Case, store: Store, view: int) -> None:
    rows, positions, masked = store.rows, np.arange(store.rows), list(case.identity.teacher.masked_classes)
    soft, loaded = store.read(view, positions), store.load(view, positions)
    np.testing.assert_array_equal(loaded.arrays["pixels"], pixels_of(range(view, view + 1), positions)[0])
    dense = case.logits[view].astype("f8")
    dense[:, masked] = -np.inf
    dense -= dense.max(axis=1, keepdims=True)
    if isinstance(soft, FullLabels):
        np.testing.assert_allclose(soft.logits, dense, rtol=2.0**-11, atol=1e-6)
    else:
        kept = np.argsort(-dense, axis=1, kind="stable")[:, : soft.k]
        np.testing.assert_array_equal(soft.classes, kept)
        assert np.abs(soft.logits - np.take_along_axis(dense, kept, axis=1)).max() <= 1 / 32 + 1e-6
    plan, labels = case.identity.plan, store.hard_labels(view, positions)
    partners = [] if plan.mix == "none" else [partners_of(plan, positions, view, rows)]
    column = np.stack([case.labels, *(case.labels[each] for each in partners)], axis=1)
    np.testing.assert_array_equal(labels, column if partners else case.labels)
    wanted = np.take_along_axis(dense, np.maximum(column, 0), axis=1)
    wanted[(column < 0) | np.isneginf(wanted)] = np.nan
    np.testing.assert_allclose(soft.label.reshape(rows, -1), wanted, rtol=2.0**-11, atol=0.5 / LABEL_STEPS + 1e-5)


def test_other_readers_see_the_same_bits(written: Written, subtests: pytest.Subtests) -> None:
    """zarr-python and tensorstore need nothing of kdcache; ragged last block included."""
    for kind in KINDS:
        with subtests.test(kind):
            case, store = written(kind)
            root, segment = Path(store.folder.root), store.segments[0]
            blocks = [block_arrays(store, segment, block, case.logits) for block in range(segment.layout.blocks)]
            group = zarr.open_group(root, mode="r")
            for name, spec in segment.layout.arrays.items():
                axis = spec.block_axis
                data = blocks[0][name] if axis is None else np.concatenate([block[name] for block in blocks], axis=axis)
                np.testing.assert_array_equal(np.asarray(group[spec.path][...]), data, name)  # type: ignore[index]
                np.testing.assert_array_equal(_tensorstore(root, spec.path), data, name)
            np.testing.assert_array_equal(_tensorstore(root, "order"), case.order)
            np.testing.assert_array_equal(_tensorstore(root, "labels"), case.labels)


def _tensorstore(root: Path, path: str) -> Array:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{root / path}/"}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


SOME = [[199], [0], [63, 64], [199, 0, 64, 63, 64, 199, 199], [130, 129, 128], [*range(199, -1, -1)], [7] * 50, []]


def test_positions_in_any_order_with_repeats(written: Written, subtests: pytest.Subtests) -> None:
    for kind, positions in product(["topk", "full cutmix"], SOME):
        with subtests.test(kind, positions=positions):
            store, wanted = written(kind)[1], np.array(positions, dtype=np.int64)
            everything, some, soft = store.load(1, np.arange(ROWS)), store.load(1, wanted), store.read(1, wanted)
            np.testing.assert_array_equal(some.positions, wanted)
            assert some.arrays.keys() == everything.arrays.keys()
            for name, array in some.arrays.items():
                assert array.dtype == everything.arrays[name].dtype
                np.testing.assert_array_equal(array, everything.arrays[name][wanted])
            np.testing.assert_array_equal(soft.logits, everything.soft_labels().logits[wanted])
            np.testing.assert_array_equal(soft.label, everything.soft_labels().label[wanted])


def test_positions_outside_are_refused(written: Written, subtests: pytest.Subtests) -> None:
    _, store = written("topk")
    for positions in ([-1], [200], [0, 10_000]):
        with subtests.test(positions=positions), pytest.raises(InvalidInputError, match="positions 0 to 199"):
            store.read(0, np.array(positions))
    with pytest.raises(InvalidInputError, match="no view 2; it has views-00000-00002"):
        store.read(2, np.array([0]))


def test_rows_of_zeros_survive(tmp_path: Path) -> None:
    """Zarr leaves out chunks that hold nothing but the fill value, and a missing file reads as zeros: never here."""
    case = make_case(130, 4, 3, views=2)
    case.logits[:] = 0.0
    store = create_store(tmp_path / "a.kd", case)
    segment = store.add_segment(ViewSpan(0, 2))
    for block in range(segment.layout.blocks):
        arrays = {
            name: np.zeros_like(array) for name, array in block_arrays(store, segment, block, case.logits).items()
        }
        commit = segment.commit(block, arrays=arrays, counts=Counts(), provenance=Provenance())
        assert commit is not None
        for name, shard in commit.shards.items():
            path = tmp_path / "a.kd" / segment.layout.arrays[name].key(block)
            assert path.stat().st_size == shard.size > 16
    store.seal()
    rows = Store.open(tmp_path / "a.kd").load(1, np.arange(130))
    assert rows.arrays["classes"].shape == (130, 3)
    assert not any(array.any() for array in rows.arrays.values())
    assert not _tensorstore(tmp_path / "a.kd", "views-00000-00002/classes").any()


def test_head_and_features_round_trip(tmp_path: Path) -> None:
    case = make_case(70, 10, 3, features=6, head=6)
    rng = np.random.RandomState(0)
    head = {"weight": rng.normal(size=(10, 6)).astype("f4"), "bias": np.zeros(10, dtype="f4")}
    store = write_store(tmp_path / "a.kd", case, head=head)
    assert store.head().keys() == head.keys()
    np.testing.assert_array_equal(store.head()["weight"], head["weight"])
    np.testing.assert_array_equal(store.head()["bias"], head["bias"])
    assert "features" not in store.load(0, np.arange(70)).arrays
    features = store.load(0, np.arange(70), features=True).arrays["features"]
    np.testing.assert_array_equal(features, case.logits[0, :, :6].astype("f2"))


def test_what_was_not_kept_is_refused(written: Written) -> None:
    _, store = written("topk")
    with pytest.raises(MissingBlockError, match="no head; extract with --keep head"):
        store.head()
    with pytest.raises(MissingBlockError, match="no features; extract with --keep features"):
        store.load(0, np.array([0]), features=True)


def test_canary_comes_back(written: Written) -> None:
    case, store = written("topk")
    canary = block_arrays(store, store.segments[0], 0, case.logits)["canary"]
    np.testing.assert_array_equal(store.segments[0].canary(1), canary[1])


def test_repr_is_one_line(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(70))
    views, seal = str(store.segments[0].views), str(store.content_id)
    assert repr(store) == f"Store('{tmp_path / 'a.kd'}', 70 rows, views {views}, seal {seal[:8]})"
    assert repr(Store.open_for_writing(tmp_path / "a.kd")).endswith(", seal none)")


def test_a_store_is_found_or_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="does not exist"):
        Store.open(tmp_path / "nothing.kd")
    (tmp_path / "empty.kd").mkdir()
    with pytest.raises(StoreNotFoundError, match=r"holds no kdcache/manifest\.json"):
        Store.open(tmp_path / "empty.kd")
    assert list((tmp_path / "empty.kd").iterdir()) == []


def test_order_and_labels_must_have_one_entry_a_row(tmp_path: Path) -> None:
    case = make_case(70)
    with pytest.raises(InvalidInputError, match="labels 69 entries, the data set has 70 rows"):
        Store.create(
            tmp_path / "a.kd", case.identity, order=case.order, labels=case.labels[1:], provenance=Provenance()
        )
    assert not (tmp_path / "a.kd").exists()


CHANGES: dict[str, tuple[str, Any]] = {
    "dataset.labels": ("dataset", {"labels": "other-labels"}),
    "dataset.ids": ("dataset", {"ids": "other-ids"}),
    "dataset.class_names": ("dataset", {"class_names": ["cat", "dog"]}),
    "order.kind": ("order", {"kind": "shuffled"}),
    "views.seed": ("views", {"seed": 8}),
    "views.mix": ("views", {"mix": "cutmix"}),
    "views.transform.arguments.size": ("views", {"transform": {"name": "crop", "arguments": {"size": 224}}}),
    "teacher.weights": ("teacher", {"weights": "other-weights"}),
    "teacher.precision": ("teacher", {"precision": "bfloat16"}),
    "teacher.masked_classes": ("teacher", {"masked_classes": [3]}),
    "teacher.class_map": ("teacher", {"class_map": [*range(30), -1]}),
    "teacher.answers": ("teacher", {"answers": "probs"}),
    "encoding.k": ("encoding", {"k": 4}),
    "encoding.block_rule": ("encoding", {"block_rule": 2}),
    "encoding.quantisation": ("encoding", {"quantisation": "high"}),
    "parents": ("parents", ["abc"]),
}


def test_another_identity_is_refused_with_both_values(tmp_path: Path, subtests: pytest.Subtests) -> None:
    case, path = make_case(70), tmp_path / "a.kd"
    write_store(path, case)
    assert Store.open(path, expect=case.identity).rows == 70
    before = all_files(path)
    for field, (family, change) in CHANGES.items():
        record = case.identity.model_dump(mode="json")
        record[family] = {**record[family], **change} if isinstance(change, dict) else change
        other = Identity.model_validate(record)
        creating = {"order": case.order, "labels": case.labels, "provenance": Provenance()}
        for call, refuse in (
            ("open", partial(Store.open, path, expect=other)),
            ("create", partial(Store.create, path, other, **creating)),
        ):
            with subtests.test(field, call=call):
                with pytest.raises(MismatchError) as caught:
                    refuse()
                stored = {name: (old, new) for name, old, new in caught.value.differences}
                assert field in stored
                assert all(value[:13] in str(caught.value) for value in (field, *stored[field]))  # of a sha256 the head
                assert stored[field][0] != stored[field][1]
                assert all_files(path) == before


def test_creating_again_opens_what_is_there(tmp_path: Path) -> None:
    case = make_case(70)
    store = create_store(tmp_path / "a.kd", case)
    write_views(store, 0, case.logits)
    before = all_files(tmp_path / "a.kd")
    again = create_store(tmp_path / "a.kd", case)
    assert again.every_view == (0, 1)
    assert isinstance(again.read(0, np.array([3])), TopKLabels)
    assert all_files(tmp_path / "a.kd") == before
