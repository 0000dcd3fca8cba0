"""Weights of an objective are settings of it, said in one way; runs and sweeps that said them otherwise go on."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.pipelines.settings import TrainSettings, load_settings
from kdcache.pipelines.sweep.space import load_sweep, make_point, points_of
from kdcache.pipelines.train.objective import build_objective
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from kdcache.training.run_record import weights_apart
from tests.cli.test_cli import Capture, refusal
from tests.kits import stages
from tests.kits.house import ROOT
from tests.kits.stages import Stage, metrics, stop_after, student, weights_of

stage = stages.stage

OLD_RECORD = json.loads("""
{"batch_size": 64, "combine": "probabilities", "data_set": {"limit": 300}, "ema": 0.0, "ensemble_weights": [],
"epochs": 2, "inputs": {"train": {"dataset": {
"ids": "a458b99767f8689bdfae6afea9770a5b84f40e6331cf8e2e6e551f1e7a084647",
"labels": "e858b22a13cbe32178e91ee77f4246593cad287cb32da3f30a6cb3872487173d",
"probes": "601dfdeaa13013feba7c4fcbb0bb2389fd07c29636506c4ccd75b850d91d2a16", "rows": 300},
"plan": {"mix": "none", "mix_alpha": 1.0, "seed": 0, "transform": {"arguments": {}, "name": "none", "text": ""}},
"stores": [], "views": []}}, "kd_epochs": null, "lr": 0.05, "mean": [], "memory_gb": 4.0, "mix": "none",
"mix_alpha": 1.0, "momentum": 0.9, "objective": "label-smoothing", "optimizer": "sgd", "over_epochs": {},
"precision": "float32", "schedule": "cosine", "seed": 0, "set": {"epsilon": 0.2}, "std": [], "step_epochs": [],
"step_factor": 0.1, "student": "kdcache.networks:convnet", "student_set": {"dropout": 0.1, "width": 4},
"tail": "uniform", "temperature": null, "then": [], "top_k": null, "transform": "none", "transform_set": {},
"val_set": {}, "val_transform": "none", "val_transform_set": {}, "w_ce": null, "w_kd": 2.0, "warmup_epochs": 0.0,
"weight_decay": 0.0005, "weights": ""}
""")
"""settings.json of a run that began with --objective label-smoothing --set epsilon=0.2 --w-kd 2, before weights were
settings of the objective."""


def smoothing(run: Path, **weights: float) -> TrainSettings:
    return student(run, objective="label-smoothing", set={"epsilon": 0.2, **weights})


def test_a_run_writes_the_record_that_runs_always_had(tmp_path: Path) -> None:
    train(smoothing(tmp_path / "run", w_kd=2))
    text = (tmp_path / "run/settings.json").read_text()
    assert text == json.dumps(OLD_RECORD, indent=1, sort_keys=True) + "\n"


def by_flag(record: dict[str, Any]) -> dict[str, Any]:
    return OLD_RECORD


def by_set(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "w_kd": None, "set": {"epsilon": 0.2, "w_kd": 2}}


@pytest.mark.parametrize("old", [by_flag, by_set])
def test_a_run_of_old_goes_on_and_ends_equal(tmp_path: Path, old: Any) -> None:
    settings = smoothing(tmp_path / "run", w_kd=2)
    stop, progress = stop_after(3)
    with pytest.raises(InterruptedRunError):
        train(settings, progress=progress, stop=stop)
    (tmp_path / "run/settings.json").write_text(json.dumps(old(OLD_RECORD)))
    with pytest.raises(MismatchError, match=r"w_kd: the run has 2(.0)?, this run has 3.0"):
        train(smoothing(tmp_path / "run", w_kd=3))
    train(settings)
    train(smoothing(tmp_path / "whole", w_kd=2))
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_weights_stand_apart_in_a_record() -> None:
    none = {"w_ce": None, "w_kd": None}
    assert weights_apart({"set": {}, "lr": 1}) == {"set": {}, "lr": 1, **none}
    assert weights_apart({"set": {"w_ce": 1, "beta": 2}}) == {"set": {"beta": 2}, "w_ce": 1.0, "w_kd": None}
    assert weights_apart({"set": {"beta": 2}, "w_ce": 3.0, "w_kd": None}) == {"set": {"beta": 2}, **none, "w_ce": 3.0}
    assert weights_apart({"lr": 1}) == {"lr": 1}
    assert repr(weights_apart({"set": {"w_ce": 1}})["w_ce"]) == "1.0"


def test_weights_are_given_by_set_in_toml_and_in_then(stage: Stage, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text("then = ['1:jsd,w_ce=0.25,w_kd=3']\n[set]\nw_ce = 0.5\nw_kd = 4\n")
    base = student("run", store=(stage.store,)).model_dump(exclude_unset=True)
    settings = load_settings(TrainSettings, {**base, "set": ["w_kd=8"]}, str(config))
    phases: Any = build_objective(settings, [Store.open(stage.store)], None)
    assert [(part.w_ce, part.w_kd) for part in phases.parts] == [(0.5, 8.0), (0.25, 3.0)]
    ramped = settings.model_copy(update={"set": {"w_ce": 0.5}, "then": (), "over_epochs": {"w_kd": "0:1,2:0"}})
    objective: Any = build_objective(ramped, [Store.open(stage.store)], None)
    assert (objective.w_ce, objective.over_epochs["w_kd"](1.0)) == (0.5, 0.5)


@pytest.mark.parametrize("name", ["w_ce", "w_kd"])
def test_the_old_flag_is_refused_with_the_new_one(tmp_path: Path, capsys: Capture, name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    text = refusal(capsys, "train", tmp_path / "run", flag, "0.5")
    assert f"{flag} is now a setting of the objective: give --set {name}=0.5" in text
    assert not (tmp_path / "run").exists()


def test_the_old_key_of_a_file_is_refused_with_the_new_one(tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "train.toml"
    config.write_text("w_ce = 1\n")
    text = refusal(capsys, "train", tmp_path / "run", "--config", config)
    assert f"config {config}: w_ce is now a setting of the objective: give set.w_ce = 1" in text


BASE = '[base]\nstudent = "m:s"\ndata = "digits"\nstore = "a.kd"\n'


def sweep_file(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(BASE + text)
    return path


OLD_SPELLINGS = {
    "base": ("w_ce = 0.1\n[grid]\nlr = [0.1]\n", r"\[base\] of .*: w_ce is now a .*: give set.w_ce = 0.1"),
    "grid": ("[grid]\nw_kd = [1, 2]\n", "sweeps w_kd, which is now a setting of the objective: give set.w_kd in its"),
    "space": (
        "[random]\ntrials = 1\nspace.w_kd = { uniform = [0.1, 1] }\n",
        "sweeps w_kd, which is now a setting of the objective: give set.w_kd in its place",
    ),
}


@pytest.mark.parametrize("place", OLD_SPELLINGS)
def test_a_sweep_s_old_spelling_is_refused_with_the_new_one(tmp_path: Path, place: str) -> None:
    text, message = OLD_SPELLINGS[place]
    with pytest.raises(InvalidInputError, match=message):
        load_sweep(sweep_file(tmp_path, text))


def names(path: Path) -> list[str]:
    return [point.name for point in points_of(load_sweep(path), path.parent)]


def test_the_names_of_points_are_those_of_sweeps_that_stand_on_disk(tmp_path: Path) -> None:
    """All names were written by the version before."""
    assert names(sweep_file(tmp_path, "[grid]\nlr = [0.1]\n")) == ["lr=0.1-c9c8ef4a"]
    swept = "set.w_ce = 0.1\n[grid]\nset.w_kd = [1, 0.5]\nseed = [0, 1]\n"  # w_ce = 0.1, and w_kd = [1, 0.5]
    assert names(sweep_file(tmp_path, swept)) == [
        "w_kd=1,seed=0-2be0f88d", "w_kd=1,seed=1-29020b8d", "w_kd=0.5,seed=0-f991a11a", "w_kd=0.5,seed=1-fbdedf65",
    ]  # fmt: skip
    path = sweep_file(tmp_path, "set.w_ce = 0.1\n[grid]\nset.w_kd = [1, 0.5]\n")
    (tmp_path / "w_kd=1-7c4f28c9").mkdir()  # as a sweep named it that was spelled so
    assert names(path)[0] == "w_kd=1-7c4f28c9"
    (tmp_path / "w_kd=0.5-36e509ea").mkdir()
    assert names(path) == ["w_kd=1-7c4f28c9", "w_kd=0.5-36e509ea"]
    example = ROOT / "docs/examples/fashion-sweep.toml"
    assert "seed=0,views=3,top_k=5,temperature=1-a44dfd58" in names(example)


def test_a_trial_of_an_older_study_is_a_point_of_the_new_spelling(tmp_path: Path) -> None:
    sweep = load_sweep(sweep_file(tmp_path, "[study]\ntrials = 1\nspace.set.w_kd = { uniform = [0.1, 1] }\n"))
    assert make_point(sweep, {"w_kd": 0.5}, tmp_path) == make_point(sweep, {"set.w_kd": 0.5}, tmp_path)
