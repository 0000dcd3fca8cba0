"""subclasses of a weights file that a student starts from: taken over, or refused where the student has others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdcache.base.progress import StopRequest, silent
from kdcache.errors import InvalidInputError
from kdcache.networks.small import convnet
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings
from kdcache.pipelines.sweep.check import Checker
from kdcache.pipelines.sweep.space import Point
from kdcache.pipelines.train.stage import train
from kdcache.store.lineage import read_subclasses, weights_metadata
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits import stages
from tests.kits.stages import NETWORK, ROWS, Stage, student
from tests.kits.views import trained_network

stage = stages.stage

SUB, CLASSES = 3, 10
WIDE: dict[str, Any] = {"student_set": {"width": 8}, "epochs": 1, "lr": 1e-9}
TEST: dict[str, Any] = {"val_set": {"split": "test", "limit": 100}}


def spread(number: int) -> Any:
    """The trained digits network with `number` equal logits for each class."""
    trained = trained_network()
    network = convnet(width=8, num_classes=CLASSES * number)
    state = {
        name: values.repeat_interleave(number, dim=0) if values.shape != network.state_dict()[name].shape else values
        for name, values in trained.state_dict().items()
    }
    network.load_state_dict(state)
    return network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of three subclasses a digit that knows the digits."""
    path = tmp_path_factory.mktemp("weights") / "sub.safetensors"
    save_weights(path, spread(SUB), metadata=weights_metadata((), subclasses=SUB))
    return str(path)


def accuracy(settings: Any) -> float:
    value: float = train(settings).validation["accuracy"]
    return value


def test_a_student_takes_over_the_subclasses_of_its_weights(stage: Stage, weights: str, tmp_path: Path) -> None:
    plain = accuracy(student(tmp_path / "plain", weights=stage.weights, **WIDE, **TEST))
    settings = student(tmp_path / "sub", weights=weights, **WIDE, **TEST)
    assert plain > 0.8
    assert accuracy(settings) == pytest.approx(plain, abs=0.03)
    assert json.loads((tmp_path / "sub/settings.json").read_text())["subclasses"] == SUB
    assert read_subclasses(tmp_path / "sub/weights/best.safetensors") == SUB
    assert accuracy(settings) == pytest.approx(plain, abs=0.03), "the same command goes on with the same run"
    assert Checker().check([Point("point", {}, settings)], silent, StopRequest()) == {"point": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subclasses": 1}, "trained with 3 subclasses a class, and the student has 1; leave .*, give --subclasses 3,"),
        ({"subclasses": 1, "student_set": {"width": 8, "num_classes": 30}}, "trained with 3 .* the student has 1"),
        ({"subclasses": 2, "student_set": {"width": 8, "num_classes": 30}}, "trained with 3 .* the student has 2"),
        ({"store": True}, "the student has 1; leave --weights out or start from a network with as many"),
        (
            {"student_set": {"width": 8, "num_classes": 10}},
            r"file answers 30 logits \(3 a class\), the network 10 \(3 a class\): give --student-set num_classes=30, "
            "or weights of 10 logits",
        ),
        (
            {"subclasses": 3, "weights": True},
            r"file answers 10 logits \(1 a class\), the network 30 \(3 a class\): give --subclasses 1, or",
        ),
    ],
)
def test_weights_of_other_subclasses_are_refused(
    stage: Stage, weights: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    own = {"store": (stage.store,)} if "store" in changes else {}
    own |= {"weights": stage.weights if "weights" in changes else weights}
    with pytest.raises(InvalidInputError, match=message):
        train(student(tmp_path / "x", **{**WIDE, **changes, **own}))


def test_a_teacher_s_weights_of_other_subclasses_are_told_too(stage: Stage, tmp_path: Path) -> None:
    wanted = (
        r"answers 10 logits \(1 a class\), the network 30 \(3 a class\): give --subclasses 1, or weights of 30 logits"
    )
    with pytest.raises(InvalidInputError, match=wanted):
        extract(stage.asked(tmp_path / "x.kd", subclasses=SUB))


def test_weights_that_name_none_are_taken_as_they_are_asked_with_a_note(tmp_path: Path) -> None:
    torch.save(spread(SUB).state_dict(), tmp_path / "plain.pt")
    summary = train(student(tmp_path / "run", weights=str(tmp_path / "plain.pt"), subclasses=SUB, **WIDE, **TEST))
    assert "plain.pt: they name no subclasses; each 3 consecutive logits are a class" in " ".join(summary.notes)
    assert summary.validation["accuracy"] > 0.8


def test_a_sweep_over_a_store_of_subclasses_is_checked(weights: str, tmp_path: Path) -> None:
    settings = {"store": str(tmp_path / "a.kd"), "teacher": NETWORK, "teacher_set": {"width": 8}, "weights": weights}
    extract(ExtractSettings.model_validate({**settings, "data": "digits", "data_set": {"limit": ROWS}, "workers": 0}))
    assert Store.open(tmp_path / "a.kd").identity.teacher.subclasses == SUB
    points = [
        Point(f"{number}", {}, student(tmp_path / f"{number}", store=(str(tmp_path / "a.kd"),), subclasses=number))
        for number in (None, 1, SUB)
    ]
    assert set(Checker().check(points, silent, StopRequest()).values()) == {0}
