"""--teacher run:FOLDER: a run's network, arguments, weights, normalisation and lineage in one word; kept epochs."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from kdcache.base.records import flatten
from kdcache.errors import InvalidInputError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.taps import list_taps
from kdcache.pipelines.taps_settings import TapsSettings
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.store import Store
from kdcache.training.run_folder import file_digest
from tests.kits import stages
from tests.kits.ranks import commanded, launch
from tests.kits.stages import Stage, student
from tests.kits.tapped import Tapped

stage = stages.stage

TRAINED: dict[str, Any] = {"epochs": 4, "val_set": {"split": "test", "limit": 100}, "mean": (0.3,), "std": (0.4,)}


@pytest.fixture(scope="module")
def run(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of a store, validated, with the weights of two epochs kept."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    train(student(folder, store=(stage.store,), keep_epochs=(1, 3), **TRAINED))
    return folder


def asked(stage: Stage, store: Path, teacher: str, **changes: Any) -> Store:
    extract(
        stage.asked(store, **{"teacher": teacher, "teacher_set": {}, "weights": "", "min_accuracy": 0.0, **changes})
    )
    return Store.open(store)


@pytest.mark.parametrize(
    ("mark", "file"), [("", "best"), ("@last", "last"), ("@best", "best"), ("@epoch-3", "epoch-0003")]
)
def test_it_is_what_the_flags_spell_out(stage: Stage, run: Path, tmp_path: Path, mark: str, file: str) -> None:
    short = asked(stage, tmp_path / "short.kd", f"run:{run}{mark}")
    spelled = asked(
        stage, tmp_path / "long.kd", "kdcache.networks:convnet", teacher_set={"width": 4, "dropout": 0.1},
        weights=str(run / f"weights/{file}.safetensors"), mean=(0.3,), std=(0.4,),
    )  # fmt: skip
    assert short.content_id == spelled.content_id
    assert short.identity.parents == (Store.open(stage.store).content_id,)
    assert short.identity.teacher.mean == (0.3,)


def test_verify_and_taps_take_it_too(stage: Stage, run: Path, tmp_path: Path) -> None:
    store = asked(stage, tmp_path / "a.kd", f"run:{run}")
    settings = {"store": str(store.folder.root), "data": "digits", "data_set": {"limit": 300}, "teacher": f"run:{run}"}
    verdict = verify(VerifySettings.model_validate(settings))
    assert verdict.whole
    assert "teacher answers" in {check.name for check in verdict.checks}
    listed = list_taps(TapsSettings.model_validate({"network": f"run:{run}", "size": 8, "channels": 1}))
    assert listed.features == 8


def test_a_run_of_simkd_teaches_through_its_teacher_s_classifier(stage: Stage, tmp_path: Path) -> None:
    tapped = Tapped.of(stage, tmp_path)
    train(tapped.settings(tmp_path / "simkd", "simkd"))
    store = asked(
        stage, tmp_path / "taught.kd", f"run:{tmp_path / 'simkd'}", transform="none", transform_set={}, views="1"
    )
    assert store.identity.teacher.name == "kdcache.networks:simkd"
    assert store.identity.parents == (Store.open(tapped.folder / "taps.kd").content_id,)


def refused(stage: Stage, tmp_path: Path, teacher: str, message: str, **changes: Any) -> None:
    with pytest.raises(InvalidInputError, match=message):
        asked(stage, tmp_path / "refused.kd", teacher, **changes)
    assert not (tmp_path / "refused.kd").exists()


def test_what_is_no_run_is_refused(stage: Stage, run: Path, tmp_path: Path) -> None:
    refused(stage, tmp_path, f"run:{tmp_path / 'none'}", r"none holds no run; name the folder that kdcache train wrote")
    names = r"there are no weights 'epoch-7'; there are best, epoch-1, epoch-3, last \(kdcache train --keep-epochs"
    refused(stage, tmp_path, f"run:{run}@epoch-7", names)
    refused(stage, tmp_path, f"run:{run}@first", "there are no weights 'first'")
    refused(stage, tmp_path, f"run:{run}", "has arguments and weights of its own; leave out --weights x", weights="x")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / "settings.json", bare)
    refused(stage, tmp_path, f"run:{bare}", "bare has no weights yet; let it train for an epoch")
    (bare / "settings.json").write_text("{")
    refused(stage, tmp_path, f"run:{bare}", "settings.json is damaged")


def test_a_student_s_file_that_is_elsewhere_is_refused(stage: Stage, tmp_path: Path) -> None:
    tapped = Tapped.of(stage, tmp_path)
    train(tapped.settings(tmp_path / "run", "kd", epochs=1))
    (tmp_path / "student.py").rename(tmp_path / "moved.py")
    refused(stage, tmp_path, f"run:{tmp_path / 'run'}", "student.py is not in .*: go to the folder")


def test_a_folder_with_an_at_in_its_name(stage: Stage, run: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a@last"
    shutil.copytree(run, odd)
    assert asked(stage, tmp_path / "odd.kd", f"run:{odd}").identity.teacher.weights


def test_kept_epochs_are_those_of_runs_of_that_length(stage: Stage, run: Path, tmp_path: Path) -> None:
    """Constant rates: the weights after an epoch are the last ones of a run that ends there."""
    common = {"schedule": "constant", **TRAINED}
    train(student(tmp_path / "long", keep_epochs="1,3", **common))
    for epoch in (1, 3):
        train(student(tmp_path / f"{epoch}", **{**common, "epochs": epoch}))
        kept = file_digest(tmp_path / f"long/weights/epoch-{epoch:04d}.safetensors")
        assert kept == file_digest(tmp_path / f"{epoch}/weights/last.safetensors")
    assert not (tmp_path / "long/weights/epoch-0002.safetensors").exists()


def test_a_killed_run_keeps_the_same(stage: Stage, tmp_path: Path) -> None:
    tapped = Tapped.of(stage, tmp_path)
    settings = tapped.settings(tmp_path / "killed", "kd", epochs=3, keep_epochs=(1, 2))
    fail = {"FAIL_RANK": "0", "FAIL_AT": "8", "FAIL_BY": "SIGKILL"}
    assert launch(1, commanded, settings, tmp_path / "notes", environ=fail) == [-signal.SIGKILL]
    train(settings)
    train(tapped.settings(tmp_path / "whole", "kd", epochs=3, keep_epochs=(1, 2)))
    for epoch in (1, 2):
        files = [tmp_path / run / f"weights/epoch-{epoch:04d}.safetensors" for run in ("killed", "whole")]
        assert file_digest(files[0]) == file_digest(files[1])


def test_other_epochs_may_be_kept_later_and_past_ones_are_told(stage: Stage, tmp_path: Path) -> None:
    settings = student(tmp_path / "run", epochs=2, schedule="constant")
    train(settings)
    assert "keep_epochs" not in flatten(json.loads((tmp_path / "run/settings.json").read_text()))
    longer: TrainSettings = settings.model_copy(update={"epochs": 4, "keep_epochs": (1, 3)})
    summary = train(longer)
    assert any("epoch 1 is past: its weights cannot be kept any more" in note for note in summary.notes)
    assert (tmp_path / "run/weights/epoch-0003.safetensors").exists()
    with pytest.raises(InvalidInputError, match=r"--keep-epochs names 5, the run has 4 epochs"):
        train(longer.model_copy(update={"keep_epochs": (5,)}))
