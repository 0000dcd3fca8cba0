"""Samples as users have them: files that cannot be read, data sets that grew, shrank or changed, and large pictures."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdcache.networks import checks
from kdcache.store.store import Store
from kdcache.store.whole_arrays import make_order
from kdcache.views.sources import open_data
from tests.kits import pictures
from tests.kits.doors import Door
from tests.kits.pictures import NET, ROWS, Gallery
from tests.kits.stages import NETWORK

gallery = pictures.gallery

CROPS = ("--transform", "imagenet", "--transform-set", "size=16", "--transform-set", "scale=[0.5, 1.0]")
LATE = 150  # position of the sample that is harmed: beyond what checks look at


def extraction(gallery: Gallery, store: str, data: Path, *more: object) -> list[object]:
    """The words of an extraction: two views, top 2, in this process."""
    teacher = ["--teacher", NETWORK, "--weights", gallery.weights, *(f"--teacher-set={k}={v}" for k, v in NET.items())]
    rest = ["--views", 2, "--top-k", 2, "--workers", 0, "--batch-size", 64, *CROPS]
    return ["extract", store, *teacher, "--data", f"folder:{data}", *rest, *more]


def training(store: list[str], data: Path, *more: object) -> list[object]:
    """The words of a training: one epoch of a narrow convnet."""
    stores = [word for path in store for word in ("--store", path)]
    rest = ["--student", NETWORK, "--student-set", "width=4", "--student-set", "channels=3", "--workers", 0]
    return ["train", "run", "--data", f"folder:{data}", *stores, *rest, "--epochs", 1, "--batch-size", 64, *more]


@pytest.fixture
def data(gallery: Gallery, door: Door) -> Path:
    """A copy of the gallery's pictures that a test may change."""
    return Path(shutil.copytree(gallery.pictures, door.folder / "data"))


def harm(data: Path) -> tuple[str, int]:
    """Cut the file of a sample that is met late; its id and index."""
    opened = open_data(f"folder:{data}", {})
    index = int(make_order(len(opened), "shuffled", 0)[0][LATE])
    path = data / opened.ids[index]
    path.write_bytes(path.read_bytes()[:200])
    return opened.ids[index], index


@pytest.mark.situation(
    "a file that cannot be decoded, met in extraction",
    "the file, and both ways on: mend it, or `--on-bad-sample strike`; what removing it costs",
    exit_code=2,
    left="whole blocks; the same command goes on",
)
def test_a_file_that_cannot_be_decoded(
    gallery: Gallery, door: Door, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CHECK_ROWS", 64)  # of a larger data set they would be the first rows
    sample_id, index = harm(data)
    message = door.refused(*extraction(gallery, "late.kd", data))
    assert all(word in message for word in (sample_id, f"sample {index}", "--on-bad-sample strike", "another one"))


@pytest.mark.situation(
    "the same, with `--on-bad-sample strike`",
    "a note that names the samples without an answer; training leaves them out",
    exit_code=0,
    left="a whole store",
)
def test_a_store_begun_without_the_flag_is_finished_with_it(
    gallery: Gallery, door: Door, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Store.open(gallery.store)
    sample_id, index = harm(data)
    with monkeypatch.context() as patches:
        patches.setattr(checks, "CHECK_ROWS", 64)
        door.refused(*extraction(gallery, "late.kd", data))
    record = door.done(*extraction(gallery, "late.kd", data, "--on-bad-sample", "strike"))
    assert (record["struck"], record["blocks_done_before"]) == (1, 2)
    assert sample_id in " ".join(record["notes"])
    store = Store.open(door.folder / "late.kd")
    for view in store.every_view:
        assert store.order[store.struck(view)].tolist() == [index]
        kept = np.setdiff1d(np.arange(ROWS), store.struck(view))
        for name, values in store.load(view, kept).arrays.items():
            np.testing.assert_array_equal(values, whole.load(view, kept).arrays[name], name)  # nobody else notices


@pytest.mark.situation(
    "training on a store with struck samples",
    "a run; the struck rows take no part",
    exit_code=0,
    left="a run with its weights",
)
@pytest.mark.parametrize("first", [False, True], ids=["late", "the first sample and the first position"])
def test_training_leaves_struck_samples_out(gallery: Gallery, door: Door, data: Path, first: bool) -> None:
    opened = open_data(f"folder:{data}", {})
    ids = [opened.ids[0], opened.ids[int(make_order(ROWS, "shuffled", 0)[0][0])]] if first else [harm(data)[0]]
    for sample_id in ids:
        (data / sample_id).write_bytes(b"no picture")
    record = door.done(*extraction(gallery, "s.kd", data, "--on-bad-sample", "strike", "--workers", 2))
    assert record["struck"] == len(set(ids))
    assert door.run("verify", "s.kd", "--data", f"folder:{data}").exit_code == 0
    assert door.done("inspect", "s.kd")["struck"] == len(set(ids))
    door.done(*training(["s.kd"], data, "--workers", 1))


@pytest.mark.situation(
    "`kdcache doctor --data` where samples cannot be read",
    "index, id and reason of each",
    exit_code=1,
    left="nothing new",
)
@pytest.mark.parametrize("workers", [0, 2])
def test_doctor_lists_what_cannot_be_read(door: Door, data: Path, workers: int) -> None:
    sample_id, index = harm(data)
    outcome = door.run("doctor", "--data", f"folder:{data}", "--workers", workers, "--json")
    assert [(bad["index"], bad["id"]) for bad in outcome.record["bad"]] == [(index, sample_id)]
    assert f"{sample_id} cannot be decoded" in outcome.record["bad"][0]["reason"]
    assert outcome.record["rows"] == ROWS
    assert set(outcome.record["classes"].values()) == {ROWS // 4}
    assert outcome.record["sizes"] == {"24x24": ROWS - 1}


def test_doctor_reads_own_data_sets_without_labels(door: Door) -> None:
    door.write(
        "own.py",
        "class Own:\n    def __len__(self): return 6\n    def __getitem__(self, i):\n"
        "        import numpy\n        if i == 4: raise ValueError('torn')\n"
        "        return numpy.zeros((4, 4, 3), 'u1'), 0\n",
    )
    outcome = door.run("doctor", "--data", "own.py:Own", "--workers", 0, "--json")
    assert outcome.exit_code == 1
    assert [bad["index"] for bad in outcome.record["bad"]] == [4]


def add_pictures(data: Path) -> list[str]:
    """Add pictures to two of the classes, one of them a copy of a picture that is there; their ids."""
    shutil.copy(data / "cat/000.png", data / "cat/000 again.png")
    with Image.open(data / "cat/004.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(data / "cat/new.png")
        image.transpose(Image.Transpose.ROTATE_180).save(data / "tissue/010b.png")
    return ["cat/000 again.png", "cat/new.png", "tissue/010b.png"]


@pytest.mark.situation(
    "extraction or training after pictures were added",
    "their names, and the commands that give them a store of their own",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize("command", ["extract", "train"])
def test_a_data_set_that_grew(gallery: Gallery, door: Door, data: Path, command: str) -> None:
    store = shutil.copytree(gallery.store, door.folder / "old.kd").name
    added = add_pictures(data)
    words = {"extract": extraction(gallery, store, data), "train": training([store], data)}[command]
    message = door.refused(*words)
    assert f"dataset.rows: the store has {ROWS}, this run has {ROWS + 3}" in message
    assert all(name in message for name in ["3 samples are new", *added, "--write-new", "rows=new.txt"])


@pytest.mark.situation(
    "training on two stores, of the old pictures and of the new ones",
    "a run on both: each row meets its own label",
    exit_code=0,
    left="a run with its weights",
)
def test_old_and_new_stores_are_trained_on_together(gallery: Gallery, door: Door, data: Path) -> None:
    shutil.copytree(gallery.store, door.folder / "old.kd")
    added = add_pictures(data)
    written = door.done("doctor", "--data", f"folder:{data}", "--store", "old.kd", "--write-new", "new.txt")
    assert (written["new_samples"], written["samples_of_stores"]) == (3, ROWS)
    assert (door.folder / "new.txt").read_text().splitlines() == added
    record = door.done(*extraction(gallery, "new.kd", data, "--data-set", "rows=new.txt"))
    assert record["rows"] == 6
    assert door.run("verify", "new.kd", "--data", f"folder:{data}", "--data-set", "rows=new.txt").exit_code == 0
    door.done(*training(["old.kd", "new.kd"], data, "--val-set", "limit=40"))


@pytest.mark.situation(
    "training on stores of parts of which one picture was replaced",
    "which store does not fit, and how many of its samples are gone",
    exit_code=2,
    left="nothing new",
)
def test_a_part_that_changed(gallery: Gallery, door: Door, data: Path) -> None:
    shutil.copytree(gallery.store, door.folder / "old.kd")
    add_pictures(data)
    door.done("doctor", "--data", f"folder:{data}", "--store", "old.kd", "--write-new", "new.txt")
    door.done(*extraction(gallery, "new.kd", data, "--data-set", "rows=new.txt"))
    shutil.copy(data / "coffee/000.png", data / "coffee/002.png")
    message = door.refused(*training(["old.kd", "new.kd"], data))
    assert "old.kd is not of a part" in message
    assert "coffee/002.png" in message


def moved(data: Path) -> None:
    (data / "cat/000.png").rename(data / "cat/zzz.png")


def removed(data: Path) -> None:
    (data / "eye/003.jpg").unlink()


def changed(data: Path) -> None:
    for name in ("eye/000.png", "eye/002.png", "eye/004.png"):  # one at least is a probe of the identity
        shutil.copy(data / "eye/006.png", data / name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (moved, ["1 samples were renamed or moved", "cat/zzz.png"]),
        (removed, ["1 samples are gone: 1 of eye"]),
        (changed, ["3 samples are others than they were: eye/000.png, eye/002.png, eye/004.png"]),
    ],
)
def test_what_changed_is_named(gallery: Gallery, door: Door, data: Path, change: Any, words: list[str]) -> None:
    store = shutil.copytree(gallery.store, door.folder / "old.kd").name
    change(data)
    message = door.refused(*extraction(gallery, store, data))
    assert all(word in message for word in words), message


@pytest.mark.situation(
    "a picture beyond Pillow's limit of pixels",
    "its file and size, and `--data-set max_pixels=N`",
    exit_code=1,
    left="nothing new",
)
@pytest.mark.parametrize("decoder", ["pillow", "torchvision"])
def test_a_large_picture(door: Door, monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    (door.folder / "data/a").mkdir(parents=True)
    Image.new("RGB", (70, 60)).save(door.folder / "data/a/large.png")
    words = ["doctor", "--data", "folder:data", "--data-set", f"decoder={decoder}", "--workers", 0, "--json"]
    assert door.run(*words, "--data-set", "max_pixels=4200").exit_code == 0
    assert Image.MAX_IMAGE_PIXELS == 1000  # for its own decodes only
    reason = door.run(*words, "--data-set", "max_pixels=4199").record["bad"][0]["reason"]
    assert "70 x 60 = 4200 pixels, allowed are 4199" in reason
    outcome = door.run(*words)
    assert "max_pixels=4200" in outcome.record["bad"][0]["reason"]


@pytest.mark.situation(
    "`--data-set rows=FILE` with ids that the data set has not, or twice",
    "the ids, and the nearest one",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat/000.png\ncat/00.png\n", ["1 ids that the data set has not: cat/00.png", "did you mean cat/"]),
        ("cat/000.png\r\ncat/000.png\r\n", ["twice: cat/000.png"]),
        ("\n\n", ["lists no sample"]),
        (None, ["rows.txt cannot be read"]),
    ],
    ids=["unknown", "twice", "empty", "missing"],
)
def test_rows_that_do_not_fit(door: Door, data: Path, text: str | None, words: list[str]) -> None:
    if text is not None:
        door.write("rows.txt", text)
    message = door.refused("doctor", "--data", f"folder:{data}", "--data-set", "rows=rows.txt", "--workers", 0)
    assert all(word in message for word in words), message
