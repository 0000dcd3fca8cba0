"""train: what cannot work is refused before the run's folder is claimed, and another picture at its first row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdcache.errors import InterruptedRunError, InvalidInputError, KdcacheError, MismatchError, ReplayError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from tests.kits import stages
from tests.kits.stages import Stage, stop_after, student

stage = stages.stage

WRONG: list[tuple[dict[str, Any], type[KdcacheError], str]] = [
    ({"data_set": {"limit": 299}}, MismatchError, r"dataset.rows: the store has 300, this run has 299"),
    ({"data_set": {"split": "test", "limit": 300}}, MismatchError, r"is of another data set:\n  dataset.labels"),
    (
        {"student_set": {"num_classes": 7}},
        InvalidInputError,
        r"answers 7 classes, .* has 10; set --student-set num",
    ),
    ({"temperature": 0.5}, InvalidInputError, r"temperature 0.5|T < 1|below 1"),
    ({"top_k": 4}, InvalidInputError, r"top-k 4 was asked for; .* keeps 3"),
    ({"views": 3}, InvalidInputError, r"views 0:3 were asked for; the stores have \[0, 1\] in common, not \[2\]"),
    (
        {"transform": "none", "transform_set": {"size": 3}},
        InvalidInputError,
        r"transform none takes other arguments than .'size'",
    ),
    ({"transform": "light"}, MismatchError, r"arguments\.padding: the store has 1, this run has 'nothing'"),
    ({"mix": "cutmix"}, InvalidInputError, r"are mixed by none, the settings name cutmix"),
    ({"ensemble_weights": (1, 2)}, InvalidInputError, r"weights"),
    ({"store": ("nowhere.kd",)}, KdcacheError, r"nowhere.kd does not exist; make a store with"),
    ({"student": "torchvision:resnet18", "student_set": {}}, InvalidInputError, r"does not take views of shape \[1, 8"),
    ({"weights": "nowhere.pt"}, InvalidInputError, r"there is no such file"),
    ({"optimizer": "adamw", "device": "cuda:99"}, InvalidInputError, r"device cuda:99 cannot be used"),
    ({"val_store": "nowhere.kd"}, KdcacheError, r"nowhere.kd does not exist"),
    ({"val_set": {"split": "val"}}, InvalidInputError, r"choose train, test or all"),
    (
        {"objective": "dkq"},
        InvalidInputError,
        r"objective 'dkq' is unknown; the known ones are kd, hard-teacher, .*dkd",
    ),
    (
        {"objective": "dkd", "set": {"gamma": 1}},
        InvalidInputError,
        r"dkd has no setting gamma; it has alpha \(1.0\), beta",
    ),
    ({"objective": "dkd", "set": {"alpha": -1}}, InvalidInputError, r"dkd: alpha is -1: .*greater than or equal to 0"),
    (
        {"objective": "dkd", "tail": "ghost"},
        InvalidInputError,
        r"DKD cannot take tail 'ghost'; it can take uniform, cla",
    ),
    (
        {"objective": "kd-sim"},
        KdcacheError,
        r"kd-sim needs the teacher's classifier, which .*; extract with --keep head",
    ),
    (
        {"objective": "kd-topk", "set": {"k": 4}},
        InvalidInputError,
        r"needs 4 classes, .* gives 3; extract with --top-k 4",
    ),
    (
        {"objective": "mlld", "temperature": 2},
        InvalidInputError,
        r"mlld has no setting temperature; it has temperatures",
    ),
    (
        {"objective": "mlld", "temperature": None, "set": {"temperatures": [0.5]}},
        InvalidInputError,
        r"temperature 0.5 was asked for; .*full",
    ),
    (
        {"set": {"temperature": 2}, "temperature": 3},
        InvalidInputError,
        r"--temperature is 3.0 and --set temperature is 2",
    ),
    ({"set": {"w_kd": -2}}, InvalidInputError, r"objective kd: w_kd is -2: Input should be greater than or equal to 0"),
    ({"then": ("1:nkd,w_ce=-1",)}, InvalidInputError, r"objective nkd: w_ce is -1: .*greater than or equal to 0"),
    ({"then": ("1:nkd,w_ce=0,w_kd=0",)}, InvalidInputError, r"w_ce and w_kd of objective nkd are both 0"),
    ({"objective": "jsd", "set": {"w_kd": 0}}, InvalidInputError, r"of objective jsd are both 0"),
    (
        {"over_epochs": {"beta": "0:1"}},
        InvalidInputError,
        r"KD has no beta to change over epochs; it has w_ce, w_kd, temp",
    ),
    ({"over_epochs": {"w_kd": "1"}}, InvalidInputError, r"w_kd '1' is not a ramp; write EPOCH:VALUE,..."),
    ({"over_epochs": {"w_kd": "3:1,1:0"}}, InvalidInputError, r"epochs must not fall"),
    (
        {"temperature": None, "over_epochs": {"temperature": "0:4,1:0.5"}},
        InvalidInputError,
        r"temperature 0.5 was asked for",
    ),
    ({"then": ("nkd",)}, InvalidInputError, r"--then 'nkd' is not EPOCH:NAME"),
    ({"then": ("2:nkd",)}, InvalidInputError, r"--then names epoch 2, the run has 2; give 1 to 1"),
    ({"then": ("0:nkd",)}, InvalidInputError, r"--then names epoch 0, the run has 2; give 1 to 1"),
    ({"then": ("1:nkd",), "kd_epochs": 1}, InvalidInputError, r"--then and --kd-epochs both change the objective"),
    ({"kd_epochs": 2}, InvalidInputError, r"--kd-epochs names epoch 2, the run has 2; give 1 to 1"),
    (
        {"then": ("1:mlld,temperatures",)},
        InvalidInputError,
        r"'temperatures' is not key=value; write --then 1:mlld,gam",
    ),
    ({"objective": "mlld", "temperature": None, "set": {"temperatures": []}}, InvalidInputError, r"at least 1 item"),
    (
        {"temperature": None, "set": {"temperature": float("inf")}},
        InvalidInputError,
        r"kd: temperature is inf: .*finite",
    ),
    ({"set": {"w_ce": True}}, InvalidInputError, r"objective kd: w_ce is True; give a number"),
    ({"set": {"w_ce": 0, "w_kd": 0}}, InvalidInputError, r"are both 0: there is nothing to learn; raise one"),
    (
        {"over_epochs": {"w_kd": "0:-1"}},
        InvalidInputError,
        r"kd: w_kd over epochs is -1.0: .*greater than or equal to 0",
    ),
    ({"over_epochs": {"w_kd": "nan:1,2:0.5"}}, InvalidInputError, r"is not a ramp"),
    (
        {"over_epochs": {"w_kd": "0:1"}, "set": {"w_kd": 1}},
        InvalidInputError,
        r"w_kd is given as a number and by --over-epochs",
    ),
    (
        {"objective": "jsd", "temperature": None, "over_epochs": {"beta": "0:0.5,1:1.0"}},
        InvalidInputError,
        r"jsd: beta over epochs is 1.0: .*less than 1",
    ),
    (
        {"store": (), "set": {"alpha": 3}},
        InvalidInputError,
        r"--set shape an objective, and without a st",
    ),
    ({"store": (), "objective": "dkd"}, InvalidInputError, r"objective dkd needs a store and none is given"),
    ({"temperature": "calibrated"}, InvalidInputError, r"needs a held-out store; give --calibration-store"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), WRONG, ids=[str(wrong[0])[:40] for wrong in WRONG])
def test_what_cannot_work_is_refused_before_the_run_is_claimed(
    stage: Stage, tmp_path: Path, changes: dict[str, Any], kind: type[KdcacheError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        train(student(tmp_path / "run", **{"store": (stage.store,), **changes}))
    assert not (tmp_path / "run").exists()


def test_a_student_without_a_store_must_answer_every_label(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has label 9, the student answers 7 classes"):
        train(student(tmp_path / "run", student_set={"num_classes": 7}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("role", ["store", "val_store"])
def test_a_store_that_is_not_whole_is_refused(stage: Stage, tmp_path: Path, role: str) -> None:
    stop, progress = stop_after(5)
    with pytest.raises(InterruptedRunError):
        extract(stage.asked(tmp_path / "part.kd"), progress=progress, stop=stop)
    stores = {"store": (stage.store,), "val_set": {"split": "train"}}
    stores |= {role: (str(tmp_path / "part.kd"),) if role == "store" else str(tmp_path / "part.kd")}
    with pytest.raises(KdcacheError, match=r"part.kd: views-00000-00002 has \d of 5 blocks; finish it with the same"):
        train(student(tmp_path / "run", **stores))
    assert not (tmp_path / "run").exists()


def test_a_validation_transform_other_than_the_store_s_is_refused(stage: Stage, tmp_path: Path) -> None:
    judged = {"val_set": {"split": "train"}, "val_store": stage.store}
    with pytest.raises(MismatchError, match="leave --val-transform to the store"):
        train(student(tmp_path / "run", **judged, val_transform="center", val_transform_set={"size": 8}))
    assert not (tmp_path / "run").exists()


def test_stores_of_other_views_make_no_ensemble(stage: Stage, tmp_path: Path) -> None:
    extract(stage.asked(tmp_path / "other.kd", seed=1, views="1"))
    with pytest.raises(MismatchError, match=r"other.kd has another order"):
        train(student(tmp_path / "run", store=(stage.store, str(tmp_path / "other.kd"))))


def test_a_run_whose_loss_is_not_finite_never_counts_as_finished(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KdcacheError, match=r"the loss is (nan|inf) at epoch 1, step \d+ .* position \d+; lower"):
            train(student(tmp_path / "run", lr=1e30, epochs=1))
    assert not (tmp_path / "run/weights").exists()


SHIFTING = """
import os
import torch

def make():
    return shift

def shift(image):
    return torch.roll(image, int(os.environ.get("KDCACHE_TEST_SHIFT", "1")) + int(torch.randint(2, ())), -1)
"""


@pytest.fixture
def shifted(stage: Stage, tmp_path: Path) -> dict[str, Any]:
    """Train's settings for a store whose views a user's own transform draws, as an environment variable says."""
    (tmp_path / "mine.py").write_text(SHIFTING)
    own = {"transform": f"{tmp_path}/mine.py:make", "transform_set": {}}
    extract(stage.asked(tmp_path / "own.kd", **own, min_accuracy=0.0))
    return {"store": (str(tmp_path / "own.kd"),), "epochs": 1, **own}


def test_a_user_s_own_transform_replays_where_it_is_named_again(shifted: dict[str, Any], tmp_path: Path) -> None:
    assert train(student(tmp_path / "run", **shifted)).steps == 5
    with pytest.raises(InvalidInputError, match=r"drawn by mine.py:make, a transform of the user's own; name it again"):
        train(student(tmp_path / "other", **{**shifted, "transform": "none"}))
    (tmp_path / "mine.py").write_text(SHIFTING.replace('"1"', '"2"'))
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours/mine.py").write_text(SHIFTING.replace('"1"', '"2"'))
    with pytest.raises(MismatchError, match=r"use the transform that the store was made with"):
        train(student(tmp_path / "other", **{**shifted, "transform": f"{tmp_path}/yours/mine.py:make"}))
    assert not (tmp_path / "other").exists()


def test_a_transform_that_behaves_otherwise_stops_the_run(
    shifted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCACHE_TEST_SHIFT", "3")
    for accept in (False, True):
        with pytest.raises(ReplayError, match=r"is not the view the teacher saw: another picture"):
            train(student(tmp_path / f"run {accept}", **shifted, accept_drift=accept))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 70 noisy pictures of 8 x 8 pixels."""
    generator = np.random.RandomState(0)
    for number in range(140):
        path = tmp_path / "data" / ("dark", "light")[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.randint(0, 120, (8, 8, 3)) + 120 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "data"


def test_a_picture_that_changed_stops_the_run_at_its_row(folder: Path, tmp_path: Path) -> None:
    data = {"data": f"folder:{folder}", "data_set": {}, "student_set": {"width": 4, "channels": 3}}
    teacher = train(student(tmp_path / "teacher", **data, epochs=4))
    asked = Stage(tmp_path).asked(
        tmp_path / "pictures.kd",
        teacher_set=data["student_set"],
        weights=teacher.weights,
        data=data["data"],
        data_set={},
        top_k=1,
        min_accuracy=0.0,
    )
    extract(asked)
    settings = {**data, "store": (str(tmp_path / "pictures.kd"),), "epochs": 1}
    assert train(student(tmp_path / "before", **settings)).steps == 3
    changed = folder / "light" / "003.png"
    unseen = sorted(folder.glob("*/*.png")).index(changed)
    assert unseen not in np.linspace(0, 139, 64).astype(int), "the probes would have seen it"
    pixels = np.asarray(Image.open(changed)).copy()
    pixels[4, 4] ^= 1
    Image.fromarray(pixels).save(changed)
    with pytest.raises(
        ReplayError,
        match=rf"sample {unseen} \(position \d+\) is another than .* was extracted from: its bytes have fingerprint",
    ):
        train(student(tmp_path / "after", **settings))
