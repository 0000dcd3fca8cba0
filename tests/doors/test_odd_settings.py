"""Settings that a hand slipped in: places inside of others, levels of 0..255, settings without effect, commas."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdcache.store.store import Store
from tests.kits.doors import Door
from tests.kits.pictures import write_pictures

NET = ("--student", "kdcache.networks:convnet", "--student-set", "width=2")
DIGITS = ("--data", "digits", "--data-set", "limit=200", "--workers", 0)
SHORT = ("--epochs", 1, "--batch-size", 64, "--lr", 0.05)
TEACHER = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "width=2", "--min-accuracy", 0, "--top-k", 3)


@pytest.mark.situation(
    "a run or a store that would lie in a store, or among the pictures of a folder",
    "both paths, and a place outside",
    exit_code=2,
    left="nothing new",
)
def test_a_place_among_the_pictures(door: Door) -> None:
    write_pictures(door.folder / "data/train", each=3)
    write_pictures(door.folder / "data/val", each=3, seed=1)
    folder = ("--data", "folder:data", "--data-set", "split=train", "--workers", 0)
    channels = ("--student-set", "channels=3")
    for place in ("data/train/run", "data/train/eye/run", "data/val/run", "./data/../data/train/run"):
        message = door.refused("train", place, *NET, *channels, *folder, "--val-set", "split=val", *SHORT)
        assert place in message
        assert f"would lie in data/{'val' if 'val' in place else 'train'}" in message
    for place in ("data/train/st.kd", "data/train"):
        message = door.refused("extract", place, *TEACHER, "--teacher-set", "channels=3", *folder)
        assert "would lie in data/train" in message
    words = (*NET, *channels, *folder, "--val-set", "split=val", *SHORT)
    assert door.done("train", "data/run", *words)["epochs"] == 1
    assert "would lie in" in door.refused("train", "data/val/run", *words)


def test_a_run_in_a_store(door: Door) -> None:
    door.done("extract", "s.kd", *TEACHER, *DIGITS)
    message = door.refused("train", "s.kd/runs/a", *NET, *DIGITS, *SHORT)
    assert "s.kd/runs/a would lie in" in message
    door.write("sweep.toml", "[base]\nstudent = 'kdcache.networks:convnet'\ndata = 'digits'\n[grid]\nlr = [0.1]\n")
    assert "would lie in" in door.refused("sweep", "sweep.toml", "--folder", "s.kd/sweep")
    assert door.contents() == door.files


@pytest.mark.situation(
    "--mean and --std of values from 0 to 255, for 8-bit views",
    "both, and the values for 0..1 to give instead",
    exit_code=2,
    left="nothing new",
)
def test_a_mean_of_0_to_255(door: Door) -> None:
    words = ("train", "run", *NET, *DIGITS, *SHORT)
    message = door.refused(*words, "--mean", 127.5, "--std", 51)
    assert "--mean 0.5 --std 0.2" in message
    assert "--mean 0.5 --std 0.2" in door.refused("extract", "s.kd", *TEACHER, *DIGITS, "--mean", 127.5, "--std", 51)
    door.done("train", "right", *words[2:], "--mean", 0.5, "--std", 0.2)
    door.refused(*words, "--mean", 127.5, "--std", 51)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (("--schedule", "step"), "--schedule step without --step-epochs"),
        (("--schedule", "step", "--step-epochs", 7), "with --step-epochs 7 never lowers"),
        (("--step-epochs", 1), "--step-epochs has no effect under --schedule cosine"),
        (("--warmup-epochs", 100), "to 0.02 of --lr"),
        (
            ("--val-transform", "center", "--val-transform-set", "size=8"),
            "--val-transform and --val-transform-set have no effect",
        ),
        (("--optimizer", "adamw", "--momentum", 0.5), "--momentum is of SGD"),
        (("--tail", "none"), "--tail has no effect without a store: give --store"),
        (("--top-k", 2, "--tail", "ghost"), "--tail and --top-k have no effect without a store"),
        (("--top-k", 2, "--calibration-store", "c.kd"), "--top-k and --calibration-store have no effect without a"),
        (("--accept-drift",), "--accept-drift has no effect without a store"),
        (("--combine", "logits"), "--combine has no effect on fewer than two stores: repeat --store"),
        (
            ("--objective", "label-smoothing", "--combine", "logits", "--ensemble-weights", "2,1"),
            "--combine and --ensemble-weights have no effect on fewer than two stores",
        ),
    ],
)
def test_a_setting_without_effect_is_said(door: Door, words: tuple[object, ...], note: str) -> None:
    (given,) = door.done("train", "run", *NET, *DIGITS, *SHORT, "--epochs", 2, *words)["notes"]
    assert note in given


def test_settings_with_effect_are_not_spoken_of(door: Door) -> None:
    words = ("--schedule", "step", "--step-epochs", 1, "--warmup-epochs", 0.5, "--momentum", 0.5, "--epochs", 2)
    assert door.done("train", "run", *NET, *DIGITS, *SHORT, *words)["notes"] == []


def test_settings_of_stores_with_effect_are_not_spoken_of(door: Door) -> None:
    for name in ("a.kd", "b.kd"):
        door.done("extract", name, *TEACHER, *DIGITS)
    words = (*NET, *DIGITS, *SHORT, "--store", "a.kd", "--top-k", 2, "--tail", "none")
    assert door.done("train", "one", *words)["notes"] == []
    assert door.done("train", "two", *words, "--store", "b.kd", "--combine", "losses")["notes"] == []
    assert door.done("train", "three", *words, "--calibration-store", "b.kd", "--combine", "losses")["notes"] == [
        "--calibration-store has no effect without --temperature calibrated",
        "--combine has no effect on fewer than two stores: repeat --store",
    ]


def test_a_ramp_that_never_changes_is_said(door: Door) -> None:
    door.done("extract", "s.kd", *TEACHER, *DIGITS)
    words = (*NET, *DIGITS, *SHORT, "--epochs", 2, "--store", "s.kd", "--over-epochs")
    (note,) = door.done("train", "a", *words, "w_kd=5:0.5")["notes"]
    assert "w_kd=5:0.5 is 0.5 throughout the 2 epochs" in note
    assert door.done("train", "b", *words, "w_kd=0:0.5,5:0.1")["notes"] == []


def test_a_store_with_a_comma_in_its_name(door: Door) -> None:
    for name in ("a,b.kd", "c.kd"):
        door.done("extract", name, *TEACHER, *DIGITS)
    content_id = Store.open("a,b.kd").content_id
    words = ("train", "run", *NET, *DIGITS, *SHORT)
    stores = [["a,b.kd"], [f"a,b.kd@{content_id}"], ["a,b.kd", "c.kd"]]
    for number, paths in enumerate(stores):
        flags = [word for path in paths for word in ("--store", path)]
        assert door.done("train", f"run-{number}", *words[2:], *flags)["epochs"] == 1
    for text in ('["a,b.kd", "c.kd"]', '"a,b.kd"'):
        door.write("a.toml", f"store = {text}\n")
        assert door.done("train", f"run {len(text)}", *words[2:], "--config", "a.toml")["epochs"] == 1
    message = door.refused(*words, "--store", "c.kd,a,b.kd")
    assert "c.kd,a,b.kd does not exist" in message
    assert "commas split" not in message  # there is no a


@pytest.mark.situation(
    "`--store a.kd,b.kd`: paths that commas join, in `train` or `compare`",
    "that the flag repeats: `--store a.kd --store b.kd`",
    exit_code=2,
    left="nothing new",
)
def test_paths_that_commas_join(door: Door) -> None:
    for name in ("a.kd", "b.kd"):
        door.done("extract", name, *TEACHER, *DIGITS)
    words = ("train", "run", *NET, *DIGITS, *SHORT)
    for flag in ("--store", "--val-store"):
        message = door.refused(*words, flag, "a.kd,b.kd")
        assert f"a.kd,b.kd does not exist, and commas split no paths; the flag repeats: write {flag} a.kd" in message
        assert f"{flag} a.kd {flag} b.kd" in message
    assert "give each by itself: a.kd b.kd" in door.refused("compare", "a.kd,b.kd", "--store", "a.kd")
    assert "--store a.kd --store b.kd" in door.refused("compare", "a.kd", "--store", "a.kd,b.kd")


@pytest.mark.situation(
    "weights that hold NaN, as those of a training that diverged",
    "the tensor, how many of its values, and to give those of an earlier epoch",
    exit_code=2,
    left="nothing new",
)
def test_weights_of_nan(door: Door) -> None:
    door.done("train", "run", *NET, *DIGITS, *SHORT)
    path = Path("run/weights/last.safetensors")
    tensors = load_file(path)
    name = next(name for name, value in tensors.items() if value.ndim == 4)
    tensors[name].view(-1)[1] = torch.nan
    save_file(tensors, "nan.safetensors")
    for words in (
        ("train", "next", *NET, *DIGITS, *SHORT),
        ("extract", "s.kd", *TEACHER, *DIGITS),
        ("extract", "s.kd", *TEACHER, *DIGITS, "--labels", "none"),
    ):
        message = door.refused(*words, "--weights", "nan.safetensors")
        assert f"1 of {tensors[name].numel()} values of {name} are NaN" in message


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--device", "meta"), "computes no values"),
        (("--data", "torchvision:folder"), "no data set 'folder'"),
        (("--data", "torchvision:wrap_dataset_for_transforms_v2"), "no data set"),
        (("--data", "torchvision:VisionDataset", "--data-set", "root=."), "NotImplementedError"),
        (("--data", "torch.utils.data:TensorDataset"), "IndexError"),
        (("--temperature", 0), "temperature: give a number above 0"),
        (("--temperature", "warm"), "or calibrated (given 'warm')"),
        (("--ensemble-weights", "nan"), "ensemble_weights"),
        (("--memory-gb", "inf"), "memory_gb"),
        (("--epochs", 99999999999999999999), "epochs: give a whole number from 1 to"),
        (("--workers", 100000), "workers: give a whole number from 0 to"),
    ],
)
def test_a_setting_that_cannot_be(door: Door, words: tuple[object, ...], part: str) -> None:
    data = () if "--data" in words else DIGITS
    assert part in door.refused("train", "run", *NET, *data, *words)
    assert door.contents() == {}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_weights(door: Door, suffix: str, content: bytes, part: str) -> None:
    path = door.folder / f"w{suffix}"
    path.write_bytes(content)
    for words in (("train", "run", *NET, *DIGITS), ("extract", "s.kd", *TEACHER, *DIGITS)):
        message = door.refused(*words, "--weights", path.name)
        assert part in message
        assert path.name in message
