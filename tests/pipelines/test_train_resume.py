"""A run that goes on is fed what it began with, whatever happened to paths, stores and flags meanwhile."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdcache.base.progress import StopRequest
from kdcache.base.view_span import ViewSpan
from kdcache.cli.flags import with_flags
from kdcache.errors import InterruptedRunError, MismatchError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings, load_settings
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import NETWORK, ROWS, Stage

stage = stages.stage


def _store(stage: Stage, path: Path, views: str) -> None:
    extract(stage.asked(path, views=views))


def _settings(run: Path, **changes: Any) -> TrainSettings:
    given = {"student": NETWORK, "student_set": {"width": 2}, "data": "digits", "data_set": {"limit": ROWS}}
    given |= {"run": str(run), "workers": 0, "batch_size": 64}
    return TrainSettings.model_validate(given | changes)


def _stopped(settings: TrainSettings, steps: int) -> None:
    stop = StopRequest()

    def progress(what: str, done: int, total: int) -> None:
        stop.requested = stop.requested or (what.startswith("epoch") and done >= steps)

    with pytest.raises(InterruptedRunError):
        train(settings, progress=progress, stop=stop)


def test_views_that_were_added_meanwhile_are_not_slipped_in(stage: Stage, tmp_path: Path) -> None:
    _store(stage, tmp_path / "a.kd", "2")
    settings = _settings(tmp_path / "run", store=(str(tmp_path / "a.kd"),), epochs=3)
    _stopped(settings, 2)
    pin = Store.open(tmp_path / "a.kd").content_id
    _store(stage, tmp_path / "a.kd", "2:3")
    with pytest.raises(MismatchError, match=r"inputs.train.views: the run has \[0, 1\], this run has \[0, 1, 2\]"):
        train(settings)
    resumed = train(settings.model_copy(update={"store": (f"{tmp_path / 'a.kd'}@{pin}",)}))
    assert resumed.epochs == 3
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]


def test_a_store_that_moved_is_the_same_store(stage: Stage, tmp_path: Path) -> None:
    _store(stage, tmp_path / "a.kd", "2")
    settings = _settings(tmp_path / "run", store=(str(tmp_path / "a.kd"),), epochs=2)
    _stopped(settings, 1)
    (tmp_path / "a.kd").rename(tmp_path / "b.kd")
    assert train(settings.model_copy(update={"store": (str(tmp_path / "b.kd"),)})).epochs == 2


def test_other_rows_in_the_same_place_are_refused(tmp_path: Path) -> None:
    settings = _settings(tmp_path / "run", epochs=2)
    _stopped(settings, 1)
    with pytest.raises(MismatchError, match=r"inputs.train.dataset.labels"):
        train(settings.model_copy(update={"data_set": {**settings.data_set, "split": "test"}}))


def test_without_validation_the_best_weights_are_the_last(tmp_path: Path) -> None:
    train(_settings(tmp_path / "run", epochs=3))
    weights = tmp_path / "run/weights"
    assert (weights / "best.safetensors").read_bytes() == (weights / "last.safetensors").read_bytes()


def _flags(model: type[Any], positional: str, **given: Any) -> Any:
    seen = {}

    def take(flags: dict[str, Any], config: str | None, as_json: bool) -> None:
        seen.update(flags)

    every = dict.fromkeys(model.model_fields)
    with_flags(model, positional)(take)(**{**every, **given}, config=None, as_json=False)
    return seen


def test_a_repeated_flag_adds(tmp_path: Path) -> None:
    given = {
        "run": "r",
        "student": "m:s",
        "data": "digits",
        "store": ["a.kd", "b.kd,c.kd"],
        "views": "0:3",
    }
    settings = load_settings(TrainSettings, _flags(TrainSettings, "run", **given), None)
    assert settings.store == ("a.kd", "b.kd", "c.kd")
    assert settings.views == ViewSpan(0, 3)


def test_flags_and_toml_are_merged_key_by_key(tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text('student = "m:s"\ndata = "digits"\n[data_set]\nsplit = "train"\nlimit = 10\n')
    settings = load_settings(TrainSettings, {"run": "r", "data_set": ["limit=20"]}, str(config))
    assert settings.data_set == {"split": "train", "limit": 20}
