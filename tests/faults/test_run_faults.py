"""A run's files after a crash, a power failure and on a full disk; two holders of one folder."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from kdcache.base.folder_lock import HOLDER, held
from kdcache.base.progress import StopRequest
from kdcache.errors import CannotWriteError, InvalidInputError
from kdcache.pipelines.train.stage import train
from kdcache.training import run_folder
from kdcache.training.run_folder import STATE, is_whole, load_state
from tests.kits.power import Killed, Machine, on
from tests.kits.stages import metrics, student, weights_of

TEST: dict[str, Any] = {
    "val_set": {"split": "test", "limit": 30},
    "data_set": {"limit": 90},
    "epochs": 3,
    "device": "cpu",
}


def settings(run: Path, **changes: Any) -> Any:
    return student(run, **{**TEST, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(settings(run))
    return run


def require_equal(run: Path, whole: Path) -> None:
    assert weights_of(run) == weights_of(whole)
    assert metrics(run) == metrics(whole)
    assert sorted(path.name for path in run.rglob("*") if path.is_file()) == sorted(
        path.name for path in whole.rglob("*") if path.is_file()
    )


def test_a_run_killed_before_any_of_its_writes_ends_equal(tmp_path: Path, whole: Path) -> None:
    with on(Machine()) as machine:
        train(settings(tmp_path / "counted"))
    count = len(machine.steps)
    assert count > 60
    for at in range(0, count, 5):
        run = tmp_path / str(at)
        with on(Machine(at)), pytest.raises(Killed):
            train(settings(run))
        for name in ("last", "best"):
            path = run / f"weights/{name}.safetensors"
            assert is_whole(path) or not path.exists()
        train(settings(run))
        require_equal(run, whole)
        shutil.rmtree(run)


def stopped(run: Path, steps: int, **changes: Any) -> None:
    """A run that was stopped after some steps, two an epoch."""
    stop = StopRequest()

    def progress(label: str, done: int, total: int) -> None:
        stop.requested |= done >= steps

    with pytest.raises(Exception, match="stopped as asked"):
        train(settings(run, **changes), progress=progress, stop=stop)


@pytest.mark.parametrize("harm", ["gone", "zeros", "cut", "of another epoch"])
@pytest.mark.parametrize("name", ["last", "best"])
def test_weights_that_a_power_failure_took_are_written_again(tmp_path: Path, whole: Path, harm: str, name: str) -> None:
    run = tmp_path / "run"
    stopped(run, 2)  # the end of an epoch: both files are of this epoch
    path = run / f"weights/{name}.safetensors"
    damage(path, harm)
    summary = train(settings(run))
    require_equal(run, whole)
    assert bool(summary.notes) == (harm != "of another epoch")
    assert all(str(path) in note for note in summary.notes)


def damage(path: Path, harm: str) -> None:
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "of another epoch":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.write_bytes(bytes(len(data)) if harm == "zeros" else data[: len(data) // 2])


@pytest.mark.parametrize("harm", ["gone", "zeros", "cut", "of another epoch"])
def test_best_weights_that_are_lost_for_good_are_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """The best epoch is not the last: its weights are nowhere else."""
    from kdcache.pipelines.train import stage as train_stage

    accuracies, real = iter([0.9, 0.1, 0.2]), train_stage.validate
    monkeypatch.setattr(
        train_stage, "validate",
        lambda runs, *rest: {run: {**line, "accuracy": next(accuracies)} for run, line in real(runs, *rest).items()},
    )  # fmt: skip
    run = tmp_path / "run"
    stopped(run, 4)
    path = run / "weights/best.safetensors"
    damage(path, harm)
    summary = train(settings(run))
    assert any(str(path) in note and "0.9" in note for note in summary.notes)
    assert summary.best_accuracy == 0.2
    assert path.read_bytes() == (run / "weights/last.safetensors").read_bytes()
    assert [line["accuracy"] for line in metrics(run)] == [0.9, 0.1, 0.2]


def test_a_finished_run_whose_best_is_lost_says_so_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdcache.pipelines.train import stage as train_stage

    accuracies, real = iter([0.9, 0.1, 0.2]), train_stage.validate
    monkeypatch.setattr(
        train_stage, "validate",
        lambda runs, *rest: {run: {**line, "accuracy": next(accuracies)} for run, line in real(runs, *rest).items()},
    )  # fmt: skip
    run = tmp_path / "run"
    train(settings(run))
    damage(run / "weights/best.safetensors", "zeros")
    for _ in range(2):
        summary = train(settings(run))
        assert [("finished before" in note, "is lost" in note) for note in summary.notes] == [
            (True, False), (False, True),
        ]  # fmt: skip
        assert summary.best_accuracy is None
        assert not (run / "weights/best.safetensors").exists()


def test_a_checkpoint_of_before_goes_on(tmp_path: Path, whole: Path) -> None:
    """Checkpoints once had no digests of the weights."""
    import torch

    run = tmp_path / "run"
    stopped(run, 3)
    state = load_state(run) or {}
    del state["weights"]
    torch.save(state, run / STATE)
    assert train(settings(run)).notes == ()
    require_equal(run, whole)


def test_a_write_that_torch_or_safetensors_cannot_finish_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nmore")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(CannotWriteError, match=r"state.pt cannot be written \(\[enforce .* vs 0\); free some"):
        run_folder.save_state(tmp_path, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == []


def test_two_machines_on_one_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    """The first finds the other's token at its next checkpoint, and leaves that one's files as they are."""

    def none(*words: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", none)
    run, states, holders = tmp_path / "run", [], []

    def progress(label: str, done: int, total: int) -> None:
        if done == 3:
            with monkeypatch.context() as patch:
                patch.setattr("socket.gethostname", lambda: "other-machine")
                holders.append(held(run))
                holders[0].__enter__()
                states.append((run / STATE).read_bytes())

    with pytest.raises(InvalidInputError, match=r"was taken over by process \d+ of other-machine"):
        train(settings(run), progress=progress)
    assert (run / STATE).read_bytes() == states[0]
    assert "other-machine" in (run / HOLDER).read_text()
    assert len(metrics(run)) == 1
    train(settings(run))
    require_equal(run, whole)
    assert not (run / HOLDER).exists()


def test_a_holder_that_has_ended_was_another_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "lockf", lambda *words: None)
    with held(tmp_path) as first:
        first.require()
        with held(tmp_path):
            pass
        with pytest.raises(InvalidInputError, match="taken over by another process, which has ended"):
            first.require()
