"""A run's or a sweep's folder is one process's at a time, and free again however that process ends."""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from kdcache.base.folder_lock import HOLDER, LOCK, held
from kdcache.errors import InterruptedRunError, InvalidInputError
from kdcache.pipelines.sweep.stage import sweep
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.together import train_together
from kdcache.training.run_folder import STATE, epochs_done, held_run
from tests.kits import stages
from tests.kits.forks import forks
from tests.kits.stages import Stage, start, stop_after, student, wait_for
from tests.pipelines.test_sweep import written

stage = stages.stage

IN_USE = r"is in use by process \d+ of .+; wait for it to end or stop it, or choose another folder"


def hold(folder: str) -> None:
    with held(Path(folder)):
        (Path(folder) / "here").write_text(".")
        time.sleep(1000)


def hold_with_a_child(folder: str) -> None:
    """As a loader's worker, which lives on for a while when its parent is killed."""
    with held(Path(folder)):
        if os.fork() == 0:
            (Path(folder) / "here").write_text(f"{os.getpid()}.")
            time.sleep(1000)
        time.sleep(1000)


def holding(folder: Path, how: Callable[[str], None] = hold) -> BaseProcess:
    """A process that holds the folder by now."""
    process = forks.Process(target=how, args=(str(folder),))
    process.start()
    wait_for(lambda: (folder / "here").exists() and (folder / "here").read_text().endswith("."), process)
    return process


def test_another_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    process = holding(tmp_path / "a")
    try:
        with pytest.raises(InvalidInputError, match=IN_USE) as caught, held(tmp_path / "a"):
            pytest.fail("it was let in")
        assert f"process {process.pid} of " in str(caught.value)
        with held(tmp_path / "b"):
            pass
    finally:
        process.kill()
        process.join()
    with held(tmp_path / "a"):
        assert str(os.getpid()) in (tmp_path / "a" / LOCK).read_text()
    assert (tmp_path / "a" / LOCK).read_bytes() == b""


def test_what_a_killed_process_has_forked_keeps_nothing(tmp_path: Path) -> None:
    process = holding(tmp_path / "a", hold_with_a_child)
    child = int((tmp_path / "a/here").read_text()[:-1])
    process.kill()
    process.join()
    try:
        os.kill(child, 0)  # it lives
        with held(tmp_path / "a"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_where_there_are_no_locks_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with held(tmp_path), held(tmp_path):
        pass


def test_a_folder_that_holds_something_else_gets_no_lock(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInputError, match="is not empty and holds no run"), held_run(tmp_path):
        pytest.fail("it was let in")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_is_not_trained_twice_at_once(tmp_path: Path) -> None:
    """The process that was first goes on unharmed; once it is killed another takes over."""
    run = tmp_path / "run"
    settings = student(run, epochs=10_000, checkpoint_steps=1)
    process = start(settings, {})
    try:
        wait_for(lambda: (run / STATE).exists(), process)
        before = (run / "settings.json").read_bytes()
        with pytest.raises(InvalidInputError, match=IN_USE):
            train(settings)
        (refused,) = train_together([settings])
        assert isinstance(refused.error, InvalidInputError)
        assert (run / "settings.json").read_bytes() == before
        done = epochs_done(run)
        wait_for(lambda: epochs_done(run) > done, process)
    finally:
        process.kill()
        process.join()
    done, (stop, progress) = epochs_done(run), stop_after(5)  # an epoch has five steps
    with pytest.raises(InterruptedRunError):
        train(settings, progress=progress, stop=stop)
    assert epochs_done(run) == done + 1


def test_a_sweep_is_not_run_twice_at_once(stage: Stage, tmp_path: Path) -> None:
    path = written(tmp_path, base={"store": stage.store, "epochs": 1}, grid={"lr": [0.05]})
    process = holding(tmp_path / "out")
    try:
        (tmp_path / "out/here").unlink()
        with pytest.raises(InvalidInputError, match=IN_USE):
            sweep(path)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {LOCK, HOLDER}
    finally:
        process.kill()
        process.join()
    assert sweep(path).done == 1
