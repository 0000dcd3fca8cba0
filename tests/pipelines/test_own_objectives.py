"""--objective of one's own, and sums: trained, saved, resumed and joined as those of the catalogue are."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from kdcache.errors import InvalidInputError, KdcacheError
from kdcache.pipelines.train.stage import train
from kdcache.training.run_folder import load_state
from tests.kits import stages
from tests.kits.ranks import commanded, launch
from tests.kits.stages import Stage, metrics, weights_of
from tests.kits.tapped import LAST, Tapped

stage = stages.stage

MINE = f'''"""Objectives of a user's own."""
from dataclasses import dataclass

import torch
from torch import nn

from kdcache.objectives.tap_pairs import names_of, tap_pairs


@dataclass(frozen=True)
class Cosine:
    """1 - cosine of the logits of student and teacher."""
    scale: float = 1.0

    def __call__(self, outputs, targets, batch):
        return self.scale * (1 - nn.functional.cosine_similarity(outputs.logits, targets.logits(), dim=1)).mean()


class Learned(nn.Module):
    """KD at a scale of the student's logits that is learned."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs, targets, batch):
        return targets.kl_of_logits(self.scale * outputs.logits, 2.0).mean()


def made(alpha=1.0):
    return Cosine(scale=alpha)


class OfMaps(nn.Module):
    """The squared difference of two layers through a learned map."""

    def __init__(self, sizes):
        super().__init__()
        self.pairs = tap_pairs(sizes, "4", "{LAST}", default="last map", name="of maps")
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.project = nn.Conv2d(12, 16, 1)

    def forward(self, outputs, targets, batch):
        student = nn.functional.adaptive_avg_pool2d(outputs.tap("4"), 2)
        return (self.project(student) - batch.tap(0, "{LAST}").float()).square().mean()


def rows(alpha=1.0):
    return lambda outputs, targets, batch: outputs.logits.sum(dim=1)


def broken():
    return lambda outputs, targets, batch: outputs.logits.sum() * float("nan")


def text():
    return "a text"


def number():
    return lambda outputs, targets, batch: 1.0
'''


@pytest.fixture(scope="module")
def tapped(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Tapped:
    tapped = Tapped.of(stage, tmp_path_factory.mktemp("tapped"))
    (tapped.folder / "mine.py").write_text(MINE)
    return tapped


def own(tapped: Tapped, run: Path, name: str, **changes: Any) -> Any:
    parts = [part if part[0].islower() else f"{tapped.folder / 'mine.py'}:{part}" for part in name.split("+")]
    return tapped.settings(run, "+".join(parts), **changes)


@pytest.mark.parametrize("name", ["Cosine", "Learned", "OfMaps", "kd+OfMaps", "dkd+nkd"])
def test_it_trains_and_goes_on_after_a_kill_bit_for_bit(tapped: Tapped, tmp_path: Path, name: str) -> None:
    settings = own(tapped, tmp_path / "killed", name, checkpoint_steps=2)
    fail = {"FAIL_RANK": "0", "FAIL_AT": "8", "FAIL_BY": "SIGKILL"}
    assert launch(1, commanded, settings, tmp_path / "notes", environ=fail) == [-signal.SIGKILL]
    train(settings)
    train(own(tapped, tmp_path / "whole", name, checkpoint_steps=2))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    states = [load_state(tmp_path / run) for run in ("killed", "whole")]
    assert states[0] is not None
    assert states[1] is not None
    assert all(torch.equal(states[0]["objective"][key], value) for key, value in states[1]["objective"].items())


def test_its_parameters_are_trained(tapped: Tapped, tmp_path: Path) -> None:
    train(own(tapped, tmp_path / "run", "Learned"))
    state = load_state(tmp_path / "run")
    assert state is not None
    assert float(state["objective"]["term.scale"]) != 1.0


def test_its_settings_reach_it_alone_and_in_a_sum(tapped: Tapped, tmp_path: Path) -> None:
    """Twice the scale is twice the loss; in a sum its name stands before its settings."""
    mine = f"{tapped.folder / 'mine.py'}:made"
    once = train(tapped.settings(tmp_path / "once", mine, epochs=1, lr=1e-9))
    twice = train(tapped.settings(tmp_path / "twice", mine, epochs=1, lr=1e-9, set={"alpha": 2.0}))
    assert twice.loss == pytest.approx(2 * once.loss, rel=1e-5)
    kd = train(tapped.settings(tmp_path / "kd", "kd", epochs=1, lr=1e-9))
    both = {"made.alpha": 2.0, "made.w_kd": 0.5}
    joined = train(tapped.settings(tmp_path / "joined", f"kd+{mine}", epochs=1, lr=1e-9, set=both))
    assert joined.loss == pytest.approx(kd.loss + once.loss, rel=1e-5)


WRONG: dict[str, tuple[dict[str, Any], type[KdcacheError], str]] = {
    "Nothing": ({}, InvalidInputError, "mine.py has no Nothing; it has .*Cosine"),
    "Cosine": ({"alpha": 2}, InvalidInputError, r"has no setting alpha; it has scale \(1.0\)"),
    "text": ({}, InvalidInputError, r"gave a str; it must give a term, called as term\(outputs, targets, batch\)"),
    "broken": ({}, KdcacheError, "the loss is nan at epoch 1, step 1"),
    "rows": ({}, InvalidInputError, r"gave a loss of shape \[60\]; it must be one number"),
    "number": ({}, InvalidInputError, "gave a float; it must be a tensor of one number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_objective_is_refused(tapped: Tapped, tmp_path: Path, name: str) -> None:
    given, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        train(tapped.settings(tmp_path / "run", f"{tapped.folder / 'mine.py'}:{name}", set=given))


def test_a_file_that_is_not_there_is_named(tapped: Tapped, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="gone"):
        train(tapped.settings(tmp_path / "run", f"{tmp_path / 'gone.py'}:Cosine"))


def test_a_sum_over_epochs_and_phases(tapped: Tapped, tmp_path: Path) -> None:
    """A ramp of one term to 0, and a switch to it alone, say the same from there on."""
    common: dict[str, Any] = {"epochs": 3, "schedule": "constant", "set": {"nkd.w_kd": 0.5}}
    ramped = tapped.settings(
        tmp_path / "ramped", "kd+nkd", over_epochs={"nkd.w_kd": "0:0.5,1:0.5,1:0"}, **{**common, "set": {}}
    )
    switched = tapped.settings(tmp_path / "switched", "kd+nkd", then=("1:kd",), **common)
    plain = tapped.settings(tmp_path / "plain", "kd+nkd", **common)
    losses = []
    for settings in (ramped, switched, plain):
        train(settings)
        losses.append([line["loss"] for line in metrics(Path(settings.run))])
    assert losses[0] == losses[1]
    assert losses[0][0] == losses[2][0]
    assert losses[0][1:] != losses[2][1:]


REFUSED = {
    "kd+kd": (r"joins \['kd', 'kd'\]; write different names", {}),
    "kd+": (r"joins \['kd', ''\]; write different names", {}),
    "kd+nothing": ("objective 'nothing' is unknown", {}),
    "kd+nkd": ("is that of several terms; write kd.temperature or nkd.temperature", {"temperature": 2}),
    "nkd+kd": ("counts the hard labels once more; set w_ce of the first alone", {"kd.w_ce": 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_sums_that_are_none_are_refused(tapped: Tapped, tmp_path: Path, name: str) -> None:
    message, given = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message):
        train(tapped.settings(tmp_path / "run", name, set=given))
