"""Code that hangs, processes that are killed, and workers that begin in other ways, as a user meets them."""

import shutil
from pathlib import Path

import pytest

from kdcache.networks import convnet
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits.doors import Door

CODE = """
import os, signal, time
from pathlib import Path
import numpy as np
import torch
from PIL import Image
import neighbour
HERE = Path(__file__).parent
class Pictures:
    def __init__(self, at=-1, how=""): self.at, self.how, self.labels = at, how, [index % 4 for index in range(1300)]
    def __len__(self): return 1300
    def __getitem__(self, index):
        if index == self.at and self.how == "hang" and not (HERE / "go").exists():
            (HERE / "here").touch()
            time.sleep(10**6)
        if index == self.at and self.how == "die" and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return Image.fromarray(np.full((8, 8, 3), neighbour.level(index), "u1")), self.labels[index]
def turn(image): return image.rotate(neighbour.ANGLE)
def turned(): return turn
"""
NEIGHBOUR = "ANGLE = 90\ndef level(index): return index % 256\n"
WORDS = (
    "--weights",
    "teacher.safetensors",
    "--teacher",
    "kdcache.networks:convnet",
    "--teacher-set",
    "width=2",
    "--teacher-set",
    "channels=3",
)
CHEAP = ("--views", 2, "--top-k", 2, "--min-accuracy", 0, "--batch-size", 64, "--data", "code.py:Pictures", "--json")


@pytest.fixture(autouse=True)
def code(door: Door) -> None:
    door.write("code.py", CODE)
    door.write("neighbour.py", NEIGHBOUR)
    save_weights(door.folder / "teacher.safetensors", convnet(width=2, channels=3, num_classes=4))


@pytest.mark.slow
@pytest.mark.situation(
    "SIGTERM while your own code hangs, here or in a worker",
    "that it was stopped, within 10 s",
    exit_code=75,
    left="whole blocks; the same command goes on",
)
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_ends_what_hangs(door: Door, workers: int) -> None:
    words = (
        *WORDS,
        "--order",
        "given",
        *CHEAP,
        "--data-set",
        "at=1250",
        "--data-set",
        "how=hang",
        "--workers",
        workers,
    )
    outcome = door.terminated(door.folder / "here", "extract", "x.kd", *words)
    assert (outcome.exit_code, outcome.out) == (75, ""), outcome
    shutil.copytree(door.folder / "x.kd", door.folder / "copy.kd")
    door.write("go", "")
    again = door.run_apart("extract", "copy.kd", *words)
    assert again.exit_code == 0, again
    assert again.record["blocks_done_before"] == 1
    assert Store.open(door.folder / "copy.kd").content_id == again.record["content_id"]
    door.outcome, door.target = outcome, door.folder / "x.kd"


@pytest.mark.situation(
    "a worker process that is killed, by a lack of memory or by hand",
    "the sample that it was at",
    exit_code=2,
    left="whole blocks; the same command goes on",
)
def test_a_killed_worker_is_told_by_its_sample(door: Door) -> None:
    words = ("--data-set", "at=1250", "--data-set", "how=die", "--workers", 2)
    assert "sample 1250" in door.refused("extract", "x.kd", *WORDS, "--order", "given", *CHEAP, *words)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_begin_otherwise_draw_the_same_views_by_own_files(door: Door, start: str, tmp_path: Path) -> None:
    """They import a user's file and its neighbour anew."""
    words = (*WORDS, *CHEAP, "--transform", "code.py:turned")
    here = door.run_apart("extract", "a.kd", *words, "--workers", 0)
    assert here.exit_code == 0, here
    there = door.run_apart("extract", "b.kd", *words, "--workers", 1, "--worker-start", start)
    assert there.exit_code == 0, there
    a, b = (Store.open(tmp_path / name).load(1, range(1300)).arrays["pixels"] for name in ("a.kd", "b.kd"))
    assert (a == b).all()
