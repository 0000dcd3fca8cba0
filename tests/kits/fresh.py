"""The fresh processes of extractions in tests: forked from the tests' server, where an interpreter of its own would
import torch for seconds."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kdcache.pipelines.extract import fresh_draws, fresh_forks, fresh_process
from kdcache.pipelines.extract.fresh_process import Channel, Fingerprints, Opened, Question
from kdcache.pipelines.extract.job import Job
from tests.kits.forks import forks


def start_forked() -> tuple[Channel, Callable[[], None]]:
    """A process that has imported kdcache, and nothing else of this one's."""
    ours, theirs = forks.Pipe()
    process = forks.Process(target=serve, args=(theirs, fresh_forks.fresh_environment()), daemon=True)
    process.start()
    theirs.close()

    def end() -> None:
        process.kill()
        process.join()
        ours.close()

    return ours, end


def serve(channel: Channel, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    fresh_process.serve(channel, fresh_process.open_dataset)


@contextmanager
def forked_ones() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh_draws, "launch", start_forked)
        yield


def opened(job: Job) -> Opened:
    return Opened(job.identity.dataset, job.identity.plan)


def right(job: Job, question: Question) -> dict[int, Any]:
    """The answers of a process that draws what this one draws."""
    answers = {}
    for position in question.positions.tolist():
        pixels, contents = job.dataset.fingerprints(position, question.views)
        answers[position] = Fingerprints(tuple(pixels), contents)
    return answers
