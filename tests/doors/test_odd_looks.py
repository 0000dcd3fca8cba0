"""What looks odd and may be right is done under a note, from the command line."""

from typing import Any

import pytest

from tests.kits import feeding, pictures
from tests.kits.doors import Door
from tests.kits.feeding import extract

gallery = pictures.gallery
words = feeding.words


@pytest.mark.situation(
    "`--mask-classes` of a class that rows are labelled with",
    "a note: how many rows",
    exit_code=0,
    left="a whole store",
)
def test_masked_classes_that_rows_are_labelled_with(door: Door, words: dict[str, Any]) -> None:
    record = door.done(*extract("plain", words["data"], "--mask-classes", 2))
    assert [note for note in record["notes"] if note.startswith("45 rows are labelled with")]


@pytest.mark.situation(
    "a transform that destroys the pictures",
    "a note: the accuracy on clean rows and on the views",
    exit_code=0,
    left="a whole store",
)
def test_a_transform_that_destroys_the_pictures(door: Door, words: dict[str, Any]) -> None:
    record = door.done(*extract("plain", words["data"], "--transform", "light", "--transform-set", "padding=1000"))
    assert record["accuracy_clean"] > 0.8
    assert any(f"and {record['accuracy_views']:.3f} on the views" in note for note in record["notes"])


@pytest.mark.situation(
    "a validation split that is the training split", "a note", exit_code=0, left="a run with its weights"
)
def test_validation_on_the_training_split(door: Door, words: dict[str, Any]) -> None:
    """By a student as torchvision's googlenet, which answers a named tuple while it trains."""
    run = ("--data", words["data"], "--epochs", 1, "--workers", 0, "--batch-size", 64, "--val-set")
    record = door.done("train", "run", "--student", "nets.py:two_heads", *run, "split=")
    assert any("the very samples of the training" in note for note in record["notes"])
