"""Each study runs at toy size; a second run makes nothing, a killed one goes on, the printed lines give the same."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.progress import StopRequest
from kdcache.errors import InterruptedRunError
from kdcache.pipelines.studies.catalogue import STUDIES
from kdcache.pipelines.studies.outcome import Outcome, load
from kdcache.pipelines.studies.settings import StudySettings
from kdcache.pipelines.studies.stage import commands_of, run_study
from kdcache.training.run_folder import read_metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of all studies, which find the pieces of one another."""
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_and_a_second_time_makes_nothing(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    if name == "wang_verses":
        request.getfixturevalue("bible")
    settings = StudySettings(study=name, toy=True, folder=str(folder))
    first = run_study(settings)
    again = run_study(settings)
    assert load(folder, name) == again
    assert again.made == again.rows_asked == 0
    assert again.present == first.made + first.present
    assert again.arms == first.arms
    assert again.claims == first.claims
    require_whole(first)


def require_whole(outcome: Outcome) -> None:
    assert outcome.measure in outcome.arms[outcome.baseline]
    for measures in outcome.arms.values():
        for values in measures.values():
            assert len(values) == len(outcome.seeds)
            assert np.isfinite(values).all()
    for claim in outcome.claims:
        assert claim.low <= claim.mean <= claim.high
        assert claim.verdict in ("shown", "not shown", "reversed")


def test_two_jobs_give_the_numbers_of_one(folder: Path, tmp_path: Path) -> None:
    one = run_study(StudySettings(study="tang", toy=True, folder=str(folder)))
    two = run_study(StudySettings(study="tang", toy=True, folder=str(tmp_path), jobs=2))
    assert two.made > 0
    assert two.arms == one.arms


def test_a_killed_study_goes_on_from_its_pieces(folder: Path, tmp_path: Path) -> None:
    whole = run_study(StudySettings(study="tung", toy=True, folder=str(folder)))
    command = [sys.executable, "-m", "kdcache", "study", "tung", "--toy", "--folder", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while not list(tmp_path.glob("stores/*.kd/kdcache/seals/*.json")) and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert load(tmp_path, "tung") is None
    resumed = run_study(StudySettings(study="tung", toy=True, folder=str(tmp_path)))
    assert resumed.present >= 2  # the teacher and its store
    assert resumed.arms == whole.arms


def test_a_stopped_study_says_how_to_go_on(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(InterruptedRunError, match="run the same command again"):
        run_study(StudySettings(study="tung", toy=True, folder=str(tmp_path)), stop=stop)
    assert load(tmp_path, "tung") is None


def test_the_printed_lines_give_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    run_study(StudySettings(study="tung", toy=True, folder=str(folder)))
    lines = commands_of(StudySettings(study="tung", toy=True, folder=str(tmp_path)))
    by_hand = [*lines[1:4], next(line for line in lines if "--objective sp" in line)]
    assert [shlex.split(line)[1] for line in by_hand] == ["train", "extract", "train", "train"]
    for line in by_hand:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "kdcache", *shlex.split(line)[1:]]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 3
    for run in runs:
        assert read_metrics(run)[-1]["accuracy"] == read_metrics(folder / "runs" / run.name)[-1]["accuracy"]
