"""Runs as users meet them: validation that cannot work, weights, longer runs, students that misbehave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train import stage as train_stage
from kdcache.pipelines.train.stage import train
from kdcache.training.run_folder import epochs_done, load_state
from tests.kits import stages
from tests.kits.doors import Door
from tests.kits.pictures import write_pictures
from tests.kits.stages import Stage, metrics, student, weights_of

stage = stages.stage

NET = ("--student", "kdcache.networks:convnet", "--student-set", "width=2")
DIGITS = ("--data", "digits", "--data-set", "limit=300", "--workers", 0, "--batch-size", 64, "--lr", 0.05)
VALIDATED = ("--val-set", "split=test", "--val-set", "limit=90")
TEST: dict[str, Any] = {"val_set": {"split": "test", "limit": 90}}


@pytest.mark.situation(
    "validation pictures of several sizes, --val-transform none",
    "--val-transform, the sizes of two samples and of the training views",
    exit_code=2,
    left="nothing new",
)
def test_validation_pictures_of_several_sizes(door: Door) -> None:
    write_pictures(door.folder / "data/train", each=5)
    write_pictures(door.folder / "data/val", each=5, seed=1)
    path = door.folder / "data/val/eye/002.png"
    from PIL import Image

    Image.open(path).resize((20, 31)).save(path)
    words = (
        "train", "run", "--student", "kdcache.networks:convnet", "--student-set", "channels=3", "--data", "folder:data",
        "--data-set", "split=train", "--transform", "imagenet", "--transform-set", "size=16", "--workers", 0,
        "--val-set", "split=val",
    )  # fmt: skip
    message = door.refused(*words, "--val-transform", "none")
    for part in ("--val-transform center --val-transform-set size=16", "[3, 24, 24]", "[3, 31, 20]", "16x16"):
        assert part in message
    before = door.files
    done = door.done(*words, "--epochs", 1)
    assert done["epochs"] == 1
    assert set(before) < set(door.contents())
    plain = ("train", "other", *words[2:8], "--data-set", "split=val", "--workers", 0)
    message = door.refused(*plain)
    assert "views differ in shape" in message
    assert "--transform center --transform-set size=24" in message


@pytest.mark.situation(
    "validation fails or is killed after an epoch",
    "the error; the epoch's checkpoint stands, and the same command validates it",
    exit_code=0,
    left="a run with its weights",
)
@pytest.mark.parametrize("at", [1, 2])
def test_a_validation_that_fails_loses_no_epoch(door: Door, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    settings = student(door.folder / "run", **TEST)
    calls, real = [0], train_stage.validate

    def failing(*words: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise KeyboardInterrupt
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(train_stage, "validate", failing)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    state = load_state(door.folder / "run")
    assert state is not None
    assert (state["epoch"], state["step"], epochs_done(door.folder / "run")) == (at, 0, at - 1)
    assert len(metrics(door.folder / "run")) == at - 1
    words = stages.arguments(settings)
    assert door.done(*words)["notes"] == []
    whole = student(door.folder / "whole", **TEST)
    train(whole)
    assert weights_of(door.folder / "run") == weights_of(door.folder / "whole")
    assert metrics(door.folder / "run") == metrics(door.folder / "whole")


@pytest.mark.situation(
    "a checkpoint with several state dicts that fit",
    "FILE#KEY for each; one that is named is taken",
    exit_code=2,
    left="nothing new",
)
def test_a_checkpoint_of_several_state_dicts(door: Door, stage: Stage) -> None:
    state = load_file(stage.weights)
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"net": {f"module.{name}": value for name, value in state.items()}, "ema": zeros}, "w.pt")
    words = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "width=8", "--data", "digits", "--data-set",
             "limit=300", "--workers", 0, "--top-k", 3)  # fmt: skip
    summary = door.done("extract", "s.kd", *words, "--weights", "w.pt#net")
    assert summary["accuracy_clean"] > 0.8
    assert any("module." in note for note in summary["notes"])
    assert "w.pt#net, w.pt#ema" in door.refused("extract", "t.kd", *words, "--weights", "w.pt")


LONGER: dict[str, dict[str, Any]] = {
    "constant": {"schedule": "constant"},
    "step": {"schedule": "step", "step_epochs": (1, 3), **TEST},
    "warm-up": {"schedule": "constant", "warmup_epochs": 1.5, "ema": 0.5, **TEST},
    "ramp": {"schedule": "constant", "over_epochs": {"w_kd": "0:0.9,3:0.1"}, "taught": True},
    "phases": {"schedule": "constant", "then": ("1:dkd",), "taught": True},
}


@pytest.mark.parametrize("name", LONGER)
def test_a_run_made_longer_equals_one_that_was_as_long_from_the_start(door: Door, stage: Stage, name: str) -> None:
    changes = dict(LONGER[name])
    if changes.pop("taught", False):
        changes["store"] = (stage.store,)
    short, longer, whole = (
        student(door.folder / folder, epochs=epochs, device="cpu", **changes)
        for folder, epochs in [("run", 2), ("run", 4), ("whole", 4)]
    )
    assert train(short).notes == ()
    assert train(longer).notes == ()
    train(whole)
    assert weights_of(door.folder / "run") == weights_of(door.folder / "whole")
    assert metrics(door.folder / "run") == metrics(door.folder / "whole")
    assert (door.folder / "run/settings.json").read_bytes() == (door.folder / "whole/settings.json").read_bytes()
    states = [load_state(door.folder / folder) or {} for folder in ("run", "whole")]
    assert states[0].pop("weights") == states[1].pop("weights")
    torch.testing.assert_close(*states, rtol=0, atol=0)
    (note,) = train(longer).notes
    assert "was finished before" in note


@pytest.mark.situation(
    "more --epochs for a finished run",
    "it goes on where schedule and objective do not count by the total; else the way to a new run from its weights",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [({}, "schedule cosine"), ({"schedule": "constant", "objective": "taid", "temperature": None}, "its objective")],
)
def test_a_run_that_counts_by_its_end_is_not_made_longer(
    door: Door, stage: Stage, changes: dict[str, Any], reason: str
) -> None:
    given = student("run", store=(stage.store,), **changes).model_dump(exclude_unset=True)
    asked = TrainSettings.model_validate({name: value for name, value in given.items() if value is not None})
    train(asked)
    message = door.refused(*stages.arguments(asked.model_copy(update={"epochs": 3})))
    assert "epochs: the run has 2, this run has 3" in message
    assert reason in message
    assert "--weights run/weights/last.safetensors" in message
    follower = TrainSettings.model_validate(
        asked.model_dump(exclude_unset=True) | {"run": "new", "epochs": 1, "weights": "run/weights/last.safetensors"}
    )
    assert train(follower).epochs == 1
    shorter = asked.model_copy(update={"epochs": 1})
    assert "longer, not shorter" in door.refused(*stages.arguments(shorter))


def test_a_run_of_nan_is_no_run(door: Door) -> None:
    assert "the loss is" in door.refused("train", "run", *NET, *DIGITS[:-2], "--lr", 1e30)
    assert not (Path("run") / "weights").exists()


@pytest.fixture
def finished(door: Door) -> Path:
    """The folder of a run that is done."""
    door.done("train", "run", *NET, *DIGITS, "--epochs", 1)
    return door.folder / "run"


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("checkpoints/state.pt", b"garbage", "it is no checkpoint, or damaged; delete it to begin the run anew"),
        ("checkpoints/state.pt", b"", "it is no checkpoint, or damaged"),
        ("checkpoints/state.pt", {"weights": 1}, "it is no checkpoint of a run"),
        ("checkpoints/state.pt", {"epoch": 1, "step": 0}, "it lacks best, ema, loss_sum, network"),
        ("settings.json", b'{"a"', "is damaged, so nobody knows the settings of its run"),
    ],
)
def test_a_run_with_a_damaged_file_is_told(door: Door, finished: Path, name: str, content: Any, part: str) -> None:
    path = finished / name
    if isinstance(content, dict):
        torch.save(content, path)
    else:
        path.write_bytes(content)
    message = door.refused("train", "run", *NET, *DIGITS, "--epochs", 1)
    assert part in message
    assert f"run/{name}" in message
    assert "weights_only" not in message  # torch's advice is to run the file's code
    if name != "settings.json":
        path.unlink()
        assert door.done("train", "run", *NET, *DIGITS, "--epochs", 1)["notes"] == []


def test_lines_of_metrics_that_are_none_are_left_out(door: Door, finished: Path) -> None:
    path = finished / "metrics.jsonl"
    lines = path.read_bytes()
    path.write_bytes(b'\xff\xfe{"x"}\n{"epoch": "a"}\n{"x"}\n[1]\n\0\0\0\n' + lines)
    door.done("train", "run", *NET, *DIGITS, "--epochs", 1)
    assert path.read_bytes() == lines


CHANGING = """from pathlib import Path
from kdcache.networks import convnet

def net(num_classes=10):
    return convnet(width=int(Path("width").read_text()), num_classes=num_classes)
"""


def test_a_student_whose_code_changed_does_not_go_on(door: Door) -> None:
    door.write("nets.py", CHANGING)
    door.write("width", "2")
    words = ("train", "run", "--student", "nets.py:net", *DIGITS, "--schedule", "constant", "--epochs")
    door.done(*words, 1)
    door.write("width", "4")
    message = door.refused(*words, 2)
    for part in ("the checkpoint is of another network", "[2, 1, 3, 3]", "[4, 1, 3, 3]"):
        assert part in message
    door.write("width", "2")
    assert door.done(*words, 2)["epochs"] == 2
