"""train --trust and --curriculum: what they weigh, what stands in the record, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.pacing import Pacing
from kdcache.base.progress import StopRequest
from kdcache.errors import InterruptedRunError, InvalidInputError, KdcacheError, MismatchError
from kdcache.networks.small import convnet
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings, load_settings
from kdcache.pipelines.sweep.names import point_name
from kdcache.pipelines.train.curriculum import Curriculum
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from kdcache.whole_store.confidence import class_margins, label_losses
from tests.kits import stages
from tests.kits.stages import Stage, stop_after, student, weights_of

stage = stages.stage


@pytest.fixture(scope="module")
def held_out(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    store = str(tmp_path_factory.mktemp("held") / "held.kd")
    extract(stage.asked(store, data_set={"split": "test", "limit": 200}, transform="none", transform_set={}, views="1"))
    return store


@pytest.fixture(scope="module")
def held_out_whole(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same rows and teacher, all logits kept."""
    store = str(tmp_path_factory.mktemp("held") / "whole.kd")
    settings = {"data_set": {"split": "test", "limit": 200}, "transform": "none", "transform_set": {}, "views": "1"}
    extract(stage.asked(store, **settings, encoding="full"))
    return store


def record(run: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((run / "settings.json").read_text())
    return settings


def test_margins_are_those_of_all_logits_on_a_top_k_store_too(held_out: str, held_out_whole: str) -> None:
    store, whole = Store.open(held_out), Store.open(held_out_whole)
    p = np.exp(np.asarray(whole.read(0, np.arange(200)).log_probs(1.0), dtype=np.float64))
    y = whole.labels
    others = np.where(np.eye(10, dtype=bool)[y], -1.0, p)
    margins = p[np.arange(200), y] - others.max(axis=1)
    expected = [margins[y == number].mean() for number in range(10)]
    assert np.allclose(class_margins(whole), expected, atol=1e-6)
    assert np.allclose(class_margins(store), expected, atol=0.02)  # gaps in steps of 1/16 nat
    losses = label_losses(whole, 0)
    assert np.allclose(losses, -np.log(p[np.arange(200), y]), atol=1e-6)
    assert np.allclose(label_losses(store, 0), losses, atol=0.15)


def test_trust_trains_is_recorded_and_resumes_to_the_same_weights(stage: Stage, held_out: str, tmp_path: Path) -> None:
    settings = {"store": [stage.store], "trust": held_out, "curriculum": "2:0.5", "epochs": 3}
    summary = train(student(tmp_path / "run", **settings))
    assert any("the teacher is trusted" in note for note in summary.notes)
    trust = record(tmp_path / "run")["trust"]
    assert np.allclose(trust, np.clip(class_margins(Store.open(held_out)), 0, 1), atol=1e-6)
    assert record(tmp_path / "run")["curriculum"] == "2:0.5"
    stop, progress = stop_after(7)
    with pytest.raises(InterruptedRunError):
        train(student(tmp_path / "cut", **settings), stop=stop, progress=progress)
    moved = Path(held_out).rename(tmp_path / "moved.kd")
    try:
        train(student(tmp_path / "cut", **{**settings, "trust": str(moved)}), stop=StopRequest())
    finally:
        moved.rename(held_out)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "run")
    plain = train(student(tmp_path / "plain", store=[stage.store], epochs=1))
    assert "trust" not in record(tmp_path / "plain")
    assert "curriculum" not in record(tmp_path / "plain")
    assert plain.loss != summary.loss
    with pytest.raises(MismatchError, match="trust"):
        train(student(tmp_path / "plain", store=[stage.store], epochs=1, trust=held_out))


def test_the_easiest_rows_count_and_all_from_the_last_epoch_on(stage: Stage) -> None:
    store = Store.open(stage.store)
    curriculum = Curriculum(Pacing.parse("4:0.2"), store)
    counts = [curriculum.counting(epoch, 0) for epoch in range(4)]
    assert [int(rows.sum()) for rows in counts] == [60, 120, 180, 240]
    assert all((counts[epoch] <= counts[epoch + 1]).all() for epoch in range(3))
    losses = label_losses(store, 0)
    assert losses[counts[0]].max() <= losses[~counts[0]].min()
    assert not np.array_equal(curriculum.counting(0, 1), counts[0])  # the rows of another view
    assert Pacing.parse("4:0.2").share(4) == Pacing.parse("4").share(9) == 1.0


def test_a_curriculum_of_all_rows_is_the_training_without_one(stage: Stage, tmp_path: Path) -> None:
    plain = train(student(tmp_path / "plain", store=[stage.store]))
    whole = train(student(tmp_path / "whole", store=[stage.store], curriculum="1:1"))
    assert abs(whole.loss - plain.loss) < 1e-3


REFUSALS: list[tuple[dict[str, Any], type[KdcacheError], str]] = [
    ({"set": {"w_ce": 1}}, InvalidInputError, r"--trust takes the place of w_ce and w_kd, and --set w_ce=1 was given"),
    ({"over_epochs": {"w_kd": "0:1,2:0"}}, InvalidInputError, r"--over-epochs w_kd=0:1,2:0 was given too"),
    ({"objective": "dist"}, InvalidInputError, r"--trust .*objective dist is no mean over rows .*use one of kd, hard"),
    ({"objective": "kd+dkd"}, InvalidInputError, r"one objective with a teacher, and --objective is kd\+dkd"),
    ({"objective": "label-smoothing", "temperature": None}, InvalidInputError, r"--objective is label-smoothing"),
    ({"store": ()}, InvalidInputError, r"--trust works with one --store; 0 were given"),
    ({"trust": "STORE"}, InvalidInputError, r"has the very rows of .*digits.kd.*split=test"),
    ({"trust": "nowhere.kd"}, KdcacheError, r"nowhere.kd does not exist"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSALS)
def test_trust_is_refused_where_it_does_not_go(
    stage: Stage, held_out: str, tmp_path: Path, changes: dict[str, Any], kind: type[KdcacheError], message: str
) -> None:
    settings = {"store": [stage.store], "temperature": 2.0, "trust": held_out, **changes}
    if not settings["store"]:
        settings["temperature"] = None
    settings["trust"] = stage.store if settings["trust"] == "STORE" else settings["trust"]
    with pytest.raises(kind, match=message):
        train(student(tmp_path / "run", **settings))
    assert not (tmp_path / "run" / "settings.json").exists()


def test_trust_wants_rows_of_every_class_of_the_same_teacher(stage: Stage, tmp_path: Path) -> None:
    few = str(tmp_path / "few.kd")
    extract(stage.asked(few, data_set={"split": "test", "limit": 4}, views="1", min_accuracy=0.0))
    with pytest.raises(InvalidInputError, match=r"no labelled row of \d of 10 classes .*extract rows of all classes"):
        train(student(tmp_path / "run", store=[stage.store], trust=few))
    other, weights = str(tmp_path / "other.kd"), tmp_path / "other.safetensors"
    save_weights(weights, convnet(width=8, num_classes=10))
    settings = {"data_set": {"split": "test", "limit": 64}, "views": "1", "min_accuracy": 0.0}
    extract(stage.asked(other, weights=str(weights), **settings))
    with pytest.raises(MismatchError, match="is of another teacher than"):
        train(student(tmp_path / "run", store=[stage.store], trust=other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "kd+mlld"}, "--curriculum weighs the rows of a batch, and objective mlld is no mean over rows"),
        ({"store": ()}, "--curriculum shape an objective, and without a store there is plain cross-entropy"),
        ({"store": (), "objective": "label-smoothing"}, "--curriculum ranks the rows of one --store; 0 were given"),
    ],
)
def test_a_curriculum_is_refused_where_it_does_not_go(
    stage: Stage, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings = {"store": [stage.store], "curriculum": "3", "set": {}, **changes}
    settings["temperature"] = 2.0 if settings["store"] and "objective" not in changes else None
    with pytest.raises(InvalidInputError, match=message):
        train(student(tmp_path / "run", **settings))


def test_paces_are_read_when_settings_are(tmp_path: Path) -> None:
    flags = {"run": "r", "data": "digits", "student": "s:s"}
    assert load_settings(TrainSettings, {**flags, "curriculum": "10"}, None).curriculum == "10"
    (tmp_path / "train.toml").write_text("curriculum = 10\n")
    assert load_settings(TrainSettings, flags, str(tmp_path / "train.toml")).curriculum == "10"
    for wrong in ("0", "ten", "5:0", "5:1.5", ":0.2"):
        with pytest.raises(InvalidInputError, match=f"'{wrong}' is no EPOCHS or EPOCHS:START"):
            load_settings(TrainSettings, {**flags, "curriculum": wrong}, None)


def test_a_point_with_trust_has_a_name_of_its_own(tmp_path: Path) -> None:
    plain = TrainSettings(run="r", data="digits", student="s:s")
    names = [
        point_name(plain.model_copy(update=change), {}, tmp_path) for change in ({}, {"trust": "a"}, {"trust": "b"})
    ]
    assert names[0] != names[1] == names[2]
