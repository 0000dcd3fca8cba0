"""The fresh process: what it answers, and how it ends."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, SampleError
from kdcache.pipelines.extract import fresh_draws
from kdcache.pipelines.extract.fresh_process import Channel, Fingerprints, Question, serve
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.open_job import open_job
from kdcache.views.view_stack import ViewRequest
from tests.kits import stages
from tests.kits.fresh import opened, right
from tests.kits.stages import Stage

stage = stages.stage


@pytest.fixture
def job(stage: Stage) -> Job:
    return open_job(stage.asked("never.kd"))


class EndedError(Exception):
    """The end of a served process."""


def served(job: Job, *messages: Any, opens: Any = None) -> list[Any]:
    """The answers of a process to messages."""
    answers: list[Any] = []
    left = list(messages)

    def recv() -> Any:
        if not left:
            threading.Event().wait()  # the other side says nothing more, and is there
        return left.pop(0)

    def send(message: Any) -> None:
        answers.append(message)
        if len(answers) == len(messages):
            raise EndedError

    channel: Channel = SimpleNamespace(send=send, recv=recv)  # type: ignore[assignment]
    with pytest.raises(EndedError):
        serve(channel, opens or (lambda settings: (job.dataset, opened(job))))
    return answers


def test_a_process_answers_by_position_and_view(job: Job) -> None:
    question = Question(np.array([250, 3]), ViewSpan(4, 7), job.identity.encoding.kinds_of_contents)
    first, answers = served(job, "settings", question)
    assert first == opened(job)
    drawn = job.dataset[ViewRequest(question.views, question.positions)]
    for row, position in enumerate(question.positions.tolist()):
        assert answers[position].pixels == tuple(drawn.pixels[:, row].tolist())
        assert answers[position].contents == {kind: int(values[row]) for kind, values in drawn.contents.items()}


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), SampleError("sample 1", 1)])
def test_whatever_opening_raises_is_handed_over(job: Job, error: BaseException) -> None:
    def opens(settings: Any) -> Any:
        raise error

    (answer,) = served(job, "settings", opens=opens)
    assert isinstance(answer, InvalidInputError)


def test_a_sample_that_cannot_be_drawn_leaves_the_others(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = job.dataset.fingerprints

    def failing(position: int, views: Any) -> Any:
        if position == 3:
            raise SystemExit(0)
        return fingerprints(position, views)

    monkeypatch.setattr(job.dataset, "fingerprints", failing)
    _, answers = served(job, "settings", Question(np.array([3, 4]), ViewSpan(0, 1), ()))
    assert isinstance(answers[3], InvalidInputError)
    assert isinstance(answers[4], Fingerprints)


@pytest.mark.slow
def test_an_interpreter_of_its_own(stage: Stage, tmp_path: Path) -> None:
    """The process of users: it prints what user code prints on nobody's stdout, and ends with its channel."""
    (tmp_path / "views.py").write_text(
        "import torch\nimport numpy as np\nprint('imported')\n"
        "def make():\n    print('made')\n    return lambda image: (print('drawn'), image)[1]\n"
    )
    settings = stage.asked("never.kd", transform=f"{tmp_path}/views.py:make", transform_set={})
    job = open_job(settings)
    channel, end = fresh_draws.start_process()
    try:
        channel.send(settings)
        assert channel.recv() == opened(job)
        question = Question(np.array([5, 1]), ViewSpan(0, 2), job.identity.encoding.kinds_of_contents)
        channel.send(question)
        assert channel.recv() == right(job, question)
    finally:
        end()
    with pytest.raises((OSError, ValueError, EOFError)):
        channel.recv()
