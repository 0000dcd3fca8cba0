"""train --select-set: the rows that decide, the records, runs that go on, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.progress import StopRequest
from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.sweep.names import point_name
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.together import train_together
from kdcache.training.run_folder import load_state
from tests.kits import stages
from tests.kits.stages import Stage, metrics, stop_after, student, weights_of

stage = stages.stage


def selected(stage: Stage, run: Path, **changes: Any) -> TrainSettings:
    """A student of 300 digits by two terms, which 100 others select at each third step."""
    given = {"store": [stage.store], "objective": "kd+dist", "select_set": {"range": "300:400"}, "select_steps": 3}
    return student(run, **{**given, "epochs": 3, "temperature": None, **changes})


def record(run: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((run / "settings.json").read_text())
    return settings


def test_the_share_of_steps_that_each_term_was_on_is_in_the_records(stage: Stage, tmp_path: Path) -> None:
    summary = train(selected(stage, tmp_path / "run", val_set={"split": "test"}))
    lines = metrics(tmp_path / "run")
    assert summary.selected == {name: tuple(line[f"selected.{name}"] for line in lines) for name in ("kd", "dist")}
    shares = np.array(list(summary.selected.values()))
    assert shares.shape == (2, 3)
    assert np.allclose(shares * 5, np.round(shares * 5))  # five steps an epoch
    assert 0 < shares.mean() < 1
    assert not any(name.startswith("selected") for name in summary.validation)
    assert summary.model_dump()["selected"] == summary.selected
    assert record(tmp_path / "run")["inputs"]["select"]["dataset"]["rows"] == 100
    plain = train(student(tmp_path / "plain", store=[stage.store], epochs=1))
    assert "selected" not in plain.model_dump()
    assert not {"select_set", "select_steps", "select_rate"} & record(tmp_path / "plain").keys()
    assert "select" not in record(tmp_path / "plain")["inputs"]


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(stage: Stage, tmp_path: Path, steps: int) -> None:
    train(selected(stage, tmp_path / "whole"))
    stop, progress = stop_after(steps)
    with pytest.raises(InterruptedRunError):
        train(selected(stage, tmp_path / "cut"), stop=stop, progress=progress)
    train(selected(stage, tmp_path / "cut"), stop=StopRequest())
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    states = [(load_state(tmp_path / name) or {})["objective"] for name in ("cut", "whole")]
    assert states[0] == states[1]


def test_students_together_select_as_each_does_alone(stage: Stage, tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{}, {"select_rate": 0.0, "select_steps": 1}, {"seed": 0, "objective": "dkd+kd"}]
    for number, changes in enumerate(kinds):
        train(selected(stage, tmp_path / f"alone {number}", **changes))
    outcomes = train_together([selected(stage, tmp_path / f"group {n}", **changes) for n, changes in enumerate(kinds)])
    assert [outcome.error for outcome in outcomes] == [None] * 3
    for number in range(len(kinds)):
        assert weights_of(tmp_path / f"group {number}") == weights_of(tmp_path / f"alone {number}")
        assert metrics(tmp_path / f"group {number}") == metrics(tmp_path / f"alone {number}")


def test_terms_are_selected_by_the_loss_that_validation_would_measure(stage: Stage, tmp_path: Path) -> None:
    one_step = {"batch_size": 300, "lr": 1e-12}  # an epoch, which moves the statistics of batch norm alone
    train(selected(stage, tmp_path / "run", **one_step, epochs=2, select_steps=1, select_rate=0.0))
    by_first = {"objective": "kd+dist", "temperature": None, "store": [stage.store]}
    train(student(tmp_path / "plain", **by_first, **one_step, epochs=1, val_set={"range": "300:400"}))
    state = load_state(tmp_path / "run")
    assert state is not None
    (policy,) = [value for key, value in state["objective"].items() if key.endswith("selection._extra_state")]
    assert policy["loss"] == pytest.approx(metrics(tmp_path / "plain")[0]["nll"], rel=1e-5)


def test_a_selection_goes_beside_a_curriculum_and_ramps(stage: Stage, tmp_path: Path) -> None:
    settings = {
        "objective": "kd+dkd",
        "curriculum": "2:0.5",
        "temperature": None,
        "over_epochs": {"kd.w_kd": "0:1,2:0"},
    }
    summary = train(selected(stage, tmp_path / "run", **settings))
    assert summary.selected.keys() == {"kd", "dkd"}


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"objective": "kd"}, r"among several terms, and --objective is kd; join some, such as kd\+hint"),
    ({"objective": ""}, "and --objective is kd; join some"),
    ({"then": ("1:kd",)}, "among the terms of one objective, and --then changes it"),
    ({"objective": "kd", "kd_epochs": 2}, "and --kd-epochs changes it; leave one of them out"),
    ({"set": {"kd.w_ce": 0.0}}, r"w_ce of objective kd\+dist is 0: nothing would be learned then; raise w_ce"),
    (
        {"select_set": {"range": "250:350"}},
        r"50 of the 100 rows that --select-set range=250:350 names are learned from",
    ),
    ({"select_set": {"range": "0:300"}}, r"300 of the 300 rows .* are learned from"),
    ({"select_set": {"split": "train", "range": "299:301"}}, r"1 of the 2 rows .* are learned from"),
    (
        {"select_set": {"split": "test", "range": "0:50"}, "val_set": {"split": "test"}},
        r"50 of the 50 rows that --select-set split=test range=0:50 names are the validation's",
    ),
    ({"trust": "held.kd"}, r"--trust weighs hard labels against one objective"),
    ({"store": (), "objective": ""}, "--select-set shape an objective, and without a store"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSALS)
def test_a_selection_is_refused_where_it_does_not_go(
    stage: Stage, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        train(selected(stage, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_run_goes_on_with_its_held_out_rows_alone(stage: Stage, tmp_path: Path) -> None:
    stop, progress = stop_after(2)
    with pytest.raises(InterruptedRunError):
        train(selected(stage, tmp_path / "run"), stop=stop, progress=progress)
    for changes in ({"select_set": {"range": "300:401"}}, {"select_steps": 4}, {"select_rate": 0.0}):
        with pytest.raises(MismatchError, match="select"):
            train(selected(stage, tmp_path / "run", **changes))


def test_settings_of_a_selection_without_rows_are_noted_and_name_points(stage: Stage, tmp_path: Path) -> None:
    summary = train(student(tmp_path / "run", store=[stage.store], epochs=1, select_rate=0.0))
    assert any("--select-rate" in note or "select_rate" in note for note in summary.notes)
    plain = selected(stage, tmp_path / "point")
    others = [plain.model_copy(update=change) for change in ({"select_rate": 0.0}, {"select_set": {"range": "1:2"}})]
    assert len({point_name(settings, {}, tmp_path) for settings in (plain, *others)}) == 3


def test_students_with_subclasses_are_selected_by_the_loss_of_their_classes(stage: Stage, tmp_path: Path) -> None:
    terms = {"objective": "subclass+confidence-penalty", "set": {"confidence-penalty.w_ce": 0.0}, "subclasses": 3}
    train(selected(stage, tmp_path / "run", **terms, store=(), epochs=1, lr=1e-6))
    state = load_state(tmp_path / "run")
    assert state is not None
    (loss,) = [value["loss"] for key, value in state["objective"].items() if key.endswith("selection._extra_state")]
    assert abs(loss - np.log(10)) < abs(loss - np.log(30)), "an untrained student knows nothing of 10 classes"
