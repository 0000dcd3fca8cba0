"""The paired study runs whole at toy size, says what it found in full, and its cached arm is what `train` does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from tests.benchmarks import live_vs_cached
from tests.benchmarks.live_vs_cached import ARMS, STUDENT, Protocol
from tests.benchmarks.paired_report import difference

TOY = (
    "--data digits --rows 640 --teacher-rows 640 --teacher-width 8 --teacher-depth 2 --teacher-epochs 4 --views 2 "
    "--epochs 2 --seeds 2 --trials 1 --jobs 1 --batch-size 64 --side 8"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Path]]:
    folder = tmp_path_factory.mktemp("study")
    threads = torch.get_num_threads()
    yield live_vs_cached.main([*TOY.split(), "--out", str(folder / "out"), "--work", str(folder / "work")]), folder
    torch.set_num_threads(threads)  # the study sets one, and sums differ in their last bit by how many there are


def test_the_json_holds_every_arm_pair_and_verdict_and_no_path_of_this_machine(
    study: tuple[dict[str, Any], Path],
) -> None:
    found, folder = study
    text = (folder / "out/live_vs_cached.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(found))
    assert str(folder) not in text
    assert (folder / "out/live_vs_cached.png").stat().st_size > 10_000
    assert tuple(found["arms"]) == tuple(found["epoch_seconds"]) == ARMS
    assert [run["seed"] for run in found["seeds"]] == [0, 1]
    assert set(found["differences"]) > {"cached_topk-live", "cached_full-live", "cached_topk-alone"}
    assert len(found["verdicts"]) == 4
    assert all(isinstance(holds, bool) for holds in found["verdicts"].values())
    assert found["command"].endswith("--out FOLDER --work FOLDER")


def test_live_and_cached_students_learn_from_nearly_the_same_soft_labels(study: tuple[dict[str, Any], Path]) -> None:
    for run in study[0]["seeds"]:
        losses, apart = run["first_losses"], run["first_kl_live_to_cached"]
        assert losses["cached_full"] == pytest.approx(losses["live"], rel=1e-3)
        assert losses["alone"] != losses["live"]
        assert abs(apart["cached_full"]) < 1e-6  # f16
        assert apart["cached_full"] < apart["cached_topk"] < 0.05  # half of the classes, and steps of 1/16 nat


def test_the_cached_arm_is_what_train_does(study: tuple[dict[str, Any], Path]) -> None:
    found, folder = study
    protocol = Protocol(**{**found["protocol"], "data": "digits"})
    summary = train(
        TrainSettings(
            run=str(folder / "run"), data="digits", data_set={"split": "train", "limit": protocol.rows},
            val_set={"split": "test", "limit": found["test_rows"]}, store=(str(folder / "work/topk.kd"),),
            student=STUDENT, student_set={"side": 8}, temperature=protocol.temperature, lr=protocol.lr,
            epochs=protocol.epochs, batch_size=protocol.batch_size, seed=0, workers=0, device="cpu",
        )
    )  # fmt: skip
    tested = found["seeds"][0]["arms"]["cached_topk"]
    assert summary.validation == {name: tested[name] for name in ("accuracy", "nll", "ece")}


def test_the_interval_of_paired_differences_is_students_t() -> None:
    found = difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])  # 2, 3, 1: mean 2, sd 1, t(0.975, 2) = 4.302653
    assert (found["mean"], found["sd"], found["n"]) == (2.0, 1.0, 3)
    assert found["high"] - found["mean"] == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
