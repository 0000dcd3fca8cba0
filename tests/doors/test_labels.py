"""Labels as users' data sets give them, and what is left out of a data set, from the command line."""

import shutil

import pytest

from kdcache.store.store import Store
from kdcache.views.sources import open_data
from tests.kits import colours as kit
from tests.kits.colours import FEW, STUDENT, TEACHER, extract, train
from tests.kits.doors import Door

colours = kit.colours


@pytest.mark.situation(
    "plain training with a folder that is not there",
    "the folder, and what it must hold",
    exit_code=2,
    left="nothing new",
)
def test_a_folder_that_is_not_there(door: Door) -> None:
    message = door.refused(
        "train", "run", "--student", "kdcache.networks:convnet", "--data", "folder:nowhere", "--workers", 0
    )
    assert "nowhere" in message


@pytest.mark.situation(
    "a data set with a target_transform, whose `targets` are other labels than its rows have",
    "the sample and both labels",
    exit_code=2,
    left="nothing new",
)
def test_a_target_transform(colours: Door) -> None:
    message = colours.refused("train", "run", *STUDENT, *FEW, "--data", "sets.py:remapped")
    assert "sample 0 (blue/00.png) has label 3 in data[0][1] and 0 in its attribute `targets`" in message


LABELS = {
    "Ages": ("sample 0 (0) has label 0.31", "--labels none"),
    "Hundred": ("sample 0 (0) has label -100", "give -1 or None"),
    "FromOne": ("sample 36 (36) has label 4", "4 classes, 0 to 3"),
    "Dicts": ("a row is a dict with photo, kind", "none of them is its image"),
}


@pytest.mark.situation(
    "labels that number no class: decimals, -100, counted from 1; rows that are dicts of other keys",
    "the sample and its label, or the row's keys",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("command", ["train", "extract"])
def test_labels_that_number_no_class(colours: Door, name: str, command: str) -> None:
    words = (*STUDENT, *FEW) if command == "train" else ("--teacher", "nets.py:colours", *TEACHER)
    message = colours.refused(command, "target", *words, "--data", f"sets.py:{name}")
    assert all(word in message for word in LABELS[name]), message


@pytest.mark.situation(
    "plain training where no row has a label",
    "that there is nothing to learn",
    exit_code=2,
    left="nothing new",
)
def test_plain_training_without_labels(colours: Door) -> None:
    words = (*STUDENT, "--student-set", "num_classes=4", *FEW, "--data", "sets.py:Unlabelled")
    assert "nothing to learn" in colours.refused("train", "run", *words)


@pytest.mark.parametrize(
    "objective",
    [("--set", "w_kd=0", "--set", "w_ce=1"), ("--objective", "dkd"), ("--kd-epochs", 2), ("--then", "1:kd-pt")],
    ids=str,
)
def test_an_objective_of_labels_alone_without_labels(colours: Door, objective: tuple[object, ...]) -> None:
    extract(colours, "x.kd", "colours", "--data", "sets.py:Unlabelled")
    words = (*STUDENT, *FEW, "--data", "sets.py:Unlabelled", "--store", "x.kd")
    assert "nothing to learn" in colours.refused("train", "run", *words, *objective)


def test_rows_without_a_label_are_counted(colours: Door) -> None:
    record = extract(colours, "x.kd", "colours", "--data", "sets.py:Half")
    assert "24 of 48 rows have no label" in record["notes"]
    taught = train(colours, "taught", "--data", "sets.py:Half", "--store", "x.kd")
    assert "24 of 48 rows have no label" in taught["notes"]
    alone = train(colours, "alone", "--data", "sets.py:Half")
    assert {"24 of 48 rows have no label", "rows without a label teach nothing under this objective"} <= {
        *alone["notes"]
    }


@pytest.mark.situation(
    "data whose labels mean something else, with `--labels none`",
    "a store of all the teacher's classes without hard labels; training takes `--labels none` too",
    exit_code=0,
    left="a run with its weights",
)
def test_labels_none(colours: Door) -> None:
    record = extract(colours, "x.kd", "six", "--data", "sets.py:Ages", "--labels", "none")
    assert record["accuracy_clean"] is None
    store = Store.open(colours.folder / "x.kd")
    assert (store.identity.teacher.classes, store.identity.dataset.class_names) == (6, ())
    assert set(store.labels.tolist()) == {-1}
    assert colours.run("verify", "x.kd", "--data", "sets.py:Ages", "--teacher", "nets.py:six").exit_code == 0
    extract(colours, "val.kd", "six", "--data", "sets.py:Ages", "--data-set", "split=val", "--labels", "none")
    words = ("--data", "sets.py:Ages", "--store", "x.kd", "--val-set", "split=val", "--val-store", "val.kd")
    taught = train(colours, "run", *words, "--labels", "none")
    assert set(taught["validation"]) == {"agreement", "kl_to_teacher"}
    assert taught["notes"] == []


def test_labels_none_on_one_side_alone_is_refused(colours: Door) -> None:
    extract(colours, "none.kd", "colours", "--data", "folder:data/train", "--labels", "none")
    extract(colours, "data.kd", "colours", "--data", "folder:data/train")
    words = (*STUDENT, *FEW, "--data", "folder:data/train")
    message = colours.refused("train", "run", *words, "--store", "none.kd")
    assert "none.kd" in message
    assert "--labels none" in message
    message = colours.refused("train", "run", *words, "--store", "data.kd", "--labels", "none")
    assert "data.kd" in message
    assert "--set w_ce=0" in message
    assert colours.run("train", "run", *words, "--store", "none.kd", "--labels", "none").exit_code == 0


@pytest.mark.situation(
    "`limit` of a folder whose classes stand one after another",
    "a note that names the classes without rows",
    exit_code=0,
    left="a whole store",
)
def test_a_limit_that_takes_some_classes(colours: Door) -> None:
    record = extract(colours, "x.kd", "colours", "--data", "folder:data/train", "--data-set", "limit=20")
    assert record["notes"] == ["2 of 4 classes have no row: gold, grey"]


@pytest.mark.situation(
    "files of a folder that are no pictures by their names",
    "a note that counts them by suffix",
    exit_code=0,
    left="a whole store",
)
def test_files_that_are_no_pictures(colours: Door) -> None:
    for number in range(3):
        colours.write(f"data/train/blue/{number}.txt", "text")
    record = extract(colours, "x.kd", "colours", "--data", "folder:data/train")
    assert (record["rows"], record["notes"]) == (48, ["3 files are no pictures by their names (.txt 3)"])


def test_a_label_of_validation_beyond_the_student_s_classes(colours: Door) -> None:
    """Seen before the first step, not after the first epoch."""
    shutil.rmtree(colours.folder / "data/train/grey")
    message = colours.refused("train", "run", *STUDENT, *FEW, "--data", "sets.py:Base", "--val-set", "split=val")
    assert "label 3" in message
    assert "3 classes" in message


def test_the_identity_of_a_data_set_has_no_notes(colours: Door) -> None:
    before = open_data("folder:data/train", {}).identity()
    colours.write("data/train/blue/x.txt", "text")
    assert open_data("folder:data/train", {}).identity() == before
