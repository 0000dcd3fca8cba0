"""Several processes train as one does: the same rows a step, losses, weights and measures, however many they are."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from kdcache.errors import InterruptedRunError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.training.run_folder import load_state
from tests.kits import ranks, stages
from tests.kits.ranks import commanded, fed, free_port, launch, noting, said_by, trained
from tests.kits.stages import Stage, metrics, stop_after

stage = stages.stage

ROWS = 90
TEST = {"val_set": {"split": "test", "limit": 70}}


@dataclass(frozen=True)
class Site:
    """Where a student without batch norm, a mixed store of 90 digits and one of the validation split lie."""

    folder: Path

    def settings(self, run: Path, **changes: Any) -> TrainSettings:
        given = {
            "run": str(run), "student": f"{self.folder / 'plain.py'}:net", "data": "digits",
            "data_set": {"limit": ROWS}, "store": (str(self.folder / "mixed.kd"),), "temperature": 2.0,
            "val_store": str(self.folder / "test.kd"), "workers": 0, "epochs": 2, "batch_size": 13, "lr": 0.05,
            "ema": 0.8, **TEST,
        }  # fmt: skip
        return TrainSettings.model_validate(
            {name: value for name, value in {**given, **changes}.items() if value is not None}
        )


@pytest.fixture(scope="module")
def site(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    (folder / "plain.py").write_text(ranks.PLAIN)
    extract(stage.asked(folder / "mixed.kd", data_set={"limit": ROWS}, mix="mixup"))
    clean: dict[str, Any] = {"data_set": TEST["val_set"], "transform": "none", "transform_set": {}, "views": "1"}
    extract(stage.asked(folder / "test.kd", **clean))
    extract(stage.asked(folder / "clean.kd", data_set={"limit": ROWS}))
    return Site(folder)


# name: what is changed of the settings; rows meet in dist and mlld, taid follows its loss, ctkd learns
VARIANTS: dict[str, dict[str, Any]] = {
    "kd": {},
    "dist": {"objective": "dist", "temperature": None},
    "mlld then ctkd": {"objective": "mlld", "temperature": None, "then": ("1:ctkd,loops=2",), "set": {"w_kd": 0.1}},
    "taid": {"objective": "taid", "temperature": None, "optimizer": "adamw", "lr": 0.01},
    "fewer rows than processes": {"batch_size": 3, "data_set": {"limit": ROWS}, "epochs": 1},
    "selected": {
        "objective": "kd+ctkd",
        "set": {"ctkd.w_kd": 0.3},
        "select_set": {"range": "100:151"},
        "select_steps": 3,
    },
    "weighed": {"store": ("clean.kd",), "trust": "test.kd", "curriculum": "2:0.1", "batch_size": 5},
}


def variant(site: Site, run: Path, name: str) -> TrainSettings:
    changes = dict(VARIANTS[name])
    if "trust" in changes:
        changes |= {"store": tuple(str(site.folder / path) for path in changes["store"])}
        changes |= {"trust": str(site.folder / changes["trust"])}
    return site.settings(run, **changes)


@pytest.fixture(scope="module")
def alone(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each variant trained by one process: runs by name, with what they were fed."""
    folder = tmp_path_factory.mktemp("alone")
    for name in VARIANTS:
        with noting(folder / f"{name} notes"):
            train(variant(site, folder / name, name))
    return folder


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by several processes."""
    folder: Path = tmp_path_factory.mktemp("shared")
    each = [(variant(site, folder / name, name), folder / f"{name} notes", free_port()) for name in VARIANTS]
    assert launch(request.param, trained, each) == [0] * request.param
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_several_processes_train_as_one_does(alone: Path, shared: Path, name: str) -> None:
    one, many = fed(alone / f"{name} notes"), fed(shared / f"{name} notes")
    assert one.keys() == many.keys()
    for step, expected in one.items():
        assert many[step].positions == expected.positions
        assert many[step].loss == pytest.approx(expected.loss, rel=1e-4, abs=1e-5)
    assert_close_runs(alone / name, shared / name)


def assert_close_runs(one: Path, other: Path) -> None:
    """Equal weights and measures, but for the rounding of sums in another order."""
    for name in ("last", "best"):
        expected, found = (load_file(run / f"weights/{name}.safetensors") for run in (one, other))
        assert expected.keys() == found.keys()
        for tensor, values in expected.items():
            np.testing.assert_allclose(found[tensor], values, rtol=1e-3, atol=2e-4, err_msg=tensor)
    assert len(metrics(one)) == len(metrics(other)) > 0
    for expected_line, line in zip(metrics(one), metrics(other), strict=True):
        assert {"accuracy", "nll", "ece", "agreement", "kl_to_teacher"} <= line.keys()
        assert line == pytest.approx(expected_line, rel=1e-3, abs=1e-4)


def failing(rank: int, call: int, by: str) -> dict[str, str]:
    """The environment in which a process's student fails at a forward of the training."""
    return {"FAIL_RANK": str(rank), "FAIL_AT": str(call), "FAIL_BY": by}


def test_a_killed_and_stopped_run_goes_on_with_other_numbers_of_processes(
    site: Site, alone: Path, tmp_path: Path
) -> None:
    """Seven steps an epoch: 2 processes die in the tenth, 3 are stopped after the twelfth, 1 ends the run."""
    settings = site.settings(tmp_path / "run", checkpoint_steps=3)
    codes = launch(2, commanded, settings, tmp_path / "a", environ=failing(1, 10, "SIGKILL"))
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, 75)
    assert launch(3, commanded, settings, tmp_path / "b", environ=failing(2, 2, "SIGTERM")) == [75, 75, 75]
    assert [said_by(tmp_path / "b", rank).count("stopped as asked") for rank in range(3)] == [1, 0, 0]
    with noting(tmp_path / "c"):
        assert train(settings).steps == 14
    begun, stopped, ended = (fed(tmp_path / name) for name in "abc")
    taken = {step: kept for step, kept in begun.items() if step < (1, 2)} | stopped | ended
    expected = fed(alone / "kd notes")
    assert taken.keys() == expected.keys()
    for epoch in range(2):
        rows = [position for step, each in taken.items() if step[0] == epoch for position in each.positions]
        assert sorted(rows) == list(range(ROWS))
    assert {len(each.shares) for each in stopped.values()} == {3}
    assert_close_runs(alone / "kd", tmp_path / "run")


@pytest.mark.parametrize("by", ["nan", "other pictures", "other rows", "full disk"])
def test_what_fails_on_one_process_ends_all_with_its_words(site: Site, tmp_path: Path, by: str) -> None:
    settings, notes = site.settings(tmp_path / "run"), tmp_path / "notes"
    if by == "nan":
        codes = launch(2, commanded, settings, notes, environ=failing(1, 3, "nan"))
        expected = r"error: rank 1: the loss is nan at epoch 1, step 3 \(view 0, [67] rows\)"
    elif by == "other pictures":
        codes = launch(2, ranks.commanded_with_other_pictures, settings, notes)
        expected = "error: rank 1: view 0 of position .* is not the view the teacher saw: another picture"
    elif by == "full disk":
        stopped = failing(1, 2, "SIGTERM")  # which must not say that the checkpoint is written
        codes = launch(2, ranks.commanded_on_a_full_disk, settings, notes, environ=stopped)
        expected = "error: .*No space left on device"
    else:
        codes = launch(2, ranks.commanded_with_other_rows, settings, notes)
        expected = "error: rank 1: the processes of this run differ:\n  seed: rank 0 has 0, this rank has 1"
    assert codes == [2, 2]
    assert re.search(expected, said_by(notes, 0))
    assert said_by(notes, 0).count("error:") == 1
    assert said_by(notes, 1) == ""
    assert not (tmp_path / "run/checkpoints").exists()


def test_torchrun_passes_a_stop_on_and_the_run_goes_on_without_it(site: Site, tmp_path: Path) -> None:
    settings = site.settings(tmp_path / "run", epochs=2000, workers=1)  # whose worker hears the stop too
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    with open(tmp_path / "said.txt", "w") as said:
        running = subprocess.Popen([*line, "-m", "kdcache", *stages.arguments(settings)], stdout=said, stderr=said)
    try:
        until = time.monotonic() + 240
        while not (tmp_path / "run/checkpoints/state.pt").exists() and time.monotonic() < until:
            assert running.poll() is None, (tmp_path / "said.txt").read_text()
            time.sleep(0.2)
        running.terminate()
        assert running.wait(60) == 1
    finally:
        running.kill()
    text = (tmp_path / "said.txt").read_text()
    assert text.count("error: stopped as asked; the checkpoint is written") == 1, text
    state = load_state(tmp_path / "run")
    assert state is not None
    stop, progress = stop_after(3)
    with noting(tmp_path / "notes"), pytest.raises(InterruptedRunError):
        train(settings, progress=progress, stop=stop)
    assert min(fed(tmp_path / "notes")) == (state["epoch"], state["step"])
