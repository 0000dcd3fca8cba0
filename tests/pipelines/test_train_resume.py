"""A run that goes on is fed what it began with, whatever happened to paths, stores and flags meanwhile."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from kdcache.base.progress import StopRequest
from kdcache.base.view_span import ViewSpan
from kdcache.cli.flags import with_flags
from kdcache.errors import InterruptedRunError, MismatchError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings, load_settings
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.together import train_together
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.run_folder import load_state
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
        stop.requested = stop.requested or (what == "training" and done >= steps)

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


def _windowed(stage: Stage, run: Path, **changes: Any) -> TrainSettings:
    """Settings under which windows of two blocks give epochs 4 or 5 steps by their rows, by which block is short."""
    few = {"store": (stage.store,), "memory_gb": 5e-6, "batch_size": 110, "epochs": 6, "device": "cpu"}
    return _settings(run, **few, **changes)


def _steps_by_need(loader: Loader, equal: bool | None, settle: Any = Loader.settle_steps) -> None:
    """As a loader settled them before epochs had equal steps."""
    settle(loader, False)


@pytest.mark.parametrize("steps", [2, 9, 14])
def test_a_run_from_before_epochs_had_equal_steps_goes_on_as_it_was(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole, old, new = (_windowed(stage, tmp_path / name) for name in ("whole", "old", "new"))
    with monkeypatch.context() as patch:
        patch.setattr(Loader, "settle_steps", _steps_by_need)
        total = train(whole).steps
        _stopped(old, steps)
    assert 24 <= total < 30
    assert train(old).steps == total
    assert stages.weights_of(tmp_path / "old") == stages.weights_of(tmp_path / "whole")
    assert stages.metrics(tmp_path / "old") == stages.metrics(tmp_path / "whole")
    assert "equal_steps" not in (load_state(tmp_path / "old") or {})
    _stopped(new, steps)
    assert train(new).steps == 30
    assert (load_state(tmp_path / "new") or {})["equal_steps"] is True


def test_runs_of_equal_and_of_unequal_steps_share_no_batches(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, old, third = (
        _windowed(stage, tmp_path / name, lr=rate) for name, rate in [("a", 0.1), ("b", 0.2), ("c", 0.3)]
    )
    with monkeypatch.context() as patch:
        patch.setattr(Loader, "settle_steps", _steps_by_need)
        _stopped(old, 2)
    outcomes = train_together([first, old, third])
    assert [outcome.summary and outcome.summary.steps for outcome in outcomes] == [30, None, 30]
    assert "the run goes on with the steps that each epoch's windows need" in str(outcomes[1].error)
    assert "have equal steps in all epochs: train it alone" in str(outcomes[1].error)
    with_new = train_together([old, _windowed(stage, tmp_path / "d", lr=0.4)])
    assert len({outcome.summary and outcome.summary.steps for outcome in with_new}) == 1
    assert "equal_steps" not in (load_state(tmp_path / "d") or {})


def test_without_validation_the_best_weights_are_the_last(tmp_path: Path) -> None:
    train(_settings(tmp_path / "run", epochs=3))
    weights = tmp_path / "run/weights"
    assert (weights / "best.safetensors").read_bytes() == (weights / "last.safetensors").read_bytes()


@pytest.mark.parametrize("steps", [1, 4])
def test_an_epoch_s_rate_is_that_of_its_last_step_in_a_resumed_run_too(tmp_path: Path, steps: int) -> None:
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        _stopped(settings := _settings(tmp_path / "run", epochs=3, warmup_epochs=1.5), steps)
        train(settings)
    finally:
        hook.remove()
    steps_of_epoch = len(rates) // 3
    assert [line["lr"] for line in stages.metrics(tmp_path / "run")] == rates[steps_of_epoch - 1 :: steps_of_epoch]
    assert rates[-1] > 0
    train(_settings(tmp_path / "whole", epochs=3, warmup_epochs=1.5))
    assert stages.metrics(tmp_path / "run") == stages.metrics(tmp_path / "whole")


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
        "store": ["a.kd", "b.kd", "c,d.kd"],
        "views": "0:3",
    }
    settings = load_settings(TrainSettings, _flags(TrainSettings, "run", **given), None)
    assert settings.store == ("a.kd", "b.kd", "c,d.kd")
    assert settings.views == ViewSpan(0, 3)


def test_flags_and_toml_are_merged_key_by_key(tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text('student = "m:s"\ndata = "digits"\n[data_set]\nsplit = "train"\nlimit = 10\n')
    settings = load_settings(TrainSettings, {"run": "r", "data_set": ["limit=20"]}, str(config))
    assert settings.data_set == {"split": "train", "limit": 20}
