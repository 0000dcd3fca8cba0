"""train --objective with taps: every one trains, is killed and goes on, shares a stream, and refuses what cannot be."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from kdcache import LabelOptions, Loader, Store, open_data, taps
from kdcache.cli.app import main
from kdcache.errors import InvalidInputError, KdcacheError, MissingBlockError
from kdcache.networks.small import convnet
from kdcache.objectives.catalogue import TAP_TERMS
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.together import train_together
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.sharing.push_pull import pull
from kdcache.training.run_folder import load_state
from tests.kits import stages
from tests.kits.ranks import commanded, launch
from tests.kits.stages import Stage, arguments, metrics, weights_of
from tests.kits.tapped import EARLY, LAST, SETTINGS, Tapped

stage = stages.stage


@pytest.fixture(scope="module")
def tapped(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Tapped:
    return Tapped.of(stage, tmp_path_factory.mktemp("tapped"))


def test_every_objective_is_tried() -> None:
    assert SETTINGS.keys() == TAP_TERMS.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_it_trains_from_the_command_line(tapped: Tapped, tmp_path: Path, name: str) -> None:
    settings = tapped.settings(tmp_path / "run", name, epochs=5, val_set={"split": "test", "limit": 100})
    with pytest.raises(SystemExit) as left:
        main(arguments(settings))
    assert left.value.code == 0
    lines = metrics(tmp_path / "run")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert json.loads((tmp_path / "run/settings.json").read_text())["objective"] == name


@pytest.mark.parametrize("name", SETTINGS)
def test_a_killed_run_goes_on_bit_for_bit(tapped: Tapped, tmp_path: Path, name: str) -> None:
    """Killed in the third step of the second epoch, one step after a checkpoint."""
    settings = tapped.settings(tmp_path / "killed", name, checkpoint_steps=2)
    fail = {"FAIL_RANK": "0", "FAIL_AT": "8", "FAIL_BY": "SIGKILL"}
    assert launch(1, commanded, settings, tmp_path / "notes", environ=fail) == [-signal.SIGKILL]
    assert load_state(tmp_path / "killed")["steps_done"] == 6
    train(settings)
    train(tapped.settings(tmp_path / "whole", name, checkpoint_steps=2))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    states = [load_state(tmp_path / run)["objective"] for run in ("killed", "whole")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_students_of_one_stream_end_as_separate_ones(tapped: Tapped, tmp_path: Path) -> None:
    settings = [tapped.settings(tmp_path / f"{name} together", name) for name in [*SETTINGS, "kd"]]
    for outcome in train_together(settings):
        assert outcome.error is None
    for name in [*SETTINGS, "kd"]:
        train(tapped.settings(tmp_path / name, name))
        assert metrics(tmp_path / f"{name} together") == metrics(tmp_path / name), name
        assert weights_of(tmp_path / f"{name} together") == weights_of(tmp_path / name), name


@pytest.mark.parametrize("name", ["hint", "sp", "crd", "srrl", "simkd", "mgd"])
def test_a_view_that_does_not_fit_in_memory_is_read_by_blocks(tapped: Tapped, tmp_path: Path, name: str) -> None:
    """A row of both maps is 1,152 bytes: 100 rows at once."""
    settings = tapped.settings(tmp_path / "run", name, memory_gb=2.4e-4, epochs=3)
    assert train(settings).steps > 0
    lines = metrics(tmp_path / "run")
    assert lines[-1]["loss"] < 1.05 * lines[0]["loss"]


@pytest.mark.parametrize("name", SETTINGS)
def test_it_trains_on_mixed_views(tapped: Tapped, tmp_path: Path, name: str) -> None:
    settings = tapped.settings(tmp_path / "run", name, store=(str(tapped.folder / "mixed.kd"),), epochs=3)
    train(settings)
    lines = metrics(tmp_path / "run")
    assert lines[-1]["loss"] < 1.05 * lines[0]["loss"]


def test_terms_are_joined_with_weights(tapped: Tapped, tmp_path: Path) -> None:
    """The hint counts what it does alone, and nothing at the weight 0."""
    alone = train(tapped.settings(tmp_path / "kd", "kd"))
    without = train(tapped.settings(tmp_path / "without", "kd+hint", set={"hint.w_kd": 0.0}))
    joined = train(tapped.settings(tmp_path / "joined", "kd+hint", set={"hint.w_kd": 2.0, "kd.w_kd": 0.5}))
    assert without.loss == pytest.approx(alone.loss, rel=1e-6)
    assert joined.loss != pytest.approx(alone.loss, rel=1e-2)


REFUSED: dict[str, tuple[str, dict[str, Any], type[KdcacheError], str]] = {
    "a layer that the student lacks": (
        "hint", {"student_tap": "layer4"}, InvalidInputError,
        r"the student has no layer layer4; its layers are 0, 1, 2, 3, 4, 5, 6, 7, features",
    ),
    "a tap that the store lacks": (
        "at", {"teacher_tap": "9"}, MissingBlockError,
        r"objective at needs 9 of the teacher, and .*taps.kd keeps features, 5, 13; extract with --keep tap:9",
    ),
    "other numbers of layers": (
        "at", {"student_tap": "1+4"}, InvalidInputError, r"2 layers of the student \(1, 4\) and 1 of .* \(13\)",
    ),
    "a vector where places are needed": ("at", {"teacher_tap": "features"}, InvalidInputError, "objective at cannot "
    "join"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_before_the_first_step(tapped: Tapped, tmp_path: Path, case: str) -> None:
    name, given, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        train(tapped.settings(tmp_path / "run", name, set=given))
    assert not (tmp_path / "run").exists()


def test_a_copy_without_taps_trains_what_asks_for_none(stage: Stage, tapped: Tapped, tmp_path: Path) -> None:
    """What asks for some is refused before the first step; the teacher is asked for what is there."""
    copy = tmp_path / "copy.kd"
    pull(str(tapped.folder / "taps.kd"), str(copy), without=[f"tap:{LAST}"])
    for name in ("hint", "kd+hint"):
        with pytest.raises(MissingBlockError, match=rf"copy\.kd is a copy without taps {LAST} of views 0:2; get them"):
            train(tapped.settings(tmp_path / "run", name, store=(str(copy),)))
        assert not (tmp_path / "run").exists()
    for name, given in (("kd", {}), ("pkt", SETTINGS["pkt"]), ("hint", {"teacher_tap": EARLY, "student_tap": "1"})):
        train(tapped.settings(tmp_path / name, name, store=(str(copy),), set=given))
        train(tapped.settings(tmp_path / f"{name} whole", name, set=given))
        assert metrics(tmp_path / name) == metrics(tmp_path / f"{name} whole")
    fields = {"data": "digits", "data_set": {"limit": 300}, "teacher": stages.NETWORK, "teacher_set": {"width": 8}}
    settings = {**fields, "weights": stage.weights, "store": str(copy), "rows": 64}
    verdict = verify(VerifySettings.model_validate(settings))
    assert verdict.whole
    assert "0 of 2 outputs differ" in verdict.checks[-1].detail
    assert verdict.checks[-1].detail.endswith(f"; not asked: taps {LAST}, which were left out")


def test_several_layers_of_each(tapped: Tapped, tmp_path: Path) -> None:
    given = {"student_tap": "1+4", "teacher_tap": f"{EARLY}+{LAST}", "w_kd": 20.0}
    assert train(tapped.settings(tmp_path / "run", "at", set=given)).steps == 10


def test_two_teachers_of_different_widths(stage: Stage, tapped: Tapped, tmp_path: Path) -> None:
    from kdcache.pipelines.extract.stage import extract

    wide = stage.asked(
        tmp_path / "wide.kd", keep=f"features,head,tap:{EARLY},tap:{LAST}", teacher_set={"width": 12}, weights="",
        min_accuracy=0.0,
    )  # fmt: skip
    extract(wide)
    stores = (str(tapped.folder / "taps.kd"), str(tmp_path / "wide.kd"))
    for name in SETTINGS:
        settings = tapped.settings(tmp_path / name, name, store=stores, ensemble_weights=(3.0, 1.0))
        if name == "simkd":
            with pytest.raises(InvalidInputError, match="one"):
                train(settings)
        else:
            assert train(settings).steps == 10, name


def test_a_loop_of_one_s_own_gets_the_taps_of_both(tapped: Tapped) -> None:
    """The loop of docs/taps.md: the loss of a learned map falls."""
    torch.manual_seed(0)
    network, store = convnet(width=4), Store.open(tapped.folder / "taps.kd")
    project = torch.nn.Conv2d(8, 16, 1)
    optimizer = torch.optim.SGD([*network.parameters(), *project.parameters()], lr=0.05)
    data = open_data("digits", {"limit": 300})
    loader = Loader(data, [store], batch_size=64, epochs=4, labels=LabelOptions(taps=((LAST,),)))
    losses = []
    with taps(network, [LAST]) as outputs:
        for _ in range(4):
            for batch in loader:
                answer = outputs(batch.images)
                teacher = batch.tap(0, LAST).float()
                loss = (project(answer.taps[LAST]) - teacher).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
