"""Store.logits: all logits from features and classifier are the teacher's own, within the bound that is stated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import ROWS, Stage

stage = stages.stage

POSITIONS = np.array([299, 0, 64, 65, 130])

DOUBLING = '''"""kdcache's convnet, whose answer is its last layer's at the first call, and twice that later."""
import torch
from kdcache.networks import convnet

calls = 0


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.network = convnet(width=8, num_classes=num_classes)

    def forward(self, images):
        global calls
        calls += 1
        return self.network(images) * (1 if calls == 1 else 2)
'''


def log_softmax(logits: Any) -> Any:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_they_are_the_teacher_s_own(stage: Stage, tmp_path: Path, mix: str) -> None:
    """Held against a full store of the same teacher: f16 of the centred logits, so 2^-11 of the largest, and twice the
    rounding of the features."""
    small = extract(stage.asked(tmp_path / "a.kd", keep=("features", "head"), mix=mix))
    extract(stage.asked(tmp_path / "full.kd", encoding="full", top_k=10, mix=mix))
    store, full = Store.open(tmp_path / "a.kd"), Store.open(tmp_path / "full.kd")
    for view in (0, 1):
        logits = store.logits(view, np.arange(ROWS))
        assert logits.shape == (ROWS, 10)
        expected = full.logits(view, np.arange(ROWS))
        weight, features = store.head()["weight"], store.load(view, np.arange(ROWS), features=True).arrays["features"]
        bound = 2 * 2**-11 * (np.abs(features.astype("f4")) @ np.abs(weight).T).max() + 2 * 2**-11 * -expected.min()
        assert np.abs(log_softmax(logits) - expected).max() < bound < 0.5
        np.testing.assert_allclose(store.logits(view, POSITIONS), logits[POSITIONS], atol=1e-4)
    assert small.rows == 2 * ROWS


def test_a_masked_class_has_none(stage: Stage, tmp_path: Path) -> None:
    extract(stage.asked(tmp_path / "a.kd", keep=("features", "head"), mask_classes=(3,)))
    logits = Store.open(tmp_path / "a.kd").logits(0, POSITIONS)
    assert np.isneginf(logits[:, 3]).all()
    assert np.isfinite(np.delete(logits, 3, axis=1)).all()


def test_a_store_without_both_is_told(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(MissingBlockError, match=r"top 3, .*: all logits follow .*--keep features,head"):
        Store.open(stage.store).logits(0, POSITIONS)


def test_a_teacher_that_does_more_than_its_last_layer_is_found_out(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(DOUBLING)
    teacher = {"teacher": f"{tmp_path}/net.py:Net", "teacher_set": {}, "weights": "", "min_accuracy": 0.0}
    extract(stage.asked(tmp_path / "a.kd", keep=("features", "head"), **teacher))
    with pytest.raises(InvalidInputError, match=r"do not give the stored soft labels of \d+ of 300 rows: at position"):
        Store.open(tmp_path / "a.kd").logits(0, np.arange(ROWS))
