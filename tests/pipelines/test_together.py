"""together: students side by side on one stream end with the bits of separate runs, and fail alone."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.together import Outcome, train_together
from tests.kits import stages
from tests.kits.stages import Stage, metrics, stop_after, student

stage = stages.stage

HERE = "tests.kits.together_students"
SHARED: dict[str, Any] = {"epochs": 3, "lr": 0.05, "val_set": {"split": "test", "limit": 100}}
STUDENTS: dict[str, dict[str, Any]] = {
    "dropout": {"student_set": {"width": 4, "dropout": 0.4}},
    "ema, dkd": {"ema": 0.9, "objective": "dkd", "set": {"beta": 2}, "student_set": {"width": 4, "dropout": 0.2}},
    "cool, two classes": {"temperature": 1.0, "top_k": 2, "student_set": {"width": 2}},
    "one class, none": {"top_k": 1, "tail": "none", "optimizer": "adamw", "lr": 0.003},
    "class means": {"tail": "class-mean", "temperature": 4.0, "set": {"w_ce": 0.3, "w_kd": 0.7}, "checkpoint_steps": 2},
    "bfloat16": {"precision": "bfloat16", "student_set": {"width": 2}, "kd_epochs": 1},
    "in place": {"student": f"{HERE}:changing_its_input", "student_set": {}},
    "remembers": {"objective": "ctkd", "student_set": {"width": 2}, "temperature": None},
}


def asked(stage: Stage, folder: Path, name: str, **changes: Any) -> TrainSettings:
    return student(folder / name, store=(stage.store,), **{**SHARED, **STUDENTS.get(name, {}), **changes})


def contents(run: Path) -> dict[str, Any]:
    """All that a run's folder holds, but for seconds: digests of weights, settings and the checkpoint, and metrics."""
    found: dict[str, Any] = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != "metrics.jsonl" and "tensorboard" not in path.parts
    }
    return {**found, "metrics": metrics(run)}


def kept(run: Path) -> dict[str, Any]:
    """The same without the checkpoint, whose file, not whose values, tells whether a run was interrupted."""
    return {name: value for name, value in contents(run).items() if name != "checkpoints/state.pt"}


def errors(outcomes: list[Outcome]) -> dict[str, str]:
    return {Path(each.settings.run).name: str(each.error) for each in outcomes if each.error is not None}


@pytest.fixture(scope="module")
def apart(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every student trained by itself."""
    folder = tmp_path_factory.mktemp("apart")
    for name in STUDENTS:
        train(asked(stage, folder, name))
    return folder


def test_together_writes_what_separate_runs_write_bit_for_bit(stage: Stage, tmp_path: Path, apart: Path) -> None:
    outcomes = train_together([asked(stage, tmp_path, name) for name in STUDENTS])
    assert errors(outcomes) == {}
    for name, outcome in zip(STUDENTS, outcomes, strict=True):
        assert contents(tmp_path / name) == contents(apart / name), name
        assert outcome.summary is not None
        assert outcome.summary.steps == 15


def test_stopped_runs_go_on_together_or_alone_from_where_each_stands(stage: Stage, tmp_path: Path, apart: Path) -> None:
    """One is a whole epoch ahead of the rest, one is finished, one has not begun; the stop falls into an epoch."""
    names = list(STUDENTS)[:5]
    first, ahead, finished = names[:3]
    train(asked(stage, tmp_path, finished))
    stop, progress = stop_after(8)
    with pytest.raises(InterruptedRunError):
        train(asked(stage, tmp_path, ahead), stop=stop, progress=progress)
    stop, progress = stop_after(4)
    with pytest.raises(InterruptedRunError, match="run the same command again"):
        train_together([asked(stage, tmp_path, name) for name in names[:4]], stop=stop, progress=progress)
    train(asked(stage, tmp_path, first))
    steps: list[int] = []
    outcomes = train_together(
        [asked(stage, tmp_path, name) for name in names], progress=lambda what, done, total: steps.append(done)
    )
    assert errors(outcomes) == {}
    assert len(steps) == 15  # one stream, as long as the run that had not begun needs
    for name in names:
        assert kept(tmp_path / name) == kept(apart / name), name


def test_one_that_fails_fails_alone(stage: Stage, tmp_path: Path, apart: Path) -> None:
    good = next(iter(STUDENTS))
    given = [
        asked(stage, tmp_path, "nan", student=f"{HERE}:exploding", student_set={"after": 8}),
        asked(stage, tmp_path, good),
        asked(stage, tmp_path, "classes", student_set={"num_classes": 7}),
        asked(stage, tmp_path, "means", tail="class-mean", objective="nothing"),
    ]
    outcomes = train_together(given)
    found = errors(outcomes)
    assert found.keys() == {"nan", "classes", "means"}
    assert "the loss is nan at epoch 2, step 4" in found["nan"]
    assert "the student answers 7 classes" in found["classes"]
    assert not (tmp_path / "classes").exists()
    assert kept(tmp_path / good) == kept(apart / good)
    assert [line["epoch"] for line in metrics(tmp_path / "nan")] == [0]


def test_where_who_was_behind_has_failed_the_stream_moves_on(stage: Stage, tmp_path: Path, apart: Path) -> None:
    good = next(iter(STUDENTS))
    stop, progress = stop_after(10)
    with pytest.raises(InterruptedRunError):
        train(asked(stage, tmp_path, good), stop=stop, progress=progress)
    steps: list[int] = []
    outcomes = train_together(
        [
            asked(stage, tmp_path, "nan", student=f"{HERE}:exploding", student_set={"after": 1}),
            asked(stage, tmp_path, good),
        ],
        progress=lambda what, done, total: steps.append(done),
    )
    assert errors(outcomes).keys() == {"nan"}
    assert steps == [1, 1, *range(11, 16)]
    assert kept(tmp_path / good) == kept(apart / good)


def test_a_fault_of_what_all_need_fails_all(stage: Stage, tmp_path: Path) -> None:
    store = stage.copy(tmp_path / "hurt.kd")
    for path in store.glob("views-*/classes/c/**/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-40])
    outcomes = train_together([student(tmp_path / name, store=(str(store),)) for name in "ab"])
    assert errors(outcomes).keys() == {"a", "b"}
    gone = train_together([student(tmp_path / name, store=(str(tmp_path / "gone.kd"),)) for name in "ab"])
    assert all("gone.kd" in error for error in errors(gone).values())
    assert errors(gone).keys() == {"a", "b"}


def test_settings_that_cannot_share_are_named_with_both_values(stage: Stage, tmp_path: Path) -> None:
    one = asked(stage, tmp_path, "one")
    with pytest.raises(MismatchError, match="give them equal values, or train them apart") as refused:
        train_together([one, asked(stage, tmp_path, "two", seed=3, batch_size=32, lr=1.0)])
    assert refused.value.differences == (("seed", "0", "3"), ("batch_size", "64", "32"))
    with pytest.raises(InvalidInputError, match="give each a folder of its own"):
        train_together([one, one])


def test_an_ensemble_and_full_logits_with_smaller_k(stage: Stage, tmp_path: Path) -> None:
    full = str(tmp_path / "full.kd")
    extract(stage.asked(full, top_k=10))
    shared: dict[str, Any] = {"store": (stage.store, full), "epochs": 1, "student_set": {"width": 2}}
    several: dict[str, dict[str, Any]] = {"both": {}, "three": {"top_k": 3}, "two": {"top_k": 2, "combine": "losses"}}
    outcomes = train_together([student(tmp_path / name, **shared, **own) for name, own in several.items()])
    assert errors(outcomes) == {}
    for name, own in several.items():
        train(student(tmp_path / "apart" / name, **shared, **own))
        assert contents(tmp_path / name) == contents(tmp_path / "apart" / name), name
