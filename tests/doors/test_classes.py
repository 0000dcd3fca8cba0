"""Classes at the door: matched by name, never by number in silence."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kdcache.networks.small import convnet
from kdcache.store.lineage import read_class_names, weights_metadata
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits import colours as kit
from tests.kits.colours import CLASSES, FEW, SPLITS, STUDENT, TEACHER, extract, train, write_colours
from tests.kits.doors import Door

colours = kit.colours


@pytest.mark.situation(
    "the validation folder lacks a class folder",
    "accuracy by the names of classes, and a note that names the class without rows",
    exit_code=0,
    left="a run with its weights",
)
def test_validation_that_lacks_a_class(colours: Door) -> None:
    whole = train(colours, "whole", *SPLITS)
    shutil.rmtree(colours.folder / "data/val/blue")
    record = train(colours, "run", *SPLITS)
    assert whole["validation"]["accuracy"] > 0.9
    assert record["validation"]["accuracy"] > 0.9  # 0 by number: all labels one class off
    assert any("blue" in note and "training's 4 classes" in note for note in record["notes"])
    assert whole["notes"] == []


@pytest.mark.situation(
    "the validation folder names a class that training has not",
    "both lists of classes",
    exit_code=2,
    left="nothing new",
)
def test_validation_of_another_class(colours: Door) -> None:
    (colours.folder / "data/val/blue").rename(colours.folder / "data/val/zebra")
    message = colours.refused("train", "run", *STUDENT, *FEW, *SPLITS)
    assert all(name in message for name in (*CLASSES, "zebra"))


def test_validation_in_another_order_of_classes(colours: Door) -> None:
    record = train(colours, "run", "--data", "sets.py:Backwards", "--val-set", "split=val")
    assert record["validation"]["accuracy"] > 0.9
    assert any("matched by name" in note for note in record["notes"])


@pytest.mark.situation(
    "a validation store whose classes are not training's",
    "both lists of classes, and the store",
    exit_code=2,
    left="nothing new",
)
def test_a_validation_store_of_other_classes(colours: Door) -> None:
    shutil.rmtree(colours.folder / "data/val/blue")
    extract(colours, "val.kd", "six_named", "--data", "folder:data/val")
    message = colours.refused("train", "run", *STUDENT, *FEW, *SPLITS, "--val-store", "val.kd")
    assert all(name in message for name in ("val.kd", *CLASSES))


@pytest.mark.situation(
    "a teacher of more classes than the data, and no name tells which",
    "both numbers of classes, `--class-map FILE` and `--labels none`",
    exit_code=2,
    left="nothing new",
)
def test_a_teacher_of_more_classes(colours: Door) -> None:
    message = colours.refused("extract", "x.kd", "--teacher", "nets.py:six", *TEACHER, "--data", "folder:data/train")
    assert all(word in message for word in ("6 classes", "has 4", *CLASSES, "--class-map FILE", "--labels none"))


@pytest.mark.situation(
    "a teacher of more classes, with `--class-map FILE`",
    "a store of the data's classes",
    exit_code=0,
    left="a whole store",
)
def test_a_class_map(colours: Door) -> None:
    colours.write("map.txt", "0 = grey\n2 = 'gold'\n3 = cyan # by name or number\n5 = 0\n")
    record = extract(colours, "x.kd", "six", "--data", "folder:data/train", "--class-map", "map.txt")
    assert (record["accuracy_clean"], record["accuracy_views"], record["notes"]) == (1.0, 1.0, [])
    store = Store.open(colours.folder / "x.kd")
    assert store.identity.teacher.class_map == (3, -1, 2, 1, -1, 0)
    soft_labels = store.read(0, np.arange(48))
    assert np.array_equal(np.asarray(soft_labels.dense(1.0)).argmax(-1), store.labels)
    assert len(np.asarray(soft_labels.dense(1.0))[0]) == 4


def test_another_class_map_is_refused_and_the_same_goes_on(colours: Door) -> None:
    colours.write("map.txt", "0 = grey\n2 = gold\n3 = cyan\n5 = blue\n")
    words = (
        "--data",
        "folder:data/train",
        "--transform",
        "light",
        "--transform-set",
        "padding=1",
        "--class-map",
        "map.txt",
    )
    extract(colours, "x.kd", "six", *words)
    extract(colours, "x.kd", "six", *words, "--views", "1:2")
    extract(colours, "x.kd", "six", *words[:-2], "--views", "2:3")  # the store's own map
    colours.write("map.txt", "0 = grey\n2 = gold\n4 = cyan\n5 = blue\n")
    message = colours.refused("extract", "x.kd", "--teacher", "nets.py:six", *TEACHER, *words, "--views", "3:4")
    assert "class 3: the store has 1, map.txt has -1" in message
    assert "class 4: the store has -1, map.txt has 1" in message


@pytest.mark.situation(
    "a teacher that names its classes, of another order or more of them",
    "a store of the data's classes, and a note that names them",
    exit_code=0,
    left="a whole store",
)
@pytest.mark.parametrize("teacher", ["six_named", "backwards"])
def test_a_teacher_with_names(colours: Door, teacher: str) -> None:
    record = extract(colours, "x.kd", teacher, "--data", "folder:data/train")
    assert record["accuracy_clean"] == 1.0
    assert any(all(f"= {name}" in note for name in CLASSES) for note in record["notes"])
    assert Store.open(colours.folder / "x.kd").identity.teacher.classes == 4


def test_a_name_that_two_of_the_teacher_s_classes_have(colours: Door) -> None:
    words = ("--teacher", "nets.py:twins", *TEACHER, "--data", "folder:data/train")
    assert "several are named 'blue': 1, 4" in colours.refused("extract", "x.kd", *words)


def test_a_folder_of_synsets_is_matched_with_a_network_of_1000_classes(colours: Door) -> None:
    write_colours(colours.folder / "synsets", 6, {"grey": "n01440764", "blue": "n02124075"})
    for name in ("cyan", "gold"):
        shutil.rmtree(colours.folder / "synsets" / name)
    record = extract(colours, "x.kd", "imagenet", "--data", "folder:synsets")
    assert record["accuracy_clean"] == 1.0
    class_map = Store.open(colours.folder / "x.kd").identity.teacher.class_map
    assert (class_map[0], class_map[285], sum(label >= 0 for label in class_map)) == (0, 1, 2)


def test_equal_names_give_no_map(colours: Door) -> None:
    record = extract(colours, "x.kd", "colours", "--teacher-set", "named=true", "--data", "folder:data/train")
    assert record["notes"] == []
    assert Store.open(colours.folder / "x.kd").identity.teacher.class_map == ()


def test_a_student_becomes_a_teacher_by_the_names_of_its_classes(colours: Door) -> None:
    """Its weights file holds them: of a folder with fewer classes it answers those alone."""
    train(colours, "teacher", *SPLITS)
    weights = "teacher/weights/last.safetensors"
    assert read_class_names(weights) == CLASSES
    shutil.rmtree(colours.folder / "data/train/blue")
    words = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "channels=3", "--teacher-set", "width=4")
    record = colours.done(
        "extract", "x.kd", *words, "--weights", weights, "--data", "folder:data/train", "--workers", 0
    )
    assert record["accuracy_clean"] > 0.9
    assert Store.open(colours.folder / "x.kd").identity.teacher.class_map == (-1, 0, 1, 2)
    (colours.folder / "data/train/cyan").rename(colours.folder / "data/train/zebra")
    message = colours.refused(
        "extract", "y.kd", *words, "--weights", weights, "--data", "folder:data/train", "--workers", 0
    )
    assert "zebra" in message


def test_weights_of_other_classes_are_said_when_training_starts_from_them(colours: Door) -> None:
    network = convnet(width=4, channels=3, num_classes=4)
    torch.manual_seed(0)
    save_weights(Path("w.safetensors"), network, metadata=weights_metadata([], class_names=CLASSES[::-1]))
    record = train(colours, "run", *SPLITS, "--weights", "w.safetensors")
    assert any("0 was grey and is blue" in note for note in record["notes"])
