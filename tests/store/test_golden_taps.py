"""The golden store of pooled taps, features and head, by the specification's table alone and by kdcache."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import DamagedError, FormatError
from kdcache.store.inspection import describe_store
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.golden.make import CLASSES, FEATURES, HERE, MASKED, POOLED, ROWS, golden_answers, golden_head, golden_output
from tests.kits.attacks import set_identity
from tests.store.test_golden import EVERYTHING, raw

STORE = HERE / "format1-pooled-taps.kd"
CONTENT_ID = "0528e439138318b2def1cfef49de05cd6e3c281bfb5dce0027356614e86d2438"
SEGMENT = "views-00000-00002"
NAMES = [tap.name for tap in POOLED]


def values_digest(values: Any) -> str:
    """The specification's digest of values: C order, little-endian."""
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()


def test_its_content_id_is_for_ever() -> None:
    store = Store.open(STORE)
    assert store.content_id == CONTENT_ID
    assert Store.open(f"{STORE}@{CONTENT_ID}").content_id == CONTENT_ID
    assert inspect_files(str(STORE)).whole


def test_names_shapes_and_values_by_the_table_alone() -> None:
    encoding = json.loads((STORE / "kdcache/manifest.json").read_bytes())["identity"]["encoding"]
    assert encoding["taps"] == [
        {"name": "layer2@2x1", "shape": [2, 2, 1]},
        {"name": "layer2", "shape": [2, 2, 3]},
        {"name": "blocks.3@1x2", "shape": [2, 5]},
    ]
    assert (encoding["features"], encoding["head"]) == (FEATURES, FEATURES)
    for number, (name, width) in enumerate({"features": 3, "taps.0": 4, "taps.1": 12, "taps.2": 10}.items()):
        stored = raw(STORE, f"{SEGMENT}/{name}")
        shape = (FEATURES,) if name == "features" else tuple(encoding["taps"][number - 1]["shape"])
        assert (str(stored.dtype), stored.shape) == ("float16", (2, ROWS, *shape))
        np.testing.assert_array_equal(stored.reshape(2, ROWS, width), golden_output(number, width, 0, 2))
    assert (STORE / f"{SEGMENT}/taps.0/c/0/1/0/0/0").exists()
    assert (STORE / f"{SEGMENT}/taps.2/c/0/1/0/0").exists()


def test_features_and_head_give_the_soft_labels_by_the_table_alone() -> None:
    """The top class and the label's distance to it are those of features @ weight.T + bias, less the masked class."""
    weight, bias = raw(STORE, "head/weight"), raw(STORE, "head/bias")
    assert [(str(values.dtype), values.shape) for values in (weight, bias)] == [
        ("float32", (CLASSES, FEATURES)),
        ("float32", (CLASSES,)),
    ]
    digests = {"bias": values_digest(bias), "weight": values_digest(weight)}
    record = json.dumps(digests, separators=(",", ":")) + "\n"
    seal = json.loads((STORE / f"kdcache/seals/{CONTENT_ID[:32]}.json").read_bytes())
    assert seal["head"] == hashlib.sha256(record.encode()).hexdigest()
    logits = raw(STORE, f"{SEGMENT}/features").astype("f4") @ weight.T + bias
    np.testing.assert_array_equal(logits, golden_answers(0, 2))
    logits[..., MASKED] = -np.inf
    np.testing.assert_array_equal(raw(STORE, f"{SEGMENT}/classes")[..., 0], logits.argmax(axis=2))
    labels, distance = raw(STORE, "labels"), raw(STORE, f"{SEGMENT}/label")
    known = (labels >= 0) & (labels != MASKED)
    expected = logits.max(axis=2)[:, known] - logits[:, known, labels[known]]
    np.testing.assert_array_equal(distance[:, known] / 64, expected)
    assert (distance[:, ~known] == 65535).all()


def test_kdcache_reads_the_same() -> None:
    store, some = Store.open(STORE), np.array([69, 3, 64])
    rows = store.load(1, some, features=True, taps=NAMES)
    for number, tap in enumerate(POOLED):
        stored = raw(STORE, f"{SEGMENT}/taps.{number}")[1, some]
        np.testing.assert_array_equal(rows.tap(tap.name), stored)
    assert {name: values.tolist() for name, values in store.head().items()} == {
        name: values.tolist() for name, values in golden_head().items()
    }
    logits = store.logits(1, EVERYTHING)
    expected = golden_answers(1, 2)[0]
    expected[:, MASKED] = -np.inf
    np.testing.assert_array_equal(logits, expected)
    assert describe_store(store)["taps"] == ["layer2@2x1 2x2x1", "layer2 2x2x3", "blocks.3@1x2 2x5"]


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    path = Path(shutil.copytree(STORE, tmp_path / "a.kd"))
    (file,) = (path / "head/bias/c").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    with pytest.raises(DamagedError, match="head/bias"):
        Store.open(path).head()


@pytest.mark.parametrize("name", ["layer2@2", "layer2@0x1", "layer2@2x1x1", "layer2 @2x1", "layer2@02x1", "@2x1"])
def test_a_size_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    path = Path(shutil.copytree(STORE, tmp_path / "new.kd"))
    set_identity(path, "encoding.taps", [{"name": name, "shape": [2, 2, 1]}])
    with pytest.raises(FormatError, match=r"identity.encoding.*with @HxW behind them"):
        Store.open(path)
