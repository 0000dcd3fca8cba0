"""The steps of a training: a batch in parts, clipped gradients, smoothed labels, an optimiser of one's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdcache.errors import InterruptedRunError, InvalidInputError
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from tests.kits import stages
from tests.kits.stages import Stage, metrics, stop_after, student, weights_of

stage = stages.stage

OPTIMIZERS = '''"""Optimisers of the user's own."""
import torch
def rms(groups, lr, alpha=0.99):
    assert len(groups) == 2 and all("weight_decay" in group for group in groups)
    return torch.optim.RMSprop(groups, lr=lr, alpha=alpha)
def none(groups, lr):
    return None
'''


PLAIN = '''"""A network without batch norm and dropout."""
from torch import nn
def net(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))
'''


def trained(run: Path, **changes: Any) -> dict[str, torch.Tensor]:
    train(student(run, **{"epochs": 1, **changes}))
    return load_file(run / "weights/last.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    "more",
    [{}, {"objective": "nkd"}, {"curriculum": "2"}, {"store": (), "objective": "label-smoothing"}],
    ids=["kd", "nkd", "weighed rows", "without a store"],
)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(stage: Stage, tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    own = {"student": f"{tmp_path}/plain.py:net", "student_set": {}}
    settings = {"store": (stage.store,), "lr": 0.02, **own, **more}
    whole = trained(tmp_path / "whole", **settings)
    parts = trained(tmp_path / "parts", **settings, accumulate=3)
    other = trained(tmp_path / "other", **{**settings, "seed": 1})
    assert distance(whole, parts) < 1e-3 * distance(whole, other)
    assert metrics(tmp_path / "parts")[0]["loss"] == pytest.approx(metrics(tmp_path / "whole")[0]["loss"], rel=1e-5)


def test_an_objective_in_which_rows_meet_takes_no_parts(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"--accumulate 2 .* objective dist the rows of a batch meet; leave"):
        train(student(tmp_path / "run", store=(stage.store,), objective="dist", accumulate=2))
    assert not (tmp_path / "run").exists()


def test_a_step_goes_no_farther_than_its_clipped_gradient(tmp_path: Path) -> None:
    """One step of SGD without momentum moves all weights together by lr times the norm of the gradient."""
    one_step = {"data_set": {"limit": 128}, "batch_size": 128, "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0}
    one_step |= {"schedule": "constant", "student_set": {"width": 4}}
    untouched = trained(tmp_path / "untouched", **{**one_step, "lr": 1e-30})
    norms = {}
    for clip in (0.0, 0.01, 1e6):
        weights = trained(tmp_path / f"{clip}", **one_step, clip_grad=clip)
        norms[clip] = sum(float((weights[name] - untouched[name]).square().sum()) for name in weights) ** 0.5
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)
    assert norms[0.0] == norms[1e6] > 0.02


def test_smoothed_labels_are_torchs(stage: Stage, tmp_path: Path) -> None:
    """With and without a store; label-smoothing as an objective of its own is the same loss."""
    smoothed = {"label_smoothing": 0.2}
    plain = trained(tmp_path / "plain", set=smoothed)
    own = trained(tmp_path / "own", objective="label-smoothing", set={"epsilon": 0.2})
    assert distance(plain, own) < 1e-5
    beside = {"store": (stage.store,), "set": {"w_ce": 0.5, "w_kd": 0.5}}
    sharp = trained(tmp_path / "sharp", **beside)
    soft = trained(tmp_path / "soft", **{**beside, "set": {**beside["set"], **smoothed}})
    assert distance(sharp, soft) > 1e-4
    with pytest.raises(InvalidInputError, match=r"label_smoothing of KD is 1\.0; give 0 or more, below 1"):
        train(student(tmp_path / "wrong", store=(stage.store,), set={"label_smoothing": 1.0}))


def test_an_optimiser_of_ones_own_stops_and_goes_on(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OPTIMIZERS)
    own = {"optimizer": f"{tmp_path}/mine.py:rms", "optimizer_set": {"alpha": 0.9}, "lr": 1e-3, "epochs": 2}
    settings = {"store": (stage.store,), **own}
    train(student(tmp_path / "whole", **settings))
    stop, progress = stop_after(3)
    with pytest.raises(InterruptedRunError):
        train(student(tmp_path / "run", **settings), progress=progress, stop=stop)
    train(student(tmp_path / "run", **settings))
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")
    assert metrics(tmp_path / "run")[-1]["loss"] < metrics(tmp_path / "run")[0]["loss"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mine.py:none", {}, r"mine\.py:none returned a NoneType; it must return a torch\.optim\.Optimizer"),
        ("mine.py:rms", {"beta": 1}, r"mine\.py:rms with .*beta.* cannot be built: .* called as callable\(groups, lr="),
        ("mine.py:gone", {}, r"mine\.py has no gone; it has none, rms"),
    ],
)
def test_what_is_no_optimiser_is_refused(tmp_path: Path, name: str, arguments: dict[str, Any], message: str) -> None:
    (tmp_path / "mine.py").write_text(OPTIMIZERS)
    with pytest.raises(InvalidInputError, match=message):
        train(student(tmp_path / "run", optimizer=f"{tmp_path}/{name}", optimizer_set=arguments))
    with pytest.raises(ValueError, match=r"choose sgd, adamw, or a callable of yours"):
        TrainSettings(run="run", student="net", data="digits", optimizer="adam")
