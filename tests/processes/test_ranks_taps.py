"""Several processes train students of taps as one does: losses and weights of each objective agree."""

from pathlib import Path

import pytest

from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from tests.kits import stages
from tests.kits.ranks import fed, free_port, launch, noting, trained
from tests.kits.stages import Stage
from tests.kits.tapped import SETTINGS, Tapped

stage = stages.stage
FREE = {"simkd": {"norm": "group"}}  # batch norm's statistics are each process's own
BATCH = {"batch_size": 60, "epochs": 1, "data_set": {"limit": 300}}


@pytest.fixture(scope="module")
def tapped(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Tapped:
    return Tapped.of(stage, tmp_path_factory.mktemp("tapped"))


def settings_of(tapped: Tapped, folder: Path, name: str) -> TrainSettings:
    return tapped.settings(folder / name, name, **BATCH, set={**SETTINGS[name], **FREE.get(name, {})})


@pytest.fixture(scope="module")
def alone(tapped: Tapped, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for name in SETTINGS:
        with noting(folder / f"{name} notes"):
            train(settings_of(tapped, folder, name))
    return folder


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: pytest.FixtureRequest, tapped: Tapped, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("shared")
    work = [(settings_of(tapped, folder, name), folder / f"{name} notes", free_port()) for name in SETTINGS]
    assert launch(request.param, trained, work) == [0] * request.param
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_those_of_one_process(alone: Path, shared: Path, name: str) -> None:
    one, many = fed(alone / f"{name} notes"), fed(shared / f"{name} notes")
    assert one.keys() == many.keys()
    assert len(one) == 5
    for step, expected in one.items():
        assert many[step].positions == expected.positions
        assert many[step].loss == pytest.approx(expected.loss, rel=1e-4, abs=1e-5)
