"""train --objective: every objective trains on Fashion-MNIST from the command line, on every kind of store."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdcache.cli.app import main
from kdcache.errors import InterruptedRunError
from kdcache.objectives.catalogue import LOGIT_TERMS, term_class
from kdcache.objectives.facts import BOTH_LABELS
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from tests.kits.stages import metrics, stop_after, weights_of

pytestmark = pytest.mark.realdata

NETWORK = ["kdcache.networks:convnet"]
LIGHT = ["--transform", "light", "--transform-set", "padding=2"]
ROWS = 512
GENTLE = {"logit-mse": "0.005", "logit-standardisation": "0.02", "mlld": "0.02", "wttm": "0.02", "dist": "0.1"}


RISING = {"dkd", "ctkd", "taid"}  # by a warm-up, an adversary, a teacher that moves away


class Fashion:
    """A teacher and its stores of 512 training images, made by commands."""

    def __init__(self, place: Path, data: str) -> None:
        self.place, self.data = place, ["--data", data, "--data-set", f"limit={ROWS}", "--workers", "0"]
        wide = ["--student", *NETWORK, "--student-set", "width=12", "--epochs", "8"]
        for teacher, seed in (("teacher", "0"), ("second", "5")):
            self.run("train", teacher, *wide, "--seed", seed)
        self.extract("topk.kd", "--top-k", "4", "--keep", "head")
        self.extract("other.kd", "--top-k", "4", teacher="second")
        self.extract("full.kd", "--encoding", "full", "--keep", "head")
        self.extract("mixup.kd", "--top-k", "4", "--keep", "head", "--mix", "mixup")

    def run(self, command: str, target: str, *flags: str) -> None:
        with pytest.raises(SystemExit) as left:
            main([command, str(self.place / target), *self.data, *flags])
        assert left.value.code == 0

    def extract(self, store: str, *flags: str, teacher: str = "teacher") -> None:
        weights = str(self.place / teacher / "weights/last.safetensors")
        asked = ["--teacher", *NETWORK, "--teacher-set", "width=12", "--weights", weights]
        self.run(
            "extract", store, *asked, "--views", "2", "--transform", "light", "--transform-set", "padding=2", *flags
        )

    def train(self, run: Path, stores: tuple[str, ...], *flags: str, epochs: int = 3) -> list[dict[str, Any]]:
        """The run's metrics; it must end well."""
        given = [part for store in stores for part in ("--store", str(self.place / store))]
        student = ["--student", *NETWORK, "--student-set", "width=6", "--epochs", str(epochs), "--batch-size", "64"]
        with pytest.raises(SystemExit) as left:
            main(["train", str(run), *self.data, *student, *given, "--schedule", "constant", *flags])
        assert left.value.code == 0
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def fashion(fashion_mnist: str, tmp_path_factory: pytest.TempPathFactory) -> Fashion:
    return Fashion(tmp_path_factory.mktemp("fashion"), fashion_mnist)


def require_progress(lines: list[dict[str, Any]]) -> None:
    assert lines[-1]["loss"] < lines[0]["loss"]


BY_LABEL = [name for name in LOGIT_TERMS if term_class(name).facts.mixing == BOTH_LABELS]
RUNS = [
    *((name, "topk.kd") for name in LOGIT_TERMS),
    *((name, "full.kd") for name in ("kd", "dkd", "dist", "logit-standardisation", "logit-mse", "double-distillation")),
    *((name, "mixup.kd") for name in [*BY_LABEL, "kd", "function-matching"]),
]


@pytest.mark.parametrize(("name", "store"), RUNS)
def test_every_objective_trains_from_the_command_line(fashion: Fashion, tmp_path: Path, name: str, store: str) -> None:
    flags = ["--objective", name, "--lr", GENTLE.get(name, "0.05")]
    if name == "kd-topk":
        flags += ["--set", "k=3"]
    lines = fashion.train(tmp_path / "run", (store,), *flags)
    if name not in (
        "dkd",
        "ctkd",
        "taid",
    ):  # whose loss grows with a warm-up, or against an adversary, or by its design
        require_progress(lines)
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert settings["objective"] == name


@pytest.mark.parametrize("tail", ["uniform", "class-mean", "ghost", "none"])
def test_every_tail_trains(fashion: Fashion, tmp_path: Path, tail: str) -> None:
    require_progress(fashion.train(tmp_path / "run", ("topk.kd",), "--tail", tail, "--lr", "0.05"))


@pytest.mark.parametrize("combine", ["probabilities", "logits", "predictions", "losses"])
@pytest.mark.parametrize("name", ["kd", "dkd"])
def test_every_ensemble_trains(fashion: Fashion, tmp_path: Path, combine: str, name: str) -> None:
    flags = ["--objective", name, "--combine", combine, "--ensemble-weights", "2,1", "--lr", "0.05"]
    flags += ["--set", "warmup_epochs=0"] if name == "dkd" else []
    lines = fashion.train(tmp_path / "run", ("topk.kd", "other.kd"), *flags)
    require_progress(lines)


@pytest.mark.parametrize("name", ["label-smoothing", "confidence-penalty", "subclass"])
def test_objectives_without_a_teacher_need_no_store(fashion: Fashion, tmp_path: Path, name: str) -> None:
    require_progress(fashion.train(tmp_path / "run", (), "--objective", name))


def test_schedules_change_the_loss_where_they_say(fashion: Fashion, tmp_path: Path) -> None:
    """ESKD, ramps and a switch: a run is equal to plain KD as long as its schedule says the same."""
    plain = fashion.train(tmp_path / "plain", ("topk.kd",), epochs=4)
    stopped = fashion.train(tmp_path / "stopped", ("topk.kd",), "--kd-epochs", "2", epochs=4)
    ramped = fashion.train(
        tmp_path / "ramped", ("topk.kd",), "--over-epochs", "w_kd=0:0.9,2:0.9,2:0", "--over-epochs",
        "w_ce=0:0.1,2:0.1,2:1", epochs=4,
    )  # fmt: skip
    switched = fashion.train(tmp_path / "switched", ("topk.kd",), "--then", "2:kd,w_ce=1,w_kd=0", epochs=4)
    other = fashion.train(tmp_path / "other", ("topk.kd",), "--then", "1:jsd", "--then", "3:dkd,alpha=2", epochs=4)
    losses = [[line["loss"] for line in lines] for lines in (plain, stopped, ramped, switched, other)]
    assert losses[1][:2] == losses[2][:2] == losses[3][:2] == losses[0][:2]
    assert losses[1] == losses[2] == losses[3]
    assert losses[1][2] != losses[0][2]
    assert losses[4][0] == losses[0][0]
    assert losses[4][1] != losses[0][1]


@pytest.mark.parametrize("name", ["taid", "ctkd"])
def test_what_an_objective_remembers_survives_a_stop(fashion: Fashion, tmp_path: Path, name: str) -> None:
    def settings(run: str) -> TrainSettings:
        return TrainSettings.model_validate({
            "run": str(tmp_path / run), "student": NETWORK[0], "student_set": {"width": 6}, "data": fashion.data[1],
            "data_set": {"limit": ROWS}, "workers": 0, "epochs": 2, "batch_size": 64, "objective": name,
            "store": (str(fashion.place / "topk.kd"),),
        })  # fmt: skip

    train(settings("whole"))
    for count in (3, 6):
        stop, progress = stop_after(count)
        with pytest.raises(InterruptedRunError):
            train(settings("stopped"), progress=progress, stop=stop)
    train(settings("stopped"))
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")


def test_the_facts_cover_every_objective() -> None:
    assert {name for name in LOGIT_TERMS if not term_class(name).facts.teacher} == {
        "label-smoothing",
        "confidence-penalty",
        "subclass",
    }
    assert {name for name in LOGIT_TERMS if term_class(name).facts.needs} == {"kd-sim"}
