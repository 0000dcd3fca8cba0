"""Students of all kinds as users write them: those that share weights, and those that misbehave."""

import pytest
import torch
from safetensors.torch import load_file

from tests.kits.doors import Door

NET = ("--student", "kdcache.networks:convnet", "--student-set", "width=2")
DIGITS = ("--data", "digits", "--data-set", "limit=300", "--workers", 0, "--batch-size", 64, "--lr", 0.05)
VALIDATED = ("--val-set", "split=test", "--val-set", "limit=90")

MISBEHAVING = '''"""Students that misbehave, each in its own way."""
import sys
from collections import namedtuple

import torch
from torch import nn

from kdcache.networks import convnet


Outputs = namedtuple("Outputs", ["logits", "aux_logits"])  # as torchvision's GoogLeNet answers in training


class Way(nn.Module):
    def __init__(self, way, num_classes=10):
        super().__init__()
        self.net, self.way = convnet(width=2, num_classes=num_classes), way
        if way == "frozen":
            self.requires_grad_(False)
        if way == "half":
            self.half()
        if way == "exits at once":
            sys.exit(0)

    def forward(self, images):
        if self.way == "drops rows" or (self.way == "drops rows in training" and self.training):
            return self.net(images[:-1])
        if self.way == "exits" or (self.way == "exits in training" and self.training):
            sys.exit(0)
        if self.way == "no grad":
            with torch.no_grad():
                return self.net(images)
        logits = self.net(images)
        if self.training and self.way in ("auxiliary", "tuple in training"):
            return Outputs(logits, logits) if self.way == "auxiliary" else (logits, logits)
        return {"whole": logits.long(), "flat": logits[0]}.get(self.way, logits)


class Empty(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :10]


class Stuck(nn.Module):
    """Stays in eval mode, as a student with a frozen norm may on purpose."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.net = convnet(width=2, num_classes=num_classes)

    def train(self, mode=True):
        return super().train(False)

    def forward(self, images):
        return self.net(images)


class Tied(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.one = nn.Linear(64, 64)
        self.two = self.one
        self.head = nn.Linear(64, num_classes)

    def forward(self, images):
        return self.head(torch.relu(self.two(torch.relu(self.one(images.flatten(1))))))
'''


@pytest.mark.situation(
    "a student that shares weights between layers",
    "it trains; its weights file is read by kdcache and by safetensors",
    exit_code=0,
    left="a whole store",
)
def test_a_student_with_tied_weights(door: Door) -> None:
    door.write("nets.py", MISBEHAVING)
    door.done(
        "train", "run", "--student", "nets.py:Tied", *DIGITS, *VALIDATED, "--epochs", 2, "--ema", 0.5,
    )  # fmt: skip
    tensors = load_file(door.folder / "run/weights/best.safetensors")
    assert sorted(tensors) == ["head.bias", "head.weight", "one.bias", "one.weight"]
    door.done("train", "next", "--student", "nets.py:Tied", *DIGITS, "--epochs", 1, "--weights",
              "run/weights/best.safetensors")  # fmt: skip
    teacher = ("--teacher", "nets.py:Tied", "--weights", "run/weights/best.safetensors", "--min-accuracy", 0)
    door.done("extract", "s.kd", *teacher, "--data", "digits", "--data-set", "limit=300", "--workers", 0)


@pytest.mark.parametrize(
    ("way", "word"),
    [
        ("drops rows", "asked about 8 views"), ("frozen", "no parameter that learns"), ("no grad", "no_grad"),
        ("half", "weights of dtype torch.float16"), ("exits", "exit"), ("exits at once", "exit"),
        ("whole", "numbers of classes"),
        ("flat", "answered [10]"),
    ],
)  # fmt: skip
def test_a_student_that_misbehaves_is_refused_before_its_run_is_claimed(door: Door, way: str, word: str) -> None:
    door.write("nets.py", MISBEHAVING)
    files = door.contents()
    message = door.refused("train", "run", "--student", "nets.py:Way", "--student-set", f"way={way}", *DIGITS)
    assert word in message
    assert door.contents() == files


@pytest.mark.situation(
    "a student that answers fewer rows than it was given, or ends the process",
    "the two numbers of rows, or that its code ended the process",
    exit_code=2,
    left="nothing new",
)
def test_a_student_without_parameters(door: Door) -> None:
    door.write("nets.py", MISBEHAVING)
    assert "no parameter that learns (0 parameters" in door.refused(
        "train", "run", "--student", "nets.py:Empty", *DIGITS
    )


@pytest.mark.parametrize("way", ["drops rows in training", "exits in training"])
def test_a_student_that_misbehaves_in_training_alone_ends_the_run(door: Door, way: str) -> None:
    door.write("nets.py", MISBEHAVING)
    message = door.refused("train", "run", "--student", "nets.py:Way", "--student-set", f"way={way}", *DIGITS)
    assert ("answered [59, 10]" in message and "asked about 60 views" in message) or (
        "sys.exit(0)" in message and "nets.py" in message
    )
    assert not (door.folder / "run/weights").exists()


def test_a_student_that_answers_otherwise_in_training(door: Door) -> None:
    door.write("nets.py", MISBEHAVING)
    words = ("--student", "nets.py:Way", *DIGITS, "--epochs", 1, "--student-set")
    door.done("train", "plain", *words, "way=plain")
    door.done("train", "logits", *words, "way=auxiliary")
    plain, logits = (load_file(f"{name}/weights/last.safetensors") for name in ("plain", "logits"))
    assert all(torch.equal(plain[name], logits[name]) for name in plain)
    assert "(0, ...)" not in (message := door.refused("train", "run", *words, "way=tuple in training"))
    assert "answered tuple of 2" in message
    assert not (door.folder / "run/weights").exists()
    door.done("train", "run", *words, "way=plain")  # no checkpoint stands: the folder is free


def test_a_student_that_stays_in_eval_mode_is_told_of(door: Door) -> None:
    door.write("nets.py", MISBEHAVING)
    (note,) = door.done("train", "run", "--student", "nets.py:Stuck", *DIGITS, "--epochs", 1)["notes"]
    assert "stays in eval mode" in note
    assert door.done("train", "other", *NET, *DIGITS, "--epochs", 1)["notes"] == []
