"""Code of users that exits, stops, is shorter than it says, or prints."""

import pytest

from kdcache.store.store import Store
from tests.kits.doors import Door

CODE = """
import random, sys
import numpy as np
from PIL import Image
class Pictures:
    def __init__(self, at=-1, how=""): self.at, self.how, self.labels = at, how, [index % 4 for index in range(200)]
    def __len__(self): return 200
    def __getitem__(self, index):
        if index == self.at:
            if self.how == "exit": sys.exit(0)
            if self.how == "stop": raise StopIteration
            return [][index]
        return Image.fromarray(np.full((8, 8, 3), index, "u1")), self.labels[index]
def prints():
    print("made")
    def transform(image):
        print("drawn")
        return image
    return transform
"""
WORDS = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "width=2", "--teacher-set", "channels=3")
CHEAP = ("--views", 1, "--top-k", 2, "--min-accuracy", 0, "--batch-size", 64, "--data", "code.py:Pictures")


@pytest.mark.situation(
    "a data set that calls `sys.exit`, raises StopIteration, or holds less than its length says",
    "the sample, the file and the line",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["exit", "stop", "index"])
def test_code_that_stops_is_named(door: Door, how: str, workers: int) -> None:
    door.write("code.py", CODE)
    words = ("--data-set", "at=199", "--data-set", f"how={how}", "--workers", workers)
    message = door.refused("extract", "x.kd", *WORDS, *CHEAP, *words)
    assert "code.py, line" in message


def test_what_code_prints_is_no_part_of_the_record(door: Door) -> None:
    door.write("code.py", CODE)
    record = door.done("extract", "x.kd", *WORDS, *CHEAP, "--transform", "code.py:prints", "--workers", 0)
    assert Store.open(door.folder / "x.kd").content_id == record["content_id"]
    assert door.outcome is not None
    assert "drawn" in door.outcome.err
