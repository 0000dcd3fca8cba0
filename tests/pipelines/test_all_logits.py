"""Store.logits: all logits from features and classifier are the teacher's own, within the bound that is stated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits import stages
from tests.kits.stages import ROWS, Stage
from tests.kits.views import trained_network

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


CHANGED = '''"""kdcache's convnet, whose answer is its last layer's, changed by `how`."""
import torch
from kdcache.networks import convnet


class Net(torch.nn.Module):
    def __init__(self, num_classes, how="as it is"):
        super().__init__()
        self.network, self.how = convnet(width=8, num_classes=num_classes), how

    def forward(self, images):
        logits = self.network(images)
        if self.how == "scaled":
            return 2 * logits
        if self.how == "capped":
            return 4 * torch.tanh(logits / 4)
        if self.how == "normalised":
            return logits.log_softmax(dim=1)
        return logits.flip(1) if self.how == "turned" else logits
'''


class Held(nn.Module):
    """The trained network under the name that it has inside `CHANGED`."""

    def __init__(self) -> None:
        super().__init__()
        self.network = trained_network()


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("changed")
    (folder / "net.py").write_text(CHANGED)
    save_weights(folder / "w.safetensors", Held())
    teacher = {"teacher": f"{folder}/net.py:Net", "weights": str(folder / "w.safetensors"), "min_accuracy": 0.0}
    return lambda how: {**teacher, "teacher_set": {"how": how}, "keep": ("features", "head"), "views": "1"}


@pytest.mark.parametrize(("how", "holds"), [("scaled", False), ("capped", False), ("normalised", True)])
def test_extract_notes_what_store_logits_will_refuse(
    stage: Stage, tmp_path: Path, changed: Callable[[str], dict[str, Any]], how: str, holds: bool
) -> None:
    """A network that scales its last layer's answer, or bends it, is told so before its first block, and kept."""
    notes = extract(stage.asked(tmp_path / "a.kd", **changed(how))).notes
    told = [note for note in notes if note.startswith("features and head do not give the answers to")]
    assert len(told) == (not holds)
    store = Store.open(tmp_path / "a.kd")
    if holds:
        assert store.logits(0, np.arange(ROWS)).shape == (ROWS, 10)
    else:
        assert "Store.logits will refuse; where all logits are wanted, extract with --encoding full" in told[0]
        with pytest.raises(InvalidInputError, match=r"do not give the stored soft labels"):
            store.logits(0, np.arange(ROWS))


def test_a_store_that_keeps_one_of_them_or_all_logits_needs_no_note(
    stage: Stage, tmp_path: Path, changed: Callable[[str], dict[str, Any]]
) -> None:
    for name, more in {"a.kd": {"keep": ("head",)}, "b.kd": {"encoding": "full", "top_k": 10}}.items():
        notes = extract(stage.asked(tmp_path / name, **{**changed("scaled"), **more})).notes
        assert not [note for note in notes if "features and head" in note]


def test_a_last_layer_that_orders_the_classes_otherwise_is_no_classifier(
    stage: Stage, tmp_path: Path, changed: Callable[[str], dict[str, Any]]
) -> None:
    with pytest.raises(InvalidInputError, match="last linear layer is not its classifier"):
        extract(stage.asked(tmp_path / "a.kd", **changed("turned")))
    assert not (tmp_path / "a.kd").exists()
