"""Refusals that show the difference: of transforms the lines that differ, of data sets the file that was renamed."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kits import pictures
from tests.kits.doors import Door
from tests.kits.pictures import NET, Gallery, write_pictures
from tests.kits.stages import NETWORK

gallery = pictures.gallery

LONG = '''"""A transform of thirty steps, one of which has a magnitude."""
from torchvision.transforms import v2
def augment(size=16):
    blurs = [v2.GaussianBlur(3, (0.1, 0.2 + number / 100)) for number in range(30)]
    return v2.Compose([v2.PILToTensor(), v2.Resize((size, size)), *blurs, v2.RandAugment(magnitude=9)])
'''
OWN_CODE = '''"""A transform without a repr of its own, which flips at random."""
import torch
from torchvision.transforms import v2
class Flip:
    def __init__(self, size):
        self.size = v2.Compose([v2.PILToTensor(), v2.Resize((size, size))])
    def __call__(self, image):
        return self.size(image).flip(-1) if torch.rand(()) < 0.5 else self.size(image)
def augment(size=16):
    return Flip(size)
'''


def asking(gallery: Gallery, store: str, *more: object) -> list[object]:
    teacher = ["--teacher", NETWORK, "--weights", gallery.weights, *(f"--teacher-set={k}={v}" for k, v in NET.items())]
    return ["extract", store, *teacher, "--data", "folder:photo", "--top-k", 2, "--workers", 0, *more]


def training(run: str, *more: object) -> Sequence[object]:
    student = ["--student", NETWORK, "--student-set", "width=4", "--student-set", "channels=3", "--epochs", 1]
    return ["train", run, "--data", "folder:photo", "--store", "s.kd", *student, "--workers", 0, *more]


def photo(door: Door) -> Path:
    return write_pictures(door.folder / "photo", each=20)


@pytest.mark.situation(
    "a transform of thirty steps, one of them with another magnitude",
    "the line that differs, as the store has it and as it is now",
    exit_code=2,
    left="nothing new",
)
def test_two_transforms_are_shown_as_the_lines_that_differ(gallery: Gallery, door: Door) -> None:
    photo(door)
    door.write("mine.py", LONG)
    door.done(*asking(gallery, "s.kd", "--transform", "mine.py:augment"))
    door.write("other.py", LONG.replace("magnitude=9", "magnitude=10"))
    door.refused(*training("run", "--transform", "other.py:augment"))
    assert door.outcome is not None
    lines = door.outcome.err.splitlines()
    changed = [line.strip() for line in lines if line.strip()[:2] in ("- ", "+ ")]
    assert [line[0] for line in changed] == ["-", "+"]
    assert "magnitude=9," in changed[0]
    assert "magnitude=10," in changed[1]
    assert sum(map(len, lines)) < 600
    assert "magnitude=10," in door.refused(
        *asking(gallery, "s.kd", "--transform", "other.py:augment", "--views", "1:2")
    )
    assert "magnitude=10," in door.refused(
        "verify", "s.kd", "--data", "folder:photo", "--transform", "other.py:augment"
    )


@pytest.mark.situation(
    "the store's transform, in a file and under a name of one's own",
    "a run: equal code is the same transform",
    exit_code=0,
    left="a run with its weights",
)
@pytest.mark.parametrize("text", [LONG, OWN_CODE], ids=["torchvision's", "own"])
def test_equal_code_in_another_file_is_the_same_transform(gallery: Gallery, door: Door, text: str) -> None:
    photo(door)
    door.write("mine.py", text)
    store = door.done(*asking(gallery, "s.kd", "--transform", "mine.py:augment"))
    door.write("team/theirs.py", text.replace("def augment", "def crops"))
    theirs = ("--transform", "team/theirs.py:crops")
    more = door.done(*asking(gallery, "s.kd", *theirs, "--views", "1:2"))
    assert (store["rows"], more["rows"]) == (80, 80)
    door.done("verify", "s.kd", "--data", "folder:photo", *theirs)
    assert "another transform" in door.refused(*training("run", *theirs, "--transform-set", "size=12"))
    door.done(*training("run", *theirs))


@pytest.mark.situation(
    "a picture that was renamed in place", "its name, and that nothing else differs", exit_code=2, left="nothing new"
)
def test_a_renamed_picture_is_named(gallery: Gallery, door: Door) -> None:
    folder = photo(door)
    center = ("--transform", "center", "--transform-set", "size=16")
    door.done(*asking(gallery, "s.kd", *center))
    names = sorted(path for path in folder.rglob("*.*"))
    names[7].rename(names[7].with_stem(names[7].stem + "b"))
    message = door.refused(*training("run"))
    renamed = names[7].with_stem(names[7].stem + "b").relative_to(folder)
    assert f"1 sample has another id than it had, which is now {renamed}" in message
    names[30].rename(names[30].with_stem(names[30].stem + "b"))  # in the same block or another: both are told or none
    message = door.refused(*training("run"))
    assert "2 samples have other ids" in message or "their ids or the names of classes differ" in message


@pytest.mark.situation(
    "a store of the first rows, met by the whole data set", "the limit that it was made with", exit_code=2,
    left="nothing new",
)  # fmt: skip
def test_a_store_that_was_limited_is_told(gallery: Gallery, door: Door) -> None:
    photo(door)
    center = ("--transform", "center", "--transform-set", "size=16")
    door.done(*asking(gallery, "s.kd", *center, "--data-set", "limit=70"))
    door.done(*training("limited", "--data-set", "limit=70"))
    message = door.refused(*training("run"))
    assert message.index("dataset.rows") < message.index("dataset.ids")
    assert "was it limited? Then give --data-set limit=70 here too" in message
    assert len(max(message.split(), key=len)) < 64  # no whole sha256
