"""The golden stores of format 1: read for ever, by kdcache and by the specification's table alone."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorstore
import xxhash
from scipy.special import logsumexp

from kdcache.errors import FormatError, MissingBlockError
from kdcache.labels.full import FullLabels
from kdcache.labels.topk_labels import TopKLabels
from kdcache.store.store import Store
from tests.golden.make import (
    CLASSES,
    HERE,
    MASKED,
    ROWS,
    K,
    golden_labels,
    golden_logits,
    golden_order,
    golden_pixels,
)

Array = npt.NDArray[Any]
TOPK, FULL, MEANS = HERE / "format1.kd", HERE / "format1-full.kd", HERE / "format1-class-means.kd"
PACKED = HERE / "format1-residuals.kd"  # the rows of MEANS
RULE_2 = HERE / "format1-block-rule.kd"  # the rows of MEANS in one block
MAPPED, PROBS = HERE / "format1-class-map.kd", HERE / "format1-answers.kd"
EVERYTHING = np.arange(ROWS)
VIEWS = [(0, "views-00000-00002"), (1, "views-00000-00002"), (2, "views-00002-00003")]


def raw(root: Path, path: str) -> Array:
    """An array read by tensorstore: no line of kdcache takes part."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{root / path}/"}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


def exact(view: int) -> Array:
    """[N, C] f64 logits of the golden teacher less the top one, the masked class at -inf."""
    logits = golden_logits(view, view + 1)[0].astype("f8")
    logits[:, MASKED] = -np.inf
    return logits - logits.max(axis=1, keepdims=True)


def partners_by_hand(seed: int, view: int) -> Array:
    """The involution from its definition: rank positions of a group by their key; neighbours are partners."""
    partners = np.arange(ROWS)
    for group, first in enumerate(range(0, ROWS, 64)):
        members = range(first, min(first + 64, ROWS))
        key = {p: xxhash.xxh3_64_intdigest(struct.pack("<4Q", seed, group, view, p) + b"pair") for p in members}
        ranked = sorted(members, key=lambda p: key[p])
        for left, right in zip(ranked[0::2], ranked[1::2], strict=False):
            partners[left], partners[right] = right, left
    return partners


@pytest.mark.parametrize(
    ("root", "content_id"),
    [
        (TOPK, "41d36f1b338b32a7dddffe2ec49b7a47c6b46e058596b3b8e8fe39f4adae68ec"),
        (FULL, "dd67647c6c007cfcc2b47f07658246cf29c57e110700b986540ab14061de186d"),
        (MEANS, "22fcb2717d0796eb82739ae9e207e02c40c86952e82268cd5451b1d5f860ad66"),
        (PACKED, "1ef6ec8aa5eb187d7114fb4c54743babeb04afa040cc7d71dc30d4f5888debf5"),
        (RULE_2, "eabf0fbee323c16643c3fed0d533a9aad9cd2d8d59c2dbfed2854600a5ed9973"),
        (MAPPED, "6aa5560461e01c21224c3584615e187e48407e669b68b80a38cd2501bec9c757"),
        (PROBS, "f378f3076d132c11e276590f7c1381e96cfffadd7001d72cb0b74e5e8b492ea4"),
        (HERE / "format1-struck.kd", "a6a3fc08819107903e57010cf171b752e073709db6729552195ba59dc749e946"),
        (HERE / "format1-struck-full.kd", "aa0b7c6c6c183b3e8f0df1a2962295994f7b28ed8b60594aa216574ab1d66712"),
        (HERE / "format1-subclasses.kd", "e2d183cbc066d77f561ce032d126213e405bcce5f4a2c1f4b557c7e930f428c2"),
        (HERE / "format1-sequence.kd", "7dce3c6ec4e0a048bc2111142754ecd90fb969744a542b8c58d3077b4b0e2938"),
        (HERE / "format1-tokenizer.kd", "85d22616c33cf0c89a668145be9026ad0b706bdfc7416030d3899ed589f22e1f"),
    ],
)
def test_content_ids_are_for_ever(root: Path, content_id: str) -> None:
    store = Store.open(root)
    assert store.content_id == content_id
    assert Store.open(f"{root}@{content_id}").content_id == content_id


def test_both_seals_of_the_topk_store_open() -> None:
    assert Store.open(TOPK).every_view == (0, 1, 2)
    assert Store.open(f"{TOPK}@151ae36d327d2f2c9851837b270804a771bbd7c61fd1278fa095aa847902e97a").every_view == (0, 1)
    assert Store.open(FULL).every_view == (0, 1)


@pytest.mark.parametrize("root", [TOPK, FULL])
def test_order_and_labels(root: Path) -> None:
    store = Store.open(root)
    assert store.order[:4].tolist() == raw(root, "order")[:4].tolist() == [11, 48, 15, 52]
    assert store.labels[:8].tolist() == raw(root, "labels")[:8].tolist() == [7, 0, 3, 8, 11, 4, -1, 0]
    np.testing.assert_array_equal(store.order, golden_order())
    np.testing.assert_array_equal(store.labels, golden_labels()[golden_order()])


@pytest.mark.parametrize(("view", "segment"), VIEWS)
def test_topk_store_by_the_table_alone(view: int, segment: str) -> None:
    """classes, gaps / 16, tail / 128, label / 64, pixels: decoded here from design.md, and compared with the truth."""
    row = view - int(segment[6:11])
    arrays = {name: raw(TOPK, f"{segment}/{name}")[row] for name in ("classes", "gaps", "tail", "label", "pixels")}
    assert [str(array.dtype) for array in arrays.values()] == ["uint16", "uint8", "int16", "uint16", "uint8"]
    dense = exact(view)
    best = np.argsort(-dense, axis=1, kind="stable")
    np.testing.assert_array_equal(arrays["classes"], best[:, :K])
    logits = np.zeros((ROWS, K))
    logits[:, 1:] = -np.cumsum(arrays["gaps"].astype("f8"), axis=1) / 16
    error = np.abs(logits - np.take_along_axis(dense, best[:, :K], axis=1)).max(axis=1)
    assert np.flatnonzero(error > 1 / 32).tolist() == [5]  # its gap of 40 nats and more does not fit
    assert (arrays["gaps"][5, :2] == 255).all()
    rest = np.take_along_axis(dense, best[:, K:], axis=1)
    for column, temperature in enumerate((1, 2, 4)):
        tail = logsumexp(rest / temperature, axis=1)
        assert np.abs(arrays["tail"][column] / 128 - tail).max() <= 1 / 256 + 1e-6
    labels = golden_labels()[golden_order()]
    none = (labels < 0) | (labels == MASKED)
    assert (arrays["label"][none] == 65535).all()
    label = np.where(none, np.nan, -(arrays["label"] / 64))
    np.testing.assert_array_equal(label[~none], dense[EVERYTHING, labels][~none])  # 1/32 fits in steps of 1/64
    np.testing.assert_array_equal(arrays["pixels"], golden_pixels(view, view + 1)[0])

    soft = Store.open(TOPK).read(view, EVERYTHING)
    assert isinstance(soft, TopKLabels)
    np.testing.assert_array_equal(soft.classes, arrays["classes"])
    np.testing.assert_array_equal(soft.logits, logits)
    np.testing.assert_array_equal(soft.tail, arrays["tail"].T / 128)
    np.testing.assert_array_equal(soft.label, label)
    assert (soft.num_classes, soft.masked) == (CLASSES, (MASKED,))


@pytest.mark.parametrize("view", [0, 1])
def test_full_store_by_the_table_alone(view: int) -> None:
    stored = raw(FULL, "views-00000-00002/logits")[view]
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored[:, MASKED], -np.inf)
    np.testing.assert_array_equal(stored, exact(view).astype("f2"))
    labels = golden_labels()[golden_order()]
    pairs = np.stack([labels, labels[partners_by_hand(11, view)]], axis=1)
    label = np.take_along_axis(stored.astype("f4"), np.maximum(pairs, 0), axis=1)
    label[(pairs < 0) | (pairs == MASKED)] = np.nan

    store = Store.open(FULL)
    np.testing.assert_array_equal(store.hard_labels(view, EVERYTHING), pairs)
    soft = store.read(view, EVERYTHING)
    assert isinstance(soft, FullLabels)
    np.testing.assert_array_equal(soft.logits, stored.astype("f4"))
    np.testing.assert_array_equal(soft.label, label)
    np.testing.assert_array_equal(store.load(view, EVERYTHING).arrays["pixels"], golden_pixels(view, view + 1)[0])


def test_class_means_by_their_definition_alone() -> None:
    """The mean of a class's logit less its row's tail mean, over the rows of block 0 that do not keep it."""
    (stored,) = raw(MEANS, "views-00000-00002/class_means")
    assert (str(stored.dtype), stored.shape) == ("float32", (CLASSES,))
    found: list[list[float]] = [[] for _ in range(CLASSES)]
    for view in (0, 1):
        for row in exact(view)[:64]:
            tail = [c for c in np.argsort(-row, kind="stable")[K:] if c != MASKED]
            for c in tail:
                found[c].append(row[c] - np.mean(row[tail]))
    np.testing.assert_allclose(stored[:MASKED], [np.mean(values) for values in found[:MASKED]], rtol=1e-6)
    assert stored[MASKED] == 0
    np.testing.assert_array_equal(Store.open(MEANS).class_means(1), stored)


def test_stores_without_class_means_stay_readable_and_say_so() -> None:
    for root in (TOPK, FULL):
        with pytest.raises(MissingBlockError, match="holds no class means; use --tail uniform"):
            Store.open(root).class_means(0)
        assert "class_means" not in json.loads((root / "kdcache/manifest.json").read_bytes())["identity"]["encoding"]


@pytest.mark.parametrize("view", [0, 1])
def test_residuals_by_the_table_alone(view: int) -> None:
    """Gaps lie rank by rank, the tail is foretold by them and by n: decoded here, and compared with the plain store."""
    names, segment = ("classes", "gaps", "tail", "label", "pixels"), "views-00000-00002"
    plain, packed = ({name: raw(root, f"{segment}/{name}")[view] for name in names} for root in (MEANS, PACKED))
    assert (packed["gaps"].shape, packed["tail"].shape) == ((K - 1, ROWS), (3, ROWS))
    np.testing.assert_array_equal(packed["gaps"].T, plain["gaps"])
    for name in ("classes", "label", "pixels"):
        np.testing.assert_array_equal(packed[name], plain[name])
    l0 = round(128 * np.log(CLASSES - 1 - K))
    r1, r2, r4 = packed["tail"].astype("i4")
    t1 = r1 - 8 * packed["gaps"].astype("i4").sum(axis=0)  # these rows are small: nothing wraps
    t2 = r2 + ((l0 + t1) >> 1)
    t4 = r4 + ((l0 + t2) >> 1) + (r2 >> 2)
    np.testing.assert_array_equal([t1, t2, t4], plain["tail"])
    np.testing.assert_array_equal(raw(PACKED, f"{segment}/class_means"), raw(MEANS, f"{segment}/class_means"))

    soft, same = (Store.open(root).read(view, EVERYTHING) for root in (PACKED, MEANS))
    assert isinstance(soft, TopKLabels)
    assert isinstance(same, TopKLabels)
    np.testing.assert_array_equal(soft.tail, plain["tail"].T / 128)
    for part in ("classes", "logits", "label"):
        np.testing.assert_array_equal(getattr(soft, part), getattr(same, part))


def test_literal_numbers() -> None:
    """A few rows by eye, so that no formula stands between the disk and the test."""
    soft = Store.open(TOPK).read(2, np.array([0, 69]))
    assert isinstance(soft, TopKLabels)
    assert soft.classes.tolist() == [[0, 9, 7, 5], [5, 9, 2, 6]]
    assert soft.logits.tolist() == [[0.0, -2.625, -3.875, -5.0], [0.0, -2.25, -2.3125, -4.5625]]
    assert soft.tail.tolist() == [[-5.9296875, -2.484375, -0.4921875], [-6.046875, -2.390625, -0.375]]
    assert soft.label.tolist() == [-3.84375, -11.4375]
    packed = Store.open(PACKED)
    assert packed.load(1, [0, 69]).arrays["tail"].tolist() == [[-115, -63, -12], [7, -73, -13]]
    assert packed.load(1, [0, 69]).arrays["gaps"].tolist() == [[19, 19, 19], [1, 36, 36]]
    both = packed.read(1, [0, 69])
    assert isinstance(both, TopKLabels)
    assert (both.tail * 128).tolist() == [[-571, -224, -16], [-577, -237, -26]]
    full = Store.open(FULL).read(1, np.array([69]))
    assert isinstance(full, FullLabels)
    assert full.logits[0, :MASKED].tolist() == [
        -0.0625,
        -4.625,
        -9.1875,
        -13.75,
        -2.3125,
        -6.875,
        -11.4375,
        0.0,
        -4.5625,
        -9.125,
        -13.6875,
    ]


def test_canary() -> None:
    for store in (Store.open(TOPK), Store.open(FULL)):
        assert (store.segments[0].canary(1) == np.full((64, 3, 8, 8), 77)).all()


@pytest.mark.parametrize("extra", [{}, {"something_new": [1, 2]}])
@pytest.mark.parametrize("root", [TOPK, FULL, PACKED])
def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path, root: Path, extra: dict[str, Any]) -> None:
    shutil.copytree(root, tmp_path / "new.kd")
    path = tmp_path / "new.kd/kdcache/manifest.json"
    manifest = json.loads(path.read_bytes())
    assert manifest["identity"]["format"] == 1
    manifest["identity"].update(format=2, **extra)
    path.write_text(json.dumps(manifest))
    for refuse in (Store.open, Store.open_for_writing):
        with pytest.raises(FormatError, match=r"store format 2; this kdcache reads format 1: upgrade kdcache"):
            refuse(tmp_path / "new.kd")


@pytest.mark.parametrize("number", [0, -1, "1", None])
def test_a_broken_format_number_is_refused(tmp_path: Path, number: Any) -> None:
    shutil.copytree(TOPK, tmp_path / "new.kd")
    path = tmp_path / "new.kd/kdcache/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["identity"]["format"] = number
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"identity\.format"):
        Store.open(tmp_path / "new.kd")
