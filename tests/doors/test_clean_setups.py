"""Clean set-ups go through from extract to train, by the command line: no refusal, and no note that is not true.

A set-up is one line of CLEAN. Its teacher is good, so that all checks run on it, or is vouched for by `--min-accuracy`.
"""

import math
from pathlib import Path

import pytest

from kdcache.store.store import Store
from tests.kits import pictures
from tests.kits.clean import CONVNET, CROPS, FOLDER, GOOD, NETWORK, Places, Setup, make_places
from tests.kits.doors import Door
from tests.kits.pictures import Gallery

pytestmark = pytest.mark.slow

gallery = pictures.gallery

OWN = "--data {code}:Pictures --data-set root={pictures}"
TENSORS = f"{FOLDER} --data-set decoder=torchvision"
CENTER = "--transform center --transform-set size=16"
VAL = "--val-set split=test --val-transform center --val-transform-set size=16"
GREY = f"{NETWORK} --student-set width=4"
DIGITS = f"--teacher {NETWORK} --teacher-set width=8 --weights {{digits_weights}} --top-k 3"
SHIFTS = "--transform light --transform-set padding=1 --transform-set flip=0.0 --views 2"
FAKE = "--data torchvision:FakeData --data-set size=64 --data-set image_size=[3,24,24] --data-set num_classes=4"
ANY = "--min-accuracy 0 --top-k 2"
UNKNOWN = f"{OWN} --data-set labels=none"
NAMED = ("--transform",)  # students must name the user's own transform again
UNLABELLED = ("no row is labelled",)
OF_TIMM = ("by timm's pretrained_cfg", "pretrained_cfg names")  # mean and std that it is fed with, and its own size
HALF = ("24 of 48 rows have no label",)
RENAMED = ("taken by number",)  # the teacher's weights file names its classes, none of them as the data does
WIDE = ("--quantisation high",)


def digits(data: str, **words: str | int) -> Setup:
    return Setup(data, DIGITS, **{"views": SHIFTS, "student": GREY, **words})  # type: ignore[arg-type]


def few(rows: int) -> Setup:
    student = f"{GREY} --student-set num_classes=10"
    teacher = f"{DIGITS} --teacher-set num_classes=10"
    return Setup(f"--data {{code}}:Digits --data-set rows={rows}", teacher, "", student=student, rows=rows)


def own(words: str, views: str = CROPS, **more: object) -> Setup:
    return Setup(f"{OWN} {words}", views=views, **more)  # type: ignore[arg-type]


def made(function: str, rows: int) -> Setup:
    return Setup(f"--data {{code}}:{function} --data-set root={{pictures}}", rows=rows)


def transformed(name: str, data: str = FOLDER, words: str = "", **more: str) -> Setup:
    return Setup(data, views=f"--transform {{code}}:{name} --views 2 {words}", notes=NAMED, **more)


def changed(change: str, words: str = "", **more: object) -> Setup:
    change_words = f"--teacher {{code}}:changed --teacher-set change={change}"
    return Setup(teacher=f"{change_words} --weights {{weights}} --top-k 2 {words}", **more)  # type: ignore[arg-type]


CLEAN: dict[str, Setup] = {
    # sources
    "digits": digits("--data digits", val="--val-set split=test"),
    "digits, the test split": digits("--data digits --data-set split=test", val="--val-set split=train"),
    "digits, in their given order": digits("--data digits --data-set split=test", views=f"{SHIFTS} --order given"),
    "folder": Setup(val=VAL, rows=48),
    "folder by torchvision": Setup(TENSORS, val=VAL, rows=48),
    "folder of all kinds of file": Setup("--data folder:{kinds}", rows=48),
    "folder of all kinds by torchvision": Setup("--data folder:{kinds} --data-set decoder=torchvision", rows=48),
    "folder of unusual names": Setup("--data folder:{names}", notes=RENAMED, rows=48),
    "ImageFolder of torchvision": Setup("--data torchvision:ImageFolder --data-set root={pictures}", rows=48),
    "FakeData of torchvision": Setup(FAKE, f"{CONVNET} {ANY}", CROPS, rows=64),
    # a user's data sets
    "PIL images": own(""),
    "u8 tensors": own("--data-set form=u8"),
    "arrays": own("--data-set form=array"),
    "arrays as they are": own("--data-set form=array", ""),
    "normalised floats": own("--data-set form=floats", ""),
    "normalised floats, cropped": own("--data-set form=floats"),
    "grey PIL images": digits("--data {code}:Digits", rows=120),
    "grey arrays": digits("--data {code}:Digits --data-set array=true", rows=120),
    "ids": own("--data-set ids=true"),
    "contents by bytes": made("Encoded", 48),
    "labels as a tensor": own("--data-set labels=tensor"),
    "labels as an array named labels": own("--data-set labels=array --data-set attribute=labels"),
    "labels as u8": own("--data-set labels=u8"),
    "labels as i16": own("--data-set labels=i16"),
    "labels as whole floats": own("--data-set labels=whole-floats"),
    "labels as booleans": Setup(
        "--data {code}:Pictures --data-set root={two} --data-set labels=booleans",
        f"{GOOD} --teacher-set num_classes=4",
        notes=("by name",),
        rows=24,
    ),
    "rows of three": made("Longer", 48),
    "labels in rows alone, as tensors": own("--data-set labels=scalars --data-set attribute= --data-set names=false"),
    "no class names": own("--data-set names=false"),
    "half labelled by None": own("--data-set labels=half", notes=HALF, train_notes=HALF),
    "half labelled by -1": own("--data-set labels=half-minus", notes=HALF, train_notes=HALF),
    "unlabelled": Setup(UNKNOWN, notes=UNLABELLED),
    "unlabelled, no names": Setup(
        f"{UNKNOWN} --data-set names=false", f"{GOOD} --teacher-set num_classes=4", notes=UNLABELLED
    ),
    "Subset": made("subset", 24),
    "random split": made("half", 24),
    "ConcatDataset": Setup("--data {code}:twice --data-set first={pictures} --data-set second={data}/test", rows=96),
    "list of pairs": made("pairs", 48),
    "TensorDataset": made("tensors", 48),
    **{f"{rows} samples": few(rows) for rows in (1, 2, 3, 5, 65)},
    # transforms
    "none": Setup(views=""),
    "center": Setup(views=CENTER, val=VAL),
    "light": Setup(views="--transform light --transform-set padding=2 --views 2"),
    "randaugment": Setup(views="--transform randaugment --transform-set padding=2 --views 2"),
    "randaugment of crops": Setup(views="--transform randaugment --transform-set size=16 --views 2"),
    "trivialaugment": Setup(views="--transform trivialaugment --transform-set size=16 --views 2"),
    "own v2": transformed("jitter"),
    "own v2 of tensors": transformed("jitter", TENSORS),
    "own v2 that normalises": transformed("floats"),
    "own v1 that normalises": transformed("older"),
    "own by timm": transformed("of_timm"),
    "own by numpy": transformed("of_numpy"),
    "own by random": transformed("of_random"),
    "own u8 tensors": transformed("to_u8"),
    "own with a setting, in workers": transformed(
        "jitter", words="--transform-set size=20 --workers 2", train="--workers 2"
    ),
    # mixing, encodings, passes
    "mixup": Setup(views=f"{CROPS} --mix mixup --mix-alpha 0.4"),
    "cutmix": Setup(views=f"{CROPS} --mix cutmix"),
    "mixup, half labelled": own("--data-set labels=half", f"{CROPS} --mix mixup", notes=HALF, train_notes=HALF),
    "fine steps": Setup(views=f"{CROPS} --quantisation high --packing plain"),
    "full": Setup(views=f"{CROPS} --encoding full", train="--temperature 0.5"),
    "sampled": Setup(views=f"{CROPS} --encoding sampled --draws 5", train="--temperature 1"),
    "features and head": Setup(views=f"{CROPS} --keep features,head"),
    "views added": Setup(again="--views 2:3", train="--epochs 3"),
    "extracted again": Setup(again="--views 2"),
    "workers": Setup(views=f"{CROPS} --workers 2", train="--workers 2", val=VAL),
    "mean and std": Setup(
        views=f"{CROPS} --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225", train="--mean 0,0,0 --std 1,1,1"
    ),
    # teachers
    "torch file of a checkpoint": Setup(teacher=f"{CONVNET} --weights {{pth}} --top-k 2"),
    "bfloat16": Setup(teacher=f"{GOOD} --precision bfloat16"),
    "log-probabilities": changed("log-probabilities"),
    "logits x 100, coarse": changed("sharp", notes=WIDE),
    "logits x 100, fine": changed("sharp", "--quantisation high"),
    "flat logits": changed("flat"),
    "shifted logits": changed("shifted"),
    "logits of f16": changed("f16"),
    "logits of f64": changed("f64"),
    "masked classes": changed("masked", "--mask-classes 4,5", again="--views 2"),
    "more classes than the data, mapped": changed("more", "--class-map {class_map}", again="--views 2"),
    "labels that mean something else": Setup(f"{FOLDER} --labels none", notes=UNLABELLED),
    "two of the teacher's classes, by name": Setup("--data folder:{two}", notes=("by name",), rows=24),
    "two classes": changed("two", "--encoding full", data="--data folder:{two}", rows=24),
    "no linear head": Setup(teacher=f"--teacher {{code}}:in_parts {ANY}", student="{code}:in_parts"),
    "torchvision, labelled": Setup(FOLDER, f"--teacher torchvision:resnet18 {ANY}", CENTER),
    "torchvision, unlabelled": Setup(UNKNOWN, "--teacher torchvision:resnet18 --top-k 2", CENTER, notes=UNLABELLED),
    "timm, labelled": Setup(FOLDER, f"--teacher timm:test_resnet {ANY}", CROPS, notes=OF_TIMM),
    "timm, unlabelled": Setup(
        UNKNOWN,
        "--teacher timm:test_efficientnet --top-k 2",
        CROPS,
        notes=(*UNLABELLED, "bicubic, by timm's", *OF_TIMM[1:]),
    ),
    "timm's vision transformer": Setup(
        teacher=f"--teacher timm:test_vit --teacher-set img_size=32 {ANY}",
        views="--transform center --transform-set size=32",
        notes=("bicubic, cropped from 33, by timm's pretrained_cfg", "by timm's pretrained_cfg"),
    ),
}


@pytest.fixture(scope="session")
def places(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Places:
    return make_places(tmp_path_factory.mktemp("clean"), gallery)


@pytest.mark.parametrize("setup", [pytest.param(setup, id=name) for name, setup in CLEAN.items()])
def test_a_clean_set_up_is_no_alarm(door: Door, places: Places, setup: Setup) -> None:
    require_clean(door, places, setup)


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist_is_no_alarm(door: Door, places: Places, fashion_mnist: str, split: str) -> None:
    data = f"--data {fashion_mnist} --data-set split={split} --data-set limit=300"
    val = f"--val-set split={'test' if split == 'train' else 'train'} --val-set limit=300"
    require_clean(door, places, Setup(data, f"--teacher {NETWORK} {ANY}", SHIFTS, student=GREY, val=val, rows=300))


def require_clean(door: Door, places: Places, setup: Setup) -> None:
    """Extract, and train on every view: both end well, with the notes that are true and no others; the store is whole,
    and every row is drawn again as it was."""
    asked = places.words(f"{setup.data} --workers 0 {setup.teacher} {setup.views}")
    summaries = [door.done("extract", "a.kd", *asked)]
    if setup.again:
        summaries.append(door.done("extract", "a.kd", *asked, *places.words(setup.again)))
    for summary in summaries:
        assert_notes(summary["notes"], setup.notes)
        assert (summary["accuracy_clean"] is None) == (setup.notes[:1] == UNLABELLED)
        assert "--min-accuracy" in asked or setup.notes[:1] == UNLABELLED or summary["accuracy_clean"] > 0.5
    store = Store.open("a.kd")
    assert store.content_id == summaries[-1]["content_id"]
    assert setup.rows in (0, store.identity.dataset.rows)
    assert all(len(segment.commits()) == segment.layout.blocks for segment in store.segments)
    epochs = len(store.every_view)
    taught = places.words(f"{setup.data} --workers 0 --student {setup.student} {setup.own_transform} {setup.val}")
    fast = ("--epochs", epochs, "--batch-size", 64, "--lr", 0.01)
    record = door.done("train", "run", "--store", "a.kd", *fast, *taught, *places.words(setup.train))
    assert_notes(record["notes"], setup.train_notes)
    assert math.isfinite(record["loss"])
    assert record["epochs"] == epochs
    assert record["drift_levels"] is None
    assert ("accuracy" in record["validation"]) == bool(setup.val)
    assert Path("run/weights/last.safetensors").is_file()


def assert_notes(notes: list[str], expected: tuple[str, ...]) -> None:
    """Each note is an expected one, and each expected one is there."""
    assert len(notes) == len(expected), notes
    assert all(part in note for part, note in zip(expected, notes, strict=True)), notes
