"""train: what a run writes, that a run which was interrupted ends equal to one that was not, and its variants."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.networks.weights import load_weights
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from tests.kits import stages
from tests.kits.stages import Stage, metrics, stalling, start, stop_after, student, wait_for, weights_of

stage = stages.stage

TEST = {"val_set": {"split": "test", "limit": 200}}


def test_a_run_without_a_store_writes_settings_metrics_and_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train(student(run, epochs=3, **TEST))
    assert json.loads((run / "settings.json").read_text())["lr"] == 0.05
    lines = metrics(run)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert {"loss", "lr", "accuracy", "nll", "ece"} <= lines[0].keys()
    assert "agreement" not in lines[0]
    assert (summary.steps, summary.epochs) == (15, 3)
    assert summary.validation["accuracy"] == lines[-1]["accuracy"] > 0.2
    assert summary.best_accuracy == max(line["accuracy"] for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert weights_of(run).keys() == {"last.safetensors", "best.safetensors"}
    network = stages.network(4, dropout=0.1)
    load_weights(network, summary.weights)


def test_a_run_starts_from_given_weights(stage: Stage, tmp_path: Path) -> None:
    settings = student(tmp_path / "run", student_set={"width": 8}, weights=stage.weights, lr=1e-6, epochs=1, **TEST)
    assert train(settings).validation["accuracy"] > 0.9


@pytest.fixture(scope="module")
def whole(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a store, averaged weights and validation that nobody interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(resumable(run, stage))
    return run


def resumable(run: Path, stage: Stage, **changes: Any) -> Any:
    return student(run, store=(stage.store,), ema=0.9, epochs=3, **TEST, **changes)


@pytest.mark.parametrize("stops", [(1,), (5,), (7, 3), (4, 1, 1, 6), (15,)], ids=str)
def test_a_stopped_run_ends_equal_to_one_that_was_not(
    stage: Stage, tmp_path: Path, whole: Path, stops: tuple[int, ...]
) -> None:
    for count in stops:
        stop, progress = stop_after(count)
        with pytest.raises(InterruptedRunError, match="the checkpoint is written; run the same command again"):
            train(resumable(tmp_path / "run", stage), progress=progress, stop=stop)
    summary = train(resumable(tmp_path / "run", stage))
    assert summary.steps == 15
    assert weights_of(tmp_path / "run") == weights_of(whole)
    assert metrics(tmp_path / "run") == metrics(whole)


@pytest.mark.parametrize("checkpointed", [2, 0])
def test_a_killed_run_ends_equal_to_one_that_was_not(stage: Stage, tmp_path: Path, checkpointed: int) -> None:
    settings = student(
        tmp_path / "run", student=stage.stalling, checkpoint_steps=checkpointed, student_set={"width": 3}
    )
    process = start(settings, stalling(tmp_path, 9))  # the first forward asks for the classes: 7 steps are done
    wait_for((tmp_path / "here").exists, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [0]
    steps: list[int] = []
    train(settings, progress=lambda what, done, total: steps.append(done))
    assert steps == list(range(7 if checkpointed else 6, 11))
    train(student(tmp_path / "alone", student=stage.stalling, student_set={"width": 3}))
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "alone")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "alone")


def test_sigterm_ends_with_75_at_the_next_step(stage: Stage, tmp_path: Path) -> None:
    settings = student(tmp_path / "run", student=stage.stalling, student_set={"width": 3})
    process = start(settings, stalling(tmp_path, 4))
    wait_for((tmp_path / "here").exists, process)
    process.terminate()
    (tmp_path / "go").touch()
    process.join()
    assert process.exitcode == 75
    steps: list[int] = []
    assert train(settings, progress=lambda what, done, total: steps.append(done)).steps == 10
    assert steps == list(range(4, 11))


def test_a_run_killed_between_its_metrics_and_its_first_checkpoint_has_no_line_twice(tmp_path: Path) -> None:
    train(student(tmp_path / "run", epochs=1))
    once = metrics(tmp_path / "run")
    (tmp_path / "run/checkpoints/state.pt").unlink()
    train(student(tmp_path / "run", epochs=1))
    assert metrics(tmp_path / "run") == once


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    train(student(tmp_path / "run", epochs=1))
    state = tmp_path / "run/checkpoints/state.pt"
    for data in (state.read_bytes()[:1000], b"", b"nothing"):
        state.write_bytes(data)
        with pytest.raises(InvalidInputError, match=r"state.pt cannot be read: .*delete it to begin the run anew"):
            train(student(tmp_path / "run", epochs=1))


def test_a_finished_run_started_again_only_reports(tmp_path: Path) -> None:
    first = train(student(tmp_path / "run", **TEST))
    steps: list[int] = []
    again = train(student(tmp_path / "run", **TEST), progress=lambda what, done, total: steps.append(done))
    assert steps == []
    assert (first.steps_before, again.steps_before) == (0, first.steps)
    grown = {"peak_memory_bytes", "notes", "steps_before"}  # memory: of the process, which has loaded a checkpoint
    assert (first.notes, again.notes) == ((), (f"{tmp_path}/run was finished before: nothing was trained",))
    assert again.model_dump(exclude=grown) == first.model_dump(exclude=grown)


def test_other_settings_for_a_run_are_refused_with_both_values(tmp_path: Path) -> None:
    train(student(tmp_path / "run", epochs=1))
    with pytest.raises(MismatchError, match="choose another folder, or the settings") as refused:
        train(student(tmp_path / "run", epochs=1, lr=0.5, student_set={"width": 5, "dropout": 0.1}))
    assert refused.value.differences == (("lr", "0.05", "0.5"), ("student_set.width", "4", "5"))
    train(student(tmp_path / "run", epochs=1, checkpoint_steps=3))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear reader")
    with pytest.raises(InvalidInputError, match="is not empty and holds no run"):
        train(student(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_leaves_of_its_settings_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".tmp-settings.json").write_text("{")
    assert train(student(tmp_path, epochs=1)).steps == 5


def test_the_soft_labels_teach(stage: Stage, tmp_path: Path) -> None:
    """Without hard labels, the student's answers come from the store alone."""
    taught = {"store": (stage.store,), "set": {"w_ce": 0.0, "w_kd": 1.0}, "student_set": {"width": 8}}
    assert train(student(tmp_path / "run", **taught, epochs=12, **TEST)).validation["accuracy"] > 0.4


@pytest.fixture(scope="module")
def second(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another store of the same views, of all logits."""
    path = tmp_path_factory.mktemp("second") / "full.kd"
    extract(stage.asked(path, top_k=10))
    return str(path)


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_an_ensemble_of_two_stores(stage: Stage, tmp_path: Path, combine: str, second: str) -> None:
    both = {"store": (stage.store, second), "combine": combine}
    losses = [train(student(tmp_path / "equal", **both, epochs=1)).loss]
    losses += [
        train(student(tmp_path / str(weights), **both, epochs=1, ensemble_weights=weights)).loss
        for weights in ((1, 1), (1, 0), (0, 1))
    ]
    first = train(student(tmp_path / "first", store=(stage.store,), epochs=1)).loss
    last = train(student(tmp_path / "last", store=(second,), epochs=1)).loss
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(first, abs=1e-4 if combine == "probabilities" else 0.05)
    assert losses[3] == pytest.approx(last, abs=1e-4)


def test_a_store_of_the_validation_split_gives_agreement_and_kl(stage: Stage, tmp_path: Path) -> None:
    clean: dict[str, Any] = {"transform": "none", "transform_set": {}, "views": "1"}
    extract(stage.asked(tmp_path / "test.kd", data_set=TEST["val_set"], **clean))
    judged = {**TEST, "val_store": str(tmp_path / "test.kd"), "epochs": 1}
    own = student(tmp_path / "own", student_set={"width": 8}, weights=stage.weights, lr=1e-9, **judged)
    found = train(own).validation
    assert found["agreement"] > 0.95
    assert found["kl_to_teacher"] < 0.2
    fresh = train(student(tmp_path / "fresh", **judged)).validation
    assert fresh["agreement"] < 0.9
    assert fresh["kl_to_teacher"] > found["kl_to_teacher"]


VARIANTS: list[dict[str, Any]] = [
    {"optimizer": "adamw", "lr": 0.002, "warmup_epochs": 0.5},
    {"precision": "bfloat16"},
    {"tail": "none", "top_k": 2},
    {"views": "1:2"},
    {"memory_gb": 3e-6},
    {"workers": 2},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_variants_of_a_run(stage: Stage, tmp_path: Path, changes: dict[str, Any]) -> None:
    summary = train(student(tmp_path / "run", store=(stage.store,), epochs=2, **{**TEST, **changes}))
    assert 0 < summary.loss < 10
    weights = load_file(summary.weights)
    assert all(bool(value.isfinite().all()) for value in weights.values())


def test_the_step_schedule_lowers_the_rate(tmp_path: Path) -> None:
    train(student(tmp_path / "run", schedule="step", step_epochs=(1, 2), step_factor=0.5, epochs=3))
    assert [line["lr"] for line in metrics(tmp_path / "run")] == pytest.approx([0.05, 0.025, 0.0125])


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_views_with_and_without_a_store(stage: Stage, tmp_path: Path, mix: str) -> None:
    extract(stage.asked(tmp_path / "mixed.kd", mix=mix))
    with_store = train(student(tmp_path / "with", store=(str(tmp_path / "mixed.kd"),)))
    without = train(student(tmp_path / "without", transform="light", transform_set={"padding": 1}, mix=mix))
    assert 0 < with_store.loss < 10
    assert 0 < without.loss < 5
