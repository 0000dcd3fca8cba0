"""The golden stores of sampled, tail mass and taps, by the specification's table alone."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xxhash
from scipy.special import logsumexp

from kdcache.errors import FormatError, InvalidInputError, MissingBlockError
from kdcache.labels.sampled_labels import SampledLabels
from kdcache.labels.topk_labels import TopKLabels
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.whole_store.stats import store_stats
from kdcache.whole_store.verify import inspect_files
from tests.golden.make import (
    CLASSES,
    DRAW_TEMPERATURE,
    DRAWS,
    HERE,
    MASKED,
    ROWS,
    K,
    golden_labels,
    golden_order,
    golden_output,
    golden_pixels,
)
from tests.kits.attacks import set_identity
from tests.store.test_golden import EVERYTHING, VIEWS, exact, partners_by_hand, raw

Array = npt.NDArray[Any]
SAMPLED, MASS, TAPS = HERE / "format1-sampled.kd", HERE / "format1-mass.kd", HERE / "format1-taps.kd"
FIRST = "views-00000-00002"


def encoding_record(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((root / "kdcache/manifest.json").read_bytes())["identity"]["encoding"]
    return record


@pytest.mark.parametrize(
    ("root", "content_id"),
    [
        (SAMPLED, "6ae8dc37c5164a3f34356ff111e3a761b556f787455c99f706245908909df676"),
        (MASS, "5f7d641f97815be00d57dcdbb641ce061769c683292bc68767c2d90556e0667f"),
        (TAPS, "73ff2c00ff785c6760883d063dc1193d11d123ad2d3ec3b820f1d3173daf4c2e"),
    ],
)
def test_content_ids_are_for_ever(root: Path, content_id: str) -> None:
    store = Store.open(root)
    assert store.content_id == content_id
    assert inspect_files(str(root)).whole
    np.testing.assert_array_equal(store.order, golden_order())
    np.testing.assert_array_equal(store.load(1, EVERYTHING).arrays["pixels"], golden_pixels(1, 2)[0])


def draws_by_hand(view: int) -> Array:
    """[N, R] ids from the words of the specification, in Python's integers."""
    logits, rows = exact(view), []
    for index, z in zip(golden_order().tolist(), logits, strict=True):
        p = np.exp(z / DRAW_TEMPERATURE)
        ends = np.cumsum([round(float(share) * 2**52) for share in p / p.sum()])
        word = xxhash.xxh3_64_intdigest(struct.pack("<QQQ", 11, index, view) + b"draw")
        uniforms = np.random.RandomState([word & 0xFFFFFFFF, word >> 32]).random_sample(DRAWS).tolist()
        places = [min(int(uniform * float(ends[-1])), int(ends[-1]) - 1) for uniform in uniforms]
        rows.append(sorted(int((ends <= place).sum()) for place in places))
    return np.array(rows)


@pytest.mark.parametrize(("view", "segment"), VIEWS)
def test_sampled_store_by_the_table_alone(view: int, segment: str) -> None:
    row = view - int(segment[6:11])
    draws, label = (raw(SAMPLED, f"{segment}/{name}")[row] for name in ("draws", "label"))
    assert (str(draws.dtype), draws.shape, str(label.dtype), label.shape) == (
        "uint16",
        (ROWS, DRAWS),
        "uint16",
        (ROWS,),
    )
    np.testing.assert_array_equal(draws, draws_by_hand(view))
    hard = golden_labels()[golden_order()]
    none = (hard < 0) | (hard == MASKED)
    log_p = exact(view) / DRAW_TEMPERATURE
    loss = -(log_p - logsumexp(log_p, axis=1)[:, None])[EVERYTHING, hard]
    assert (label[none] == 65535).all()
    assert np.abs(label / 64 - loss)[~none].max() <= 1 / 128 + 1e-5

    soft = Store.open(SAMPLED).read(view, EVERYTHING)
    assert isinstance(soft, SampledLabels)
    np.testing.assert_array_equal(soft.draws, draws)
    np.testing.assert_array_equal(soft.label_log_prob(DRAW_TEMPERATURE), np.where(none, np.nan, -(label / 64)))
    assert (soft.num_classes, soft.masked, soft.draw_temperature) == (CLASSES, (MASKED,), DRAW_TEMPERATURE)


def test_literal_draws_and_words_for_people() -> None:
    store = Store.open(SAMPLED)
    assert raw(SAMPLED, "views-00002-00003/draws")[0, 0].tolist() == [0, 0, 0, 0, 7, 9, 9]
    assert encoding_record(SAMPLED) == {
        "draw_temperature": 2.0, "draws": 7, "features": 0, "head": 0, "name": "sampled",
    }  # fmt: skip
    assert describe_store(store)["soft_labels"] == "7 draws at T = 2"
    row = describe_rows(store, 1, 0)[0]
    assert (row["best"], row["tail"]) == ("class 9 0.571, class 7 0.286, class 1 0.143", None)
    with pytest.raises(
        InvalidInputError, match=r"kdcache stats needs log-probabilities by class, and 7 draws at T = 2"
    ):
        store_stats(store)


@pytest.mark.parametrize("view", [0, 1])
def test_tail_mass_by_the_table_alone(view: int) -> None:
    """r1 alone, foretold by the gaps: the tail's logsumexp at T = 1."""
    gaps, tail, label = (raw(MASS, f"{FIRST}/{name}")[view] for name in ("gaps", "tail", "label"))
    assert (str(tail.dtype), tail.shape) == ("int16", (1, ROWS))
    t1 = tail[0].astype("i4") - 8 * gaps.astype("i4").sum(axis=0)
    dense = exact(view)
    rest = np.sort(dense, axis=1)[:, ::-1][:, K:]
    kept = np.arange(ROWS) != 5  # whose gap of 40 nats and more does not fit; its tail holds all the same
    assert np.abs(t1 / 128 - logsumexp(rest, axis=1)).max() <= 1 / 256 + 1e-6
    hard = golden_labels()[golden_order()]
    pairs = np.stack([hard, hard[partners_by_hand(11, view)]], axis=1)
    none = (pairs < 0) | (pairs == MASKED)
    np.testing.assert_array_equal(label == 65535, none)

    soft = Store.open(MASS).read(view, EVERYTHING)
    assert isinstance(soft, TopKLabels)
    np.testing.assert_array_equal(soft.tail, t1[:, None] / 128)
    log_p = dense - logsumexp(dense, axis=1)[:, None]
    best = np.argsort(-dense, axis=1, kind="stable")[:, :K]
    assert np.abs(soft.log_probs(1.0) - np.take_along_axis(log_p, best, axis=1))[kept].max() < 1 / 16
    with pytest.raises(InvalidInputError, match="known at T = 1 alone"):
        soft.log_probs(2.0)


def test_tail_mass_in_words_and_in_statistics() -> None:
    assert encoding_record(MASS) == {
        "features": 0, "head": 0, "k": 4, "name": "topk", "packing": "residuals", "quantisation": "default",
        "tail": "mass",
    }  # fmt: skip
    stats = store_stats(Store.open(MASS))
    assert stats.soft_labels == "top 4, default quantisation, residuals, mass of the tail"
    assert stats.kept is not None
    assert (len(stats.kept), len(stats.kept_histograms), len(stats.views[0].kept or ())) == (1, 1, 1)
    masses = [1 - np.exp(logsumexp(np.sort(exact(v), axis=1)[:, : CLASSES - K], axis=1) - logsumexp(exact(v), axis=1))
              for v in (0, 1)]  # fmt: skip
    assert abs(stats.kept[0].mean - float(np.mean(masses))) < 2e-3


def test_taps_by_the_table_alone() -> None:
    assert encoding_record(TAPS)["taps"] == [
        {"name": "layer1.0.conv2", "shape": [2, 3, 2]},
        {"name": "norm", "shape": [5]},
    ]
    features, first, second = (raw(TAPS, f"{FIRST}/{name}") for name in ("features", "taps.0", "taps.1"))
    assert [str(array.dtype) for array in (features, first, second)] == ["float16"] * 3
    np.testing.assert_array_equal(features, golden_output(0, 3, 0, 2))
    np.testing.assert_array_equal(first, golden_output(1, 12, 0, 2).reshape(2, ROWS, 2, 3, 2))
    np.testing.assert_array_equal(second, golden_output(2, 5, 0, 2))
    record = json.loads((TAPS / f"kdcache/{FIRST}/segment.json").read_bytes())
    assert record["arrays"]["taps.0"]["chunk_grid"]["configuration"]["chunk_shape"] == [2, 64, 2, 3, 2]
    assert (TAPS / f"{FIRST}/taps.0/c/0/1/0/0/0").exists()

    store = Store.open(TAPS)
    some = np.array([69, 3, 64])
    rows = store.load(1, some, taps=["norm"])
    np.testing.assert_array_equal(rows.tap("norm"), second[1, some])
    assert rows.arrays.keys() == {"classes", "tail", "label", "taps.1", "pixels"}
    rows = store.load(1, some, features=True, taps=["norm", "layer1.0.conv2"])
    np.testing.assert_array_equal(rows.tap("layer1.0.conv2"), first[1, some])
    np.testing.assert_array_equal(rows.take(np.array([2])).tap("layer1.0.conv2"), first[1, [64]])
    with pytest.raises(MissingBlockError, match=r"no tap 'head' is kept; there are layer1.0.conv2, norm"):
        store.load(1, some, taps=["head"])
    assert describe_store(store)["taps"] == ["layer1.0.conv2 2x3x2", "norm 5"]
    assert {array.name for array in store_stats(store).arrays} >= {"features", "taps.0", "taps.1"}


@pytest.mark.parametrize(
    ("root", "field", "value", "named"),
    [
        (SAMPLED, "encoding.name", "drawn", "must be one of topk, full, sampled"),
        (SAMPLED, "encoding.k", 3, "k"),
        (MASS, "encoding.tail", "moments", "tail"),
        (MASS, "encoding.class_means", True, "class means need logits of the tail"),
        (TAPS, "encoding.maps", [], "maps"),
    ],
)
def test_unknown_keys_and_values_are_named(tmp_path: Path, root: Path, field: str, value: Any, named: str) -> None:
    path = Path(shutil.copytree(root, tmp_path / "new.kd"))
    set_identity(path, field, value)
    with pytest.raises(FormatError, match=f"identity.encoding.*{named}"):
        Store.open(path)
