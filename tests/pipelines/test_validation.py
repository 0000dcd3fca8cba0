"""train's validation: its own data, stores that are compared as one, folders of pictures, epochs that are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdcache.base.progress import StopRequest
from kdcache.cli.app import main
from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.networks.build import build_network
from kdcache.networks.weights import load_weights
from kdcache.objectives.targets import Targets, in_dtype
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.epoch_end import EpochEnd
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.views.sources import open_data
from tests.kits import stages
from tests.kits.stages import Stage, student

stage = stages.stage

TEST: dict[str, Any] = {"split": "test", "limit": 100}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def held_out(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Stores of the test split by the teacher and by another one, whose weights are those of a fresh network."""
    folder = tmp_path_factory.mktemp("held-out")
    clean: dict[str, Any] = {"transform": "none", "transform_set": {}, "views": "1", "data_set": TEST}
    extract(stage.asked(folder / "one.kd", **clean))
    torch.manual_seed(5)
    extract(stage.asked(folder / "two.kd", **clean, weights="", teacher_set={"width": 5}, min_accuracy=0.0))
    return str(folder / "one.kd"), str(folder / "two.kd")


@pytest.mark.parametrize("combine", ["probabilities", "logits", "predictions", "losses"])
@pytest.mark.parametrize("weights", [(), (3.0, 1.0)])
def test_several_stores_are_compared_as_one(
    stage: Stage, held_out: tuple[str, str], tmp_path: Path, combine: Any, weights: tuple[float, ...]
) -> None:
    run = student(
        tmp_path / "run", store=(stage.store, stage.store), val_set=TEST, val_store=held_out, epochs=1,
        combine=combine, ensemble_weights=weights,
    )  # fmt: skip
    found = train(run).validation
    network = build_network(run.student, run.student_set, 10, "student")
    load_weights(network, str(tmp_path / "run/weights/last.safetensors"), "student")
    batch = next(iter(Loader(open_data("digits", TEST), [*map(Store.open, held_out)], batch_size=100, epochs=1)))
    shown = "probabilities" if combine == "losses" else combine
    teachers = tuple(in_dtype(each, torch.float32) for each in batch.teachers)
    targets = Targets(teachers, combine=shown, weights=weights)
    with torch.no_grad():
        log_q = network.eval()(batch.images).log_softmax(dim=-1)
    log_p = targets.log_probs(1.0)
    assert found["agreement"] == pytest.approx(float((log_p.argmax(-1) == log_q.argmax(-1)).float().mean()))
    assert found["kl_to_teacher"] == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()), rel=1e-3)


def test_weights_of_another_number_of_stores_are_refused(
    stage: Stage, held_out: tuple[str, str], tmp_path: Path
) -> None:
    run = student(
        tmp_path / "run", store=(stage.store,) * 3, val_set=TEST, val_store=held_out, ensemble_weights=(1, 1, 2)
    )
    with pytest.raises(InvalidInputError, match=r"--ensemble-weights names 3 weights, --val-store 2 stores"):
        train(run)
    assert not (tmp_path / "run").exists()


def test_a_temperature_is_calibrated_by_one_store(stage: Stage, held_out: tuple[str, str], tmp_path: Path) -> None:
    run = student(tmp_path / "run", store=(stage.store,), val_set=TEST, val_store=held_out, temperature="calibrated")
    with pytest.raises(InvalidInputError, match=r"fitted to one held-out store, --val-store names 2.*--calibration"):
        train(run)


def test_data_of_its_own(stage: Stage, tmp_path: Path) -> None:
    """The same rows give the same figures, whichever flags name them; its own data takes no argument of --data."""
    split = student(tmp_path / "split", store=(stage.store,), val_set=TEST, epochs=1)
    own = student(tmp_path / "own", store=(stage.store,), val_data="digits", val_set=TEST, epochs=1)
    assert train(split).validation == train(own).validation
    moved = own.model_copy(update={"val_data": "", "val_set": TEST})
    assert train(moved).notes == (
        f"{tmp_path / 'own'} was finished before: nothing was trained",
    )  # the inputs are the same, by whatever name
    other = own.model_copy(update={"val_set": {"split": "test", "limit": 90}})
    with pytest.raises(MismatchError, match="rows"):
        train(other)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes in two splits, its pictures of many sizes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0)
    for split, count in (("train", 12), ("val", 4)):
        for number, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                height, width = rng.randint(20, 60, size=2)
                pixels = rng.randint(0, 128, size=(height, width, 3), dtype=np.uint8) + np.uint8(127 * number)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def folder_student(pictures: Path, run: Path, **changes: Any) -> TrainSettings:
    settings = {
        "run": str(run), "student": "kdcache.networks:convnet", "student_set": {"width": 4, "channels": 3},
        "workers": 0, "data": f"folder:{pictures / 'train'}", "val_data": f"folder:{pictures / 'val'}", "batch_size": 8,
        "transform": "imagenet", "transform_set": {"size": 16}, "epochs": 1, "device": "cpu",
    }  # fmt: skip
    return TrainSettings.model_validate({**settings, **changes})


def test_a_folder_is_cropped_at_its_centre_to_the_training_s_size(pictures: Path, tmp_path: Path) -> None:
    found = train(folder_student(pictures, tmp_path / "run")).validation
    named = {"val_transform": "center", "val_transform_set": {"size": 16}}
    assert train(folder_student(pictures, tmp_path / "named", **named)).validation == found
    record = json.loads((tmp_path / "run/settings.json").read_text())
    assert record["inputs"]["val"]["plan"]["transform"] == {"name": "center", "arguments": {"size": 16}, "text": ""}
    wider = train(folder_student(pictures, tmp_path / "wide", val_transform_set={"resize": 40})).validation
    assert wider["nll"] != found["nll"]


def test_a_transform_of_one_s_own_gives_the_size_of_its_views(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut.py").write_text(
        "from torchvision.transforms import v2\n\n\ndef cut(size):\n    return v2.RandomResizedCrop(size)\n"
    )
    monkeypatch.chdir(tmp_path)
    train(folder_student(pictures, tmp_path / "run", transform="cut.py:cut", transform_set={"size": 24}))
    record = json.loads((tmp_path / "run/settings.json").read_text())
    assert record["inputs"]["val"]["plan"]["transform"]["arguments"] == {"size": 24}


def test_a_transform_that_keeps_the_size_leaves_pictures_as_they_are(pictures: Path, tmp_path: Path) -> None:
    """Pictures of one size under pad-crop are validated as they are; those of many sizes need a transform."""
    with pytest.raises(InvalidInputError, match=r"views differ in shape.*--transform center"):
        train(folder_student(pictures, tmp_path / "run", transform="light", transform_set={}))


@pytest.mark.parametrize(("every", "measured"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (0, [4])])
def test_epochs_between_are_not_validated(stage: Stage, tmp_path: Path, every: int, measured: list[int]) -> None:
    run = student(tmp_path / "run", store=(stage.store,), val_set=TEST, epochs=5, val_epochs=every)
    summary = train(run)
    found = lines(tmp_path / "run")
    assert [line["epoch"] for line in found if "accuracy" in line] == measured
    assert summary.best_accuracy == max(line["accuracy"] for line in found if "accuracy" in line)
    assert (tmp_path / "run/weights/best.safetensors").is_file()
    assert ("val_epochs" in json.loads((tmp_path / "run/settings.json").read_text())) == (every != 1)


def test_the_best_weights_are_of_an_epoch_that_was_measured(stage: Stage, tmp_path: Path) -> None:
    """Those of the last one, though a run without validation calls each epoch the best so far."""
    kept = student(tmp_path / "run", store=(stage.store,), val_set=TEST, epochs=4, val_epochs=3, keep_epochs=(3, 4))
    train(kept)
    weights = {name: (tmp_path / f"run/weights/{name}.safetensors").read_bytes() for name in ("best", "epoch-0003")}
    accuracy = {line["epoch"]: line["accuracy"] for line in lines(tmp_path / "run") if "accuracy" in line}
    last = (tmp_path / "run/weights/last.safetensors").read_bytes()
    assert accuracy.keys() == {2, 3}
    assert weights["best"] == (weights["epoch-0003"] if accuracy[2] >= accuracy[3] else last)


@pytest.mark.parametrize("every", [0, 2])
def test_a_stopped_run_goes_on_as_one_that_was_not(stage: Stage, tmp_path: Path, every: int) -> None:
    settings = {"store": (stage.store,), "val_set": TEST, "epochs": 3, "val_epochs": every}
    train(student(tmp_path / "whole", **settings))
    stop, ends = StopRequest(), []

    def announce(end: EpochEnd) -> None:
        ends.append(end)
        stop.requested = True

    with pytest.raises(InterruptedRunError):
        train(student(tmp_path / "run", **settings), stop=stop, announce=announce)
    assert [end.line["epoch"] for end in ends] == [0]
    assert not (tmp_path / "run/weights/best.safetensors").exists()
    summary = train(student(tmp_path / "run", **settings))
    assert summary.notes == ()
    for name in ("last", "best"):
        one, other = ((tmp_path / run / f"weights/{name}.safetensors").read_bytes() for run in ("run", "whole"))
        assert one == other


def test_each_epoch_ends_with_a_line(
    stage: Stage, held_out: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "train", tmp_path / "run", "--data", "digits", "--data-set", "limit=300", "--store", stage.store,
        "--student", "kdcache.networks:convnet", "--student-set", "width=4", "--workers", 0, "--device", "cpu",
        "--val-set", "split=test", "--val-set", "limit=100", "--val-store", held_out[0], "--epochs", 2,
    ]  # fmt: skip
    assert _exit_code(given) == 0
    error = capsys.readouterr().err
    found = [line for line in error.splitlines() if line.startswith("epoch ")]
    assert len(found) == 2
    for line, text in zip(lines(tmp_path / "run"), found, strict=True):
        words = [f"loss {line['loss']:.4g}", f"lr {line['lr']:.3g}", f"val accuracy {100 * line['accuracy']:.2f} %"]
        words += ["best ", f"agreement {100 * line['agreement']:.2f} %", f"{line['seconds']:.1f} s"]
        assert text.startswith(f"epoch {line['epoch'] + 1} of 2: ")
        assert all(word in text for word in words), text
    assert _exit_code(["train", tmp_path / "other", *given[2:], "--json"]) == 0
    assert "epoch" not in capsys.readouterr().err


def _exit_code(given: list[Any]) -> Any:
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in given])
    return left.value.code
