"""train: what a student remembers of its teachers, and temperatures that were calibrated on held-out rows."""

import json
from pathlib import Path

import pytest

from kdcache.errors import InvalidInputError, MismatchError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.store.inspection import describe_store
from kdcache.store.lineage import read_lineage
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import fit_temperature
from tests.kits import stages
from tests.kits.stages import NETWORK, Stage, metrics, student

stage = stages.stage

HELD_OUT = {"data_set": {"split": "test"}, "transform": "none", "transform_set": {}, "views": "1"}
SAME = {"width": 4, "dropout": 0.1}  # the student's own network, now a teacher


@pytest.fixture(scope="module")
def held_out(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A full store of the teacher on rows that it was not trained on."""
    path = str(tmp_path_factory.mktemp("held-out") / "test.kd")
    extract(stage.asked(path, encoding="full", **HELD_OUT))
    return path


def test_a_student_names_its_teachers_to_the_store_that_is_made_from_it(stage: Stage, tmp_path: Path) -> None:
    parent = Store.open(stage.store).content_id
    first = train(student(tmp_path / "first", store=(stage.store,)))
    assert [each.content_id for each in read_lineage(first.weights)] == [parent]
    asked = stage.asked(tmp_path / "second.kd", weights=first.weights, teacher_set=SAME, min_accuracy=0.0)
    second = extract(asked)
    assert Store.open(second.store).identity.parents == (parent,)
    third = train(student(tmp_path / "third", store=(second.store,)))
    extract(stage.asked(tmp_path / "fourth.kd", weights=third.weights, teacher_set=SAME, min_accuracy=0.0))
    (chain,) = describe_store(Store.open(tmp_path / "fourth.kd"))["parents"]
    shown = json.dumps(chain, default=str)
    assert str(second.content_id)[:16] in shown
    assert str(parent)[:16] in shown
    assert NETWORK in shown


def test_a_student_that_goes_on_without_a_store_stays_taught(stage: Stage, tmp_path: Path) -> None:
    first = train(student(tmp_path / "first", store=(stage.store,), epochs=1))
    tuned = train(student(tmp_path / "tuned", weights=first.weights, epochs=1))
    assert read_lineage(tuned.weights) == read_lineage(first.weights) != ()


def test_calibrated_is_the_temperature_that_calibrate_finds(stage: Stage, tmp_path: Path, held_out: str) -> None:
    fitted = fit_temperature(Store.open(held_out)).temperature
    full = extract(stage.asked(tmp_path / "full.kd", encoding="full")).store
    given = {"store": (full,), "epochs": 1}
    named = train(student(tmp_path / "named", temperature="calibrated", calibration_store=held_out, **given))
    train(student(tmp_path / "number", temperature=fitted, **given))
    assert metrics(tmp_path / "named") == metrics(tmp_path / "number")
    assert json.loads((Path(named.run) / "settings.json").read_text())["temperature"] == fitted
    beside = {"val_store": held_out, "val_set": {"split": "test"}}
    judged = train(student(tmp_path / "judged", temperature="calibrated", **beside, **given))
    assert judged.loss == named.loss


def test_calibration_is_of_the_same_teacher_and_within_reach(stage: Stage, tmp_path: Path, held_out: str) -> None:
    run = tmp_path / "run"
    other = tmp_path / "other.kd"
    extract(stage.asked(other, weights="", min_accuracy=0.0, encoding="full", **HELD_OUT))
    asked = {"store": (stage.store,), "temperature": "calibrated"}
    with pytest.raises(MismatchError, match=r"is of another teacher than (.|\n)*teacher.weights"):
        train(student(run, calibration_store=str(other), **asked))
    with pytest.raises(InvalidInputError, match="calibrated works with one --store; 2 were given"):
        train(student(run, calibration_store=held_out, **{**asked, "store": (stage.store, stage.store)}))
    assert fit_temperature(Store.open(held_out)).temperature < 1
    with pytest.raises(InvalidInputError, match=r"the temperature fitted to .* is 0\.\d+, and .* is used as top-k"):
        train(student(run, calibration_store=held_out, **asked))
    sketched = tmp_path / "sketched.kd"
    extract(stage.asked(sketched, **HELD_OUT))
    with pytest.raises(InvalidInputError, match=r"no temperature can be fitted to .*--encoding full"):
        train(student(run, calibration_store=str(sketched), **asked))
    assert not run.exists()
