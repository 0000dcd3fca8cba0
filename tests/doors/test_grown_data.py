"""Data that grew: the new pictures get a store of their own, and a training on both stores is one training."""

import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageOps

from kdcache.errors import InvalidInputError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.prepare import open_inputs
from kdcache.views.data_parts import write_ids
from tests.kits import pictures
from tests.kits.doors import Door
from tests.kits.pictures import NET, PLACES, Gallery, write_pictures
from tests.kits.stages import NETWORK, metrics, weights_of

gallery = pictures.gallery

OLD, NEW = 480, 10
CROPS = ("--transform", "imagenet", "--transform-set", "size=16", "--transform-set", "scale=[0.5, 1.0]")
STUDENT = ("--student", NETWORK, "--student-set", "width=4", "--student-set", "channels=3")
BOTH = ("--store", "old.kd", "--store", "new.kd")
KILLED = f'''"""A convnet whose process is killed at forward number KILL_AT."""
import os, signal
from {NETWORK.partition(":")[0]} import convnet
calls = 0
def count(module, inputs):
    global calls
    calls += module.training
    if calls == int(os.environ.get("KILL_AT", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)
def net(num_classes=4):
    network = convnet(width=4, channels=3, num_classes=num_classes)
    network.register_forward_pre_hook(count)
    return network
'''


def add_pictures(folder: Path) -> list[str]:
    """Ten new pictures in the four classes; their ids, in the order of the data set."""
    names = []
    for number in range(NEW):
        name = f"{list(PLACES)[number % len(PLACES)]}/{number:03d}"
        with Image.open(folder / f"{name}.{('png', 'jpg')[number % 2]}") as opened:
            ImageOps.mirror(opened).save(folder / f"{name} mirrored.png")
        names.append(f"{name} mirrored.png")
    return sorted(names)


def extraction(gallery: Gallery, store: str, *more: object) -> list[object]:
    """The words of an extraction of two views by the gallery's teacher."""
    teacher = ["--teacher", NETWORK, "--weights", gallery.weights, *(f"--teacher-set={k}={v}" for k, v in NET.items())]
    return [
        "extract",
        store,
        *teacher,
        "--data",
        "folder:photo",
        "--views",
        2,
        "--top-k",
        2,
        "--workers",
        0,
        *CROPS,
        *more,
    ]


def training(run: str, *more: object) -> list[object]:
    """The words of a training on both stores."""
    return ["train", run, "--data", "folder:photo", *BOTH, *STUDENT, "--epochs", 2, "--workers", 0, *more]


@cache
def _grown(gallery: Gallery, folder: Path) -> Path:
    """Pictures that grew, and a store of the old ones and one of the new."""
    write_pictures(folder / "photo", each=OLD // 4)
    crops = {"data": f"folder:{folder / 'photo'}"}
    extract(gallery.asked(folder / "old.kd", **crops))
    write_ids(folder / "new.txt", add_pictures(folder / "photo"))
    extract(gallery.asked(folder / "new.kd", **crops, data_set={"rows": str(folder / "new.txt")}))
    return folder


@pytest.fixture
def grown(gallery: Gallery, door: Door, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the door, with grown pictures and both stores."""
    shutil.copytree(_grown(gallery, tmp_path_factory.getbasetemp() / "grown"), door.folder, dirs_exist_ok=True)
    return door.folder


@pytest.mark.situation(
    "480 pictures with a store, 10 more: `doctor --write-new`, a store of the new ones, `train` on both",
    "490 samples, each once an epoch",
    exit_code=0,
    left="a run with its weights",
)
def test_from_old_pictures_to_a_student_of_all(gallery: Gallery, door: Door) -> None:
    photo = write_pictures(door.folder / "photo", each=OLD // 4)
    assert door.done(*extraction(gallery, "old.kd"))["rows"] == 2 * OLD
    names = add_pictures(photo)
    message = door.refused(*training("run")[:4], "--store", "old.kd", *STUDENT)
    command = "kdcache doctor --data folder:photo --store old.kd --write-new new.txt"
    assert command in message
    record = door.done(*command.split()[1:])
    assert (record["new_samples"], record["samples_of_stores"], record["rows"]) == (NEW, OLD, NEW)
    assert (door.folder / "new.txt").read_text().splitlines() == names
    assert "--data-set rows=new.txt" in message
    assert door.done(*extraction(gallery, "new.kd", "--data-set", "rows=new.txt"))["rows"] == 2 * NEW
    assert (door.done("inspect", "old.kd")["rows"], door.done("inspect", "new.kd")["rows"]) == (OLD, NEW)
    record = door.done(*training("run", "--batch-size", 50))
    assert (record["epochs"], record["steps"]) == (2, 2 * 10)
    assert [line["epoch"] for line in metrics(door.folder / "run")] == [0, 1]


@pytest.mark.situation(
    "the same training, killed and started again",
    "a run, byte for byte that of one which was not killed",
    exit_code=0,
    left="a run with its weights",
)
@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_training_ends_as_one_that_was_not(door: Door, grown: Path, workers: int) -> None:
    door.write("nets.py", KILLED)
    more = ("--student", "nets.py:net", "--checkpoint-steps", 1, "--workers", workers)
    words = [word for word in training("run") if word not in STUDENT or word == "--workers"]
    killed = door.run_apart(*words, *more, KILL_AT="6")
    assert killed.exit_code == -9, killed
    assert metrics(grown / "run")[0]["epoch"] == 0  # four steps an epoch: it is killed in the second
    assert door.done(*words, *more)["steps"] == 8
    door.done(*words[:1], "whole", *words[2:], *more)
    assert weights_of(grown / "run") == weights_of(grown / "whole")
    assert metrics(grown / "run") == metrics(grown / "whole")


def test_a_sweep_trains_them_side_by_side_as_one_by_one(door: Door, grown: Path) -> None:
    door.write(
        "sweep.toml",
        '[base]\ndata = "folder:photo"\nstore = ["old.kd", "new.kd"]\nepochs = 1\nworkers = 0\n'
        f'student = "{NETWORK}"\nstudent_set = {{width = 4, channels = 3}}\n[grid]\nlr = [0.1, 0.05]\n',
    )
    for folder, more in (("apart", ()), ("together", ("--together", 2))):
        record = door.done("sweep", "sweep.toml", "--folder", folder, *more)
        assert (record["done"], record["failed"]) == (2, 0)
        rows = {row["bytes_a_row"] for row in record["rows"]}
        assert len(rows) == 1
        assert 0 < rows.pop() < 35  # of one row, and not of one of each store
    runs = sorted(path.name for path in (grown / "apart").iterdir() if (path / "weights").is_dir())
    assert len(runs) == 2
    for name in runs:
        assert weights_of(grown / "apart" / name) == weights_of(grown / "together" / name)


@pytest.mark.situation(
    "stores of parts that no training can join: `torchrun`, `--tail class-mean`, a sample in two of them or in none",
    "the reason, the samples, and what to do",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--tail", "class-mean"), ["class-mean", "--tail uniform"]),
        (("--store", "new.kd"), ["new.kd and new.kd are of the same samples"]),
        (("--store", "two.kd"), ["2 of the 2 samples of two.kd are those of another store too"]),
        (("--data-set", "limit=489"), ["old.kd is not of a part", "1 of tissue"]),
        (("--temperature", "calibrated"), ["held-out store"]),
        (("--views", "0:3"), ["views 0:3 were asked for"]),
    ],
    ids=["class means", "a store twice", "a sample in two", "fewer samples", "calibrated", "views"],
)
def test_what_no_training_can_join(
    gallery: Gallery, door: Door, grown: Path, more: tuple[str, ...], words: list[str]
) -> None:
    if "two.kd" in more:
        write_ids("two.txt", (door.folder / "new.txt").read_text().splitlines()[:2])
        extract(gallery.asked("two.kd", data="folder:photo", data_set={"rows": "two.txt"}, min_accuracy=0))
    message = door.refused(*training("run"), *more)
    assert all(word in message for word in words), message


def test_torchrun_is_refused(door: Door, grown: Path) -> None:
    """As the processes of torchrun meet it, each before a run's folder is claimed."""
    ranks: Any = SimpleNamespace(world_size=2, first=True)
    settings = TrainSettings.model_validate(
        {"run": "run", "student": NETWORK, "data": "folder:photo", "store": ("old.kd", "new.kd"), "device": "cpu"}
    )
    with pytest.raises(InvalidInputError, match="2 processes were started, and stores of parts"):
        open_inputs(settings, ranks)


def test_a_sample_that_no_store_has(door: Door, grown: Path) -> None:
    with Image.open(grown / "photo/cat/002.png") as opened:
        opened.transpose(Image.Transpose.ROTATE_90).save(grown / "photo/cat/later.png")
    message = door.refused(*training("run"))
    assert all(word in message for word in ("1 of 491 samples are in none of the 2 stores", "cat/later.png"))
    command = "doctor --data folder:photo --store old.kd --store new.kd --write-new new.txt"
    assert f"kdcache {command}" in message
    assert "is there already" in door.refused(*command.split())
    door.done(*command.replace("new.txt", "later.txt").split())
    assert (grown / "later.txt").read_text() == "cat/later.png\n"
