"""Samples that a fresh process draws again: which, how they are compared, and what becomes of a process that ends."""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError, ReplayError, SampleError
from kdcache.pipelines.extract import fresh_draws
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.fresh_forks import fresh_environment
from kdcache.pipelines.extract.fresh_process import Opened, Question
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.open_job import open_job
from kdcache.store.layout import SegmentLayout
from kdcache.store.segment_layout import segment_layout
from kdcache.views.view_stack import ViewRequest
from tests.kits import stages
from tests.kits.fresh import opened, right
from tests.kits.stages import BLOCKS, ROWS, Stage

stage = stages.stage


@dataclass
class Script:
    """A channel whose other side answers as a test says: `answers` in order, and then nothing."""

    answers: list[Any]
    sent: list[Any] = field(default_factory=list)
    ended: int = 0

    def send(self, message: Any, /) -> None:
        self.sent.append(message)

    def recv(self) -> Any:
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def job(stage: Stage) -> Job:
    return open_job(stage.asked("never.kd"))


def asked(monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job, *answers: Any) -> tuple[FreshDraws, Script]:
    """Fresh draws that have begun, before a process that answers so."""
    script = Script(list(answers))
    monkeypatch.setattr(fresh_draws, "launch", lambda: (script, script.end))
    fresh = FreshDraws(stage.asked("never.kd"))
    fresh.begin(job)
    return fresh, script


def begun(monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job) -> tuple[FreshDraws, Script]:
    fresh, script = asked(monkeypatch, stage, job, opened(job))
    script.answers.append(right(job, script.sent[1]))
    fresh.require_begin()
    return fresh, script


def test_a_process_is_asked_for_its_settings_and_the_first_views(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job
) -> None:
    fresh, script = begun(monkeypatch, stage, job)
    settings, question = script.sent
    assert settings == stage.asked("never.kd")
    assert (question.views, question.positions[0], question.positions[-1]) == (ViewSpan(0, 2), 0, ROWS - 1)
    assert question.contents == job.identity.encoding.kinds_of_contents
    assert (fresh.rows, fresh.notes, script.ended) == (2 * len(question.positions), (), 0)
    with fresh:
        pass
    assert script.ended == 1


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job) -> "Block":
    fresh, script = begun(monkeypatch, stage, job)
    layout = segment_layout(job.identity, job.views)
    fresh.ask_block(layout, 1)
    positions = np.arange(*layout.block_rows(1))
    drawn = job.dataset[ViewRequest(layout.views, positions)]
    kind = job.identity.encoding.contents
    assert kind is not None
    answers = right(job, script.sent[-1])
    script.answers.append(answers)
    return Block(fresh, layout, script.sent[-1], answers, drawn.pixels.copy(), drawn.contents[kind].copy())


@dataclass
class Block:
    """A block that was asked for, the process's answers, and what this process drew."""

    fresh: FreshDraws
    layout: SegmentLayout
    question: Question
    answers: dict[int, Any]
    pixels: Any
    contents: Any

    @property
    def position(self) -> int:
        return int(self.question.positions[-1])

    @property
    def row(self) -> int:
        return self.position - self.layout.block_rows(1)[0]

    def require(self, struck: tuple[int, ...] = ()) -> None:
        self.fresh.require_block(self.layout, 1, self.pixels, self.contents, struck)


def test_equal_draws_pass_once(block: Block) -> None:
    block.require()
    block.require()  # nothing was asked for again, and nobody waits


def test_other_pixels_name_view_and_sample(block: Block, job: Job) -> None:
    view = block.question.views.stop - 1
    block.pixels[view - block.layout.views.start, block.row] ^= 1
    with pytest.raises(ReplayError) as caught:
        block.require()
    assert job.sample_name(block.position) in str(caught.value)
    assert f"view {view} of" in str(caught.value)
    assert f"1 of {len(block.question.views)} views" in str(caught.value)


def test_rows_that_nobody_asked_for_are_not_compared(block: Block) -> None:
    rows = np.setdiff1d(np.arange(len(block.contents)), block.question.positions - block.layout.block_rows(1)[0])
    block.pixels[:, rows] ^= 1
    block.contents[rows] ^= 1
    block.require()


def test_other_contents_are_the_data_sets(block: Block, job: Job) -> None:
    block.contents[block.row] ^= 1
    with pytest.raises(ReplayError, match="in the data set") as caught:
        block.require()
    assert job.sample_name(block.position) in str(caught.value)


def test_struck_rows_are_left_out(block: Block) -> None:
    block.pixels[:, block.row] ^= 1
    block.answers[block.position] = SampleError("sample 3 cannot be read: OSError", 3)
    block.require((block.position,))


def test_a_sample_that_only_this_process_can_draw_is_refused(block: Block) -> None:
    block.answers[block.position] = SampleError("sample 3 (three) cannot be read: OSError", 3)
    with pytest.raises(InvalidInputError, match=r"sample 3 \(three\) cannot be read"):
        block.require()


def test_answers_wait_for_those_who_ask_in_another_order(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job
) -> None:
    fresh, script = begun(monkeypatch, stage, job)
    layout = segment_layout(job.identity, job.views)
    for number in range(BLOCKS):
        fresh.ask_block(layout, number)
        script.answers.append(right(job, script.sent[-1]))
    kind = job.identity.encoding.contents
    assert kind is not None

    def require(number: int) -> None:
        drawn = job.dataset[ViewRequest(layout.views, np.arange(*layout.block_rows(number)))]
        fresh.require_block(layout, number, drawn.pixels, drawn.contents[kind])

    thread = threading.Thread(target=require, args=(BLOCKS - 1,))
    thread.start()
    thread.join(60)
    for number in range(BLOCKS - 1):
        require(number)
    assert script.answers == []


@pytest.mark.parametrize("part", ["ids", "probes", "class_names"])
def test_another_data_set_is_refused_by_what_differs(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job, part: str
) -> None:
    other = job.identity.dataset.model_copy(update={part: ("0",) if part == "class_names" else "0" * 64})
    fresh, script = asked(monkeypatch, stage, job, Opened(other, job.identity.plan))
    script.answers.append(right(job, script.sent[1]))
    with pytest.raises(MismatchError, match=rf"dataset\.{part}"):
        fresh.require_begin()


def test_another_transform_is_refused(monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job) -> None:
    plan = job.identity.plan.model_copy(update={"seed": 9})
    fresh, _ = asked(monkeypatch, stage, job, Opened(job.identity.dataset, plan))
    with pytest.raises(MismatchError, match=r"views\.seed"):
        fresh.require_begin()


def test_what_opens_here_alone_is_refused_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job
) -> None:
    failure = InvalidInputError("KeyError: 'HOME'\n  nets.py, line 3, in data")
    failure.details = "Traceback"
    fresh, _ = asked(monkeypatch, stage, job, failure)
    with pytest.raises(InvalidInputError, match=r"nets\.py, line 3") as caught:
        fresh.require_begin()
    assert caught.value.details == "Traceback"


def test_a_process_that_has_ended_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job
) -> None:
    fresh, _ = asked(monkeypatch, stage, job)
    with pytest.raises(InvalidInputError, match="has ended"):
        fresh.require_begin()
    fresh, _ = begun(monkeypatch, stage, job)
    layout = segment_layout(job.identity, job.views)
    fresh.ask_block(layout, 0)
    with pytest.raises(InvalidInputError, match="the same command goes on"):
        fresh.require_block(layout, 0, np.empty((2, 64), np.uint8), np.empty(64, np.uint32))


def test_a_process_that_is_killed_is_noticed(stage: Stage, job: Job) -> None:
    layout = segment_layout(job.identity, job.views)

    def ask() -> None:
        fresh.ask_block(layout, 0)
        fresh.require_block(layout, 0, np.empty((2, 64), np.uint8), np.empty(64, np.uint32))

    with FreshDraws(stage.asked("never.kd")) as fresh:
        fresh.begin(job)
        fresh.require_begin()
        fresh.close()
        with pytest.raises(InvalidInputError, match="has ended"):
            ask()


@pytest.mark.parametrize(
    ("bytes_", "reason"), [((10, 20), "memory is short: 20 bytes are in use here, and 10 are left"), ((20, 10), "")]
)
def test_where_memory_is_short_this_process_is_copied(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job, bytes_: tuple[int, int], reason: str
) -> None:
    """The copy draws what was asked, and the note says that it is one."""
    monkeypatch.setattr(fresh_draws, "available_bytes", lambda: bytes_[0])
    monkeypatch.setattr(fresh_draws, "resident_bytes", lambda: bytes_[1])
    with FreshDraws(stage.asked("never.kd")) as fresh:
        fresh.begin(job)
        fresh.require_begin()
        assert all(reason in note for note in fresh.notes)
        assert len(fresh.notes) == bool(reason)


def test_what_lies_in_the_main_script_is_drawn_by_a_copy(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, job: Job
) -> None:
    script = Script([])
    monkeypatch.setattr(fresh_draws, "launch", lambda: (script, script.end))
    settings = stage.asked("never.kd").model_copy(update={"transform": "__main__:make"})
    with FreshDraws(settings) as fresh:
        fresh.begin(job)
        fresh.require_begin()
        assert (script.sent, script.ended) == ([], 1)
        assert "defined in the main script" in fresh.notes[0]


def test_where_nothing_forks_a_process_is_started(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, tmp_path: Path
) -> None:
    """A worker on another machine, or one that outlives the process that began the extraction."""
    script = Script([])
    monkeypatch.setattr(fresh_draws, "launch", lambda: (script, script.end))
    with FreshDraws(stage.asked("never.kd"), address=str(tmp_path / "gone")):
        assert not script.ended
    assert script.ended


def test_a_fresh_environment_has_no_rank_and_other_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "SLURM_PROCID": "1", "PYTHONHASHSEED": "0", "DATA_ROOT": "/data"}.items():
        monkeypatch.setenv(name, value)
    environment = fresh_environment()
    assert {"RANK", "SLURM_PROCID"} & set(environment) == set()
    assert (environment["PYTHONHASHSEED"], environment["DATA_ROOT"]) == ("random", "/data")
    assert os.environ["RANK"] == "1"
