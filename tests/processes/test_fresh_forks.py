"""Fresh processes that are forked from one interpreter: they draw what others draw, and end with who asked for them."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import KdcacheError
from kdcache.pipelines.extract import fresh_draws
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.fresh_forks import FreshForks, forked_at
from kdcache.pipelines.extract.fresh_process import Question
from kdcache.pipelines.extract.open_job import open_job
from tests.kits import stages
from tests.kits.forks import forks
from tests.kits.fresh import opened, right
from tests.kits.stages import Stage, wait_for

stage = stages.stage


def children(pid: int) -> list[int]:
    """Processes that a process's main thread has started and that have not ended."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def forking() -> int:
    """The id of the interpreter that this process has started to fork others, once it bears its command line."""

    def interpreters() -> list[int]:
        return [pid for pid in children(os.getpid()) if b"import fork;" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    wait_for(lambda: len(interpreters()) == 1)
    return interpreters()[0]


def test_each_that_connects_has_a_process_of_its_own(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_draws, "launch", fresh_draws.start_process)
    settings = stage.asked("never.kd")
    job = open_job(settings)
    question = Question(np.array([5, 1]), ViewSpan(0, 2), job.identity.encoding.kinds_of_contents)
    with FreshDraws(settings, serves=True) as fresh:
        server = forking()
        fresh.begin(job)
        other, end = forked_at(fresh.address)
        fresh.require_begin()
        wait_for(lambda: len(children(server)) == 2)
        fresh.leave()
        wait_for(lambda: len(children(server)) == 1)
        for message, answer in ((settings, opened(job)), (question, right(job, question))):
            other.send(message)
            assert other.recv() == answer
        end()
        wait_for(lambda: not children(server))
        third, _ = forked_at(fresh.address)
        wait_for(lambda: len(children(server)) == 1)
    with pytest.raises(OSError, match="No such file"):
        forked_at(fresh.address)
    third.send(settings)
    assert third.recv() == opened(job)  # what was forked goes on
    assert not Path(f"/proc/{server}").exists()


def begin(path: Path) -> None:
    """Start the interpreter, tell its id once it forks, and wait."""
    server = FreshForks()
    channel, _ = forked_at(server.address)
    channel.send("no settings")
    assert isinstance(channel.recv(), KdcacheError)
    path.with_suffix(".part").write_text(str(forking()))
    path.with_suffix(".part").rename(path)
    time.sleep(1000)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    process = forks.Process(target=begin, args=(tmp_path / "pid",))
    process.start()
    wait_for((tmp_path / "pid").exists, process)
    server = int((tmp_path / "pid").read_text())
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    wait_for(lambda: not Path(f"/proc/{server}").exists())
