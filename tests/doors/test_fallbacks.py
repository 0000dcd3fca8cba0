"""Data sets that give another sample in place of one that they cannot read, and folders met twice, or hidden."""

import shutil
from pathlib import Path

import pytest

from kdcache.store.store import Store
from kdcache.views.sources import open_data
from tests.kits import pictures
from tests.kits.doors import Door
from tests.kits.pictures import NET, ROWS, Gallery
from tests.kits.stages import NETWORK

gallery = pictures.gallery

FALLBACK = """
from torchvision.datasets import ImageFolder
class Next:
    "The next sample stands for one that cannot be read, with its label; `targets` are those of the files."
    def __init__(self, root):
        self.inner = ImageFolder(root)
        self.targets, self.classes = self.inner.targets, self.inner.classes
    def __len__(self): return len(self.targets)
    def __getitem__(self, index):
        return self.inner[index + 1 if index == 44 else index]
class AtRandom(Next):
    "Another one at random, and labels are read with the rows."
    reads = 0
    def __init__(self, root):
        super().__init__(root)
        self.targets = None
    def __len__(self): return len(self.inner)
    def __getitem__(self, index):
        AtRandom.reads += index == 44
        return self.inner[179 if index == 44 and AtRandom.reads > 1 else index]
"""
CROPS = ("--transform", "imagenet", "--transform-set", "size=16", "--transform-set", "scale=[0.5, 1.0]")


def extraction(gallery: Gallery, data: object, *more: object) -> list[object]:
    """The words of an extraction of one view by the gallery's teacher."""
    teacher = ["--teacher", NETWORK, "--weights", gallery.weights, *(f"--teacher-set={k}={v}" for k, v in NET.items())]
    return ["extract", "s.kd", *teacher, "--data", data, "--views", 1, "--top-k", 2, "--workers", 0, *CROPS, *more]


@pytest.fixture
def own(gallery: Gallery, door: Door) -> tuple[str, ...]:
    """The words that name the data set: sample 44 is the last cat, and 45 a coffee."""
    door.write("own.py", FALLBACK)
    return "own.py:Next", "--data-set", f"root={gallery.pictures}"


@pytest.mark.situation(
    "a data set that gives the next sample in place of one that it cannot read",
    "the sample, its label and the one in its row",
    exit_code=2,
    left="files that are whole or as they were",
)
@pytest.mark.parametrize("kind", ["Next", "AtRandom"])
def test_another_sample_s_label_is_refused(gallery: Gallery, door: Door, own: tuple[str, ...], kind: str) -> None:
    message = door.refused(*extraction(gallery, f"own.py:{kind}", *own[1:], "--labels", "data"))
    row_label = {"Next": 1, "AtRandom": 3}[kind]
    assert all(word in message for word in ("sample 44", f"has label {row_label} in its row and 0")), message
    store = Store.open_for_writing(door.folder / "s.kd")
    assert not list(door.folder.glob("s.kd/kdcache/seals/*"))
    row = int((store.order == 44).nonzero()[0][0])
    for segment in store.segments:
        assert row // segment.layout.block not in segment.commits()


def test_in_plain_training_too(door: Door, own: tuple[str, ...]) -> None:
    student = ("--student", NETWORK, "--student-set", "width=2", "--student-set", "channels=3")
    message = door.refused("train", "run", "--data", *own, *student, "--epochs", 1, "--workers", 1, *CROPS)
    assert "sample 44" in message
    assert "has label 1 in its row and 0" in message


@pytest.mark.situation(
    "the same, with `--on-bad-sample strike`",
    "a note that names the sample, which has no answer",
    exit_code=0,
    left="a whole store",
)
def test_such_a_row_can_be_struck(gallery: Gallery, door: Door, own: tuple[str, ...]) -> None:
    record = door.done(*extraction(gallery, *own, "--on-bad-sample", "strike"))
    assert record["struck"] == 1
    store = Store.open(door.folder / "s.kd")
    assert store.order[store.struck(0)].tolist() == [44]


def test_labels_that_are_not_used_are_not_compared(gallery: Gallery, door: Door, own: tuple[str, ...]) -> None:
    record = door.done(*extraction(gallery, *own, "--labels", "none", "--min-accuracy", 0))
    assert (record["rows"], record["struck"]) == (ROWS, 0)


@pytest.mark.situation(
    "a link in a folder of pictures that leads back into it",
    "the link",
    exit_code=2,
    left="nothing new",
)
def test_a_link_that_leads_back(gallery: Gallery, door: Door) -> None:
    data = Path(shutil.copytree(gallery.pictures, door.folder / "data"))
    (data / "cat/loop").symlink_to("../cat")
    message = door.refused(*extraction(gallery, "folder:data"))
    assert "cat/loop" in message
    assert "remove that link" in message


@pytest.mark.situation(
    "a hidden folder beside those of the classes, as notebooks and file managers make them",
    "a note: it is no class; `--data-set hidden=true` takes it",
    exit_code=0,
    left="a whole store",
)
def test_a_hidden_folder_is_no_class(gallery: Gallery, door: Door) -> None:
    data = Path(shutil.copytree(gallery.pictures, door.folder / "data"))
    shutil.copytree(data / "cat", data / ".ipynb_checkpoints")
    record = door.done(*extraction(gallery, "folder:data"))
    assert record["rows"] == ROWS
    assert record["notes"] == ["hidden folders are left out: .ipynb_checkpoints; --data-set hidden=true takes them"]
    assert Store.open(door.folder / "s.kd").identity.dataset == open_data(f"folder:{gallery.pictures}", {}).identity()
