"""Stores as users meet them: unfinished, damaged, of other settings, or not where they were said to be."""

import shutil
from pathlib import Path

import pytest

from tests.kits import pictures
from tests.kits.doors import Door
from tests.kits.pictures import NET, Gallery
from tests.kits.stages import NETWORK

gallery = pictures.gallery

CROPS = ("--transform", "imagenet", "--transform-set", "size=16", "--transform-set", "scale=[0.5, 1.0]")


def asking(gallery: Gallery, *more: object) -> list[object]:
    """The words of the extraction that made the gallery's store, to `s.kd`."""
    teacher = ["--teacher", NETWORK, "--weights", gallery.weights, *(f"--teacher-set={k}={v}" for k, v in NET.items())]
    rest = ["--views", 2, "--top-k", 2, "--workers", 0, "--batch-size", 64, *CROPS]
    return ["extract", "s.kd", *teacher, "--data", f"folder:{gallery.pictures}", *rest, *more]


def learning(gallery: Gallery, store: str, *more: object) -> list[object]:
    """The words of a training of one epoch."""
    student = ["--student", NETWORK, "--student-set", "width=4", "--student-set", "channels=3", "--epochs", 1]
    return ["train", "run", "--data", f"folder:{gallery.pictures}", "--store", store, *student, "--workers", 0, *more]


@pytest.fixture
def store(gallery: Gallery, door: Door) -> Path:
    """A copy of the gallery's store."""
    return Path(shutil.copytree(gallery.store, door.folder / "s.kd"))


@pytest.mark.situation(
    "an extraction to a store that was made with other settings",
    "each setting that differs, as the store has it and as it is now",
    exit_code=2,
    left="nothing new",
)
def test_a_store_of_other_settings(gallery: Gallery, door: Door, store: Path) -> None:
    message = door.refused(*asking(gallery, "--seed", 1))
    assert "s.kd belongs to another extraction" in message
    assert "views.seed: the store has 0, this run has 1" in message


@pytest.mark.situation(
    "training on a store whose extraction was stopped", "how many blocks it has of how many", exit_code=2,
    left="nothing new",
)  # fmt: skip
def test_an_unfinished_store(gallery: Gallery, door: Door, store: Path) -> None:
    for path in (*store.glob("kdcache/seals/*"), *store.glob("kdcache/*/commits.bin")):
        path.unlink()
    commits = sorted(store.glob("kdcache/*/commits/*/*.json"))
    commits[-1].unlink()
    message = door.refused(*learning(gallery, "s.kd"))
    assert f"has {len(commits) - 1} of {len(commits)} blocks" in message


@pytest.mark.situation(
    "`kdcache verify` of a store with a damaged file", "the file, and `--repair`", exit_code=1, left="nothing new"
)
def test_a_damaged_store(door: Door, store: Path) -> None:
    shard = max(store.glob("views-*/**/c/**/*"), key=lambda path: path.is_file() and path.stat().st_size)
    values = bytearray(shard.read_bytes())
    values[len(values) // 2] ^= 1
    shard.write_bytes(values)
    outcome = door.run("verify", "s.kd")
    assert "has sha256" in outcome.out
    assert "--repair" in outcome.out + outcome.err


@pytest.mark.situation("a store that is not there", "the folder", exit_code=2, left="nothing new")
def test_no_store(gallery: Gallery, door: Door) -> None:
    assert "nowhere.kd" in door.refused("inspect", "nowhere.kd")
    assert "nowhere.kd" in door.refused(*learning(gallery, "nowhere.kd"))


@pytest.mark.situation(
    "a pin (`STORE@ID`) of which there is no seal", "the seals that there are", exit_code=2, left="nothing new"
)
def test_a_pin_of_no_seal(door: Door, store: Path) -> None:
    assert "0123456789abcdef" in door.refused("inspect", "s.kd@0123456789abcdef0123456789abcdef")


@pytest.mark.situation("views that the store does not have", "the views that it has", exit_code=2, left="nothing new")
def test_views_beyond_the_store(gallery: Gallery, door: Door, store: Path) -> None:
    assert "view" in door.refused(*learning(gallery, "s.kd", "--views", "0:5"))


@pytest.mark.situation(
    "a temperature below 1 on a top-k store", "the T from which its tail is known", exit_code=2, left="nothing new"
)
def test_a_temperature_below_1(gallery: Gallery, door: Door, store: Path) -> None:
    assert "T" in door.refused(*learning(gallery, "s.kd", "--temperature", 0.5))


@pytest.mark.situation("a larger `--top-k` than the store keeps", "both numbers", exit_code=2, left="nothing new")
def test_more_classes_than_are_kept(gallery: Gallery, door: Door, store: Path) -> None:
    assert "top-k 3" in door.refused(*learning(gallery, "s.kd", "--top-k", 3))


@pytest.mark.situation("a push of a store without a seal", "that it is not sealed", exit_code=2, left="nothing new")
def test_a_push_without_a_seal(door: Door, store: Path) -> None:
    for path in store.glob("kdcache/seals/*"):
        path.unlink()
    assert "seal" in door.refused("push", "s.kd", "there/s.kd")


@pytest.mark.situation(
    "a setting that does not exist, in a TOML file", "the setting, and those that there are", exit_code=2,
    left="nothing new",
)  # fmt: skip
def test_an_unknown_setting(door: Door) -> None:
    door.write("train.toml", 'data = "digits"\nepoch = 3\n')
    assert "epoch" in door.refused("train", "run", "--config", "train.toml")


@pytest.mark.situation("a run folder of other settings", "each setting that differs", exit_code=2, left="nothing new")
def test_a_run_of_other_settings(gallery: Gallery, door: Door, store: Path) -> None:
    door.done(*learning(gallery, "s.kd"))
    assert "lr: the run has" in door.refused(*learning(gallery, "s.kd", "--lr", 0.01))


@pytest.mark.situation(
    "an objective that does not exist, or a setting that it does not have", "the names that there are", exit_code=2,
    left="nothing new",
)  # fmt: skip
def test_an_unknown_objective(gallery: Gallery, door: Door, store: Path) -> None:
    assert "dkd" in door.refused(*learning(gallery, "s.kd", "--objective", "dkdd"))
    assert "gamma" in door.refused(*learning(gallery, "s.kd", "--objective", "dkd", "--set", "gamma=1"))


@pytest.mark.situation(
    "an objective of features on a store that keeps none", "the flag of `extract` that keeps them", exit_code=2,
    left="nothing new",
)  # fmt: skip
def test_an_objective_of_features_that_are_not_kept(gallery: Gallery, door: Door, store: Path) -> None:
    assert "--keep" in door.refused(*learning(gallery, "s.kd", "--objective", "rkd"))


@pytest.mark.situation(
    "a teacher that is fed wrongly, or whose classes are in another order",
    "its accuracy on clean rows, and what to look at",
    exit_code=2, left="nothing new",
)  # fmt: skip
def test_a_wrongly_fed_teacher(gallery: Gallery, door: Door) -> None:
    words = asking(gallery, "--mean", "0.5,0.5,0.5", "--std", "0.01,0.01,0.01")
    assert "accuracy" in door.refused(*words)


@pytest.mark.situation(
    "weights that do not fit the network", "the tensors that are missing or of another shape", exit_code=2,
    left="nothing new",
)  # fmt: skip
def test_weights_of_another_network(gallery: Gallery, door: Door) -> None:
    words = ["--teacher", NETWORK, "--weights", gallery.weights, "--teacher-set", "width=2"]
    assert "do not fit" in door.refused("extract", "s.kd", *words, "--data", f"folder:{gallery.pictures}")
