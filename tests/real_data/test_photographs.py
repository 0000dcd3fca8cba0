"""A folder of photographs, an EfficientNet of ImageNet that keeps features, head and a map, ResNet-18 students."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdcache.cli.app import main
from kdcache.store.store import Store
from tests.kits.photographs import photographs

TEACHER = "tests.kits.photographs:imagenet_teacher"
LAST_MAP = "_swish_1"  # what `kdcache taps` lists last before the pooling
DATA = ("--labels", "none", "--transform", "imagenet", "--transform-set", "size=96", "--workers", "0")
CROPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Square cuts of 19 photographs as PNG files of 128 x 128."""
    place, rng = tmp_path_factory.mktemp("photographs"), np.random.RandomState(0)
    (place / "pictures/all").mkdir(parents=True)
    for number, picture in enumerate(photographs()):
        height, width = picture.shape[:2]
        for crop in range(CROPS):
            side = int(rng.uniform(0.4, 1.0) * min(height, width))
            top, left = rng.randint(height - side + 1), rng.randint(width - side + 1)
            cut = Image.fromarray(picture[top : top + side, left : left + side]).resize((128, 128))
            cut.save(place / f"pictures/all/{number:02d}-{crop}.png")
    return place


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    mean, std = ",".join([str(127 / 255)] * 3), ",".join([str(128 / 255)] * 3)
    kdcache(
        "extract", folder / "s.kd", "--teacher", TEACHER, "--data", f"folder:{folder / 'pictures'}", *DATA,
        "--mean", mean, "--std", std, "--views", 2, "--keep", f"features,head,tap:{LAST_MAP}",
    )  # fmt: skip
    return Store.open(folder / "s.kd")


def kdcache(*given: Any) -> None:
    """A command line that ends well."""
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in given])
    assert left.value.code == 0


def trained(folder: Path, store: Store, objective: str, *more: Any) -> Path:
    """The run of a ResNet-18 that learns from the store alone."""
    run = folder / "runs" / objective
    kdcache(
        "train", run, "--store", store.folder.root, "--data", f"folder:{folder / 'pictures'}", *DATA,
        "--student", "torchvision:resnet18", "--objective", objective, "--set", "w_ce=0", *more,
        "--epochs", 3, "--batch-size", 19, "--lr", 0.01,
    )  # fmt: skip
    return run


def test_the_store_holds_what_the_teacher_answers(
    folder: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    kdcache(
        "verify", store.folder.root, "--data", f"folder:{folder / 'pictures'}", "--teacher", TEACHER,
        "--json",
    )  # fmt: skip
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert {"pixels", "teacher answers", "teacher outputs"} <= checks.keys()
    assert all(check["passed"] for check in checks.values())


def test_all_logits_come_from_features_and_classifier(store: Store) -> None:
    """Every row is held against its ten stored logits when it is read; the best class is the stored one."""
    positions = np.arange(len(photographs()) * CROPS)
    for view in (0, 1):
        logits = store.logits(view, positions)
        best = np.asarray(store.read(view, positions).top_class)
        assert logits.shape == (len(positions), 1000)
        behind = logits.max(axis=-1) - logits[np.arange(len(positions)), best]
        assert behind.max() < 0.05  # two classes may be nearer than f16 features tell apart


@pytest.mark.parametrize("objective", ["kd+hint", "srrl"])
def test_a_student_learns_from_them(folder: Path, store: Store, objective: str) -> None:
    run = trained(folder, store, objective)
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_simkd_answers_through_the_teacher_s_classifier_and_teaches_in_turn(folder: Path, store: Store) -> None:
    run = trained(folder, store, "simkd")
    kdcache(
        "extract", folder / "next.kd", "--teacher", f"run:{run}", "--data", f"folder:{folder / 'pictures'}", *DATA,
        "--views", 1, "--keep", "features,head",
    )  # fmt: skip
    following = Store.open(folder / "next.kd")
    assert following.identity.parents == (store.content_id,)
    for name, expected in store.head().items():
        np.testing.assert_array_equal(following.head()[name], expected)
