"""Folders of plain colours, a class a colour, with data sets over them and teachers that are right without training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.kits.doors import Door

CLASSES = ("blue", "cyan", "gold", "grey")
COLOURS = {"blue": (20, 30, 220), "cyan": (30, 220, 220), "gold": (220, 190, 30), "grey": (110, 110, 110)}
STUDENT = ("--student", "kdcache.networks:convnet", "--student-set", "channels=3", "--student-set", "width=4")
SPLITS = ("--data", "folder:data", "--data-set", "split=train", "--val-set", "split=val")
FEW = ("--epochs", 3, "--batch-size", 16, "--lr", 0.1, "--workers", 0)

SETS = '''
from torchvision.datasets import ImageFolder

def remapped(split="train"):
    return ImageFolder(f"data/{split}", target_transform=lambda label: 3 - label)

class Base:
    class_names, form = None, int
    def __init__(self, split="train"):
        self.inner = ImageFolder(f"data/{split}")
        self.targets = [self.form(label) for label in self.inner.targets]
    def __len__(self): return len(self.inner)
    def __getitem__(self, index): return self.inner[index][0], self.targets[index]

class Ages(Base):
    form = staticmethod(lambda label: label + 0.31)
class Hundred(Base):
    form = staticmethod(lambda label: label or -100)
class Unlabelled(Base):
    form = staticmethod(lambda label: None)
class Half(Base):
    form = staticmethod(lambda label: label if label % 2 else None)
class FromOne(Base):
    class_names = ["blue", "cyan", "gold", "grey"]
    form = staticmethod(lambda label: label + 1)
class Dicts(Base):
    def __getitem__(self, index): return dict(zip(("photo", "kind"), super().__getitem__(index)))
class Backwards(Base):
    """The validation split in another order of classes."""
    def __init__(self, split="train"):
        super().__init__(split)
        self.class_names = ["blue", "cyan", "gold", "grey"]
        if split == "val":
            self.class_names, self.targets = self.class_names[::-1], [3 - label for label in self.targets]
'''

NETS = '''
import torch
from torch import nn

class Colours(nn.Module):
    """Answers by the nearest colour, of `classes`: fixed, so right without training."""
    def __init__(self, centres, names=None):
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(centres, dtype=torch.float32) / 255)
        if names: self.class_names = names
    def forward(self, images):
        return -10.0 * (images.mean((2, 3))[:, None] - self.centres).square().sum(-1)

KNOWN = {"blue": (20, 30, 220), "cyan": (30, 220, 220), "gold": (220, 190, 30), "grey": (110, 110, 110)}
def colours(names=("blue", "cyan", "gold", "grey"), named=False):
    others = (250, 250, 250), (0, 90, 0), (90, 0, 0)
    centres = [KNOWN.get(name, others[number % 3]) for number, name in enumerate(names)]
    return Colours(centres, list(names) if named else None)
def six(): return colours(("grey", "pink", "gold", "cyan", "mauve", "blue"))
def six_named(): return colours(("grey", "pink", "gold", "cyan", "mauve", "blue"), named=True)
def twins(): return colours(("grey", "blue", "gold", "cyan", "blue"), named=True)
def backwards(): return colours(("grey", "gold", "cyan", "blue"), named=True)
def imagenet(): return colours(["grey"] + ["white"] * 284 + ["blue"] + ["white"] * 714)
'''
TEACHER = ("--mean", "0,0,0", "--std", "1,1,1", "--workers", 0, "--encoding", "full")


def write_colours(root: Path, each: int, names: dict[str, str] | None = None) -> None:
    rng = np.random.RandomState(each)
    for name, colour in COLOURS.items():
        folder = root / (names or {}).get(name, name)
        folder.mkdir(parents=True)
        for number in range(each):
            pixels = np.clip(np.array(colour) + rng.randint(-15, 16, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")


@pytest.fixture
def colours(door: Door) -> Door:
    """data/train and data/val of four classes of plain colours; files of data sets and networks."""
    write_colours(door.folder / "data/train", 12)
    write_colours(door.folder / "data/val", 5)
    door.write("sets.py", SETS)
    door.write("nets.py", NETS)
    return door


def train(door: Door, run: str, *words: object) -> dict[str, Any]:
    return door.done("train", run, *STUDENT, *FEW, *words)


def extract(door: Door, store: str, teacher: str, *words: object) -> dict[str, Any]:
    return door.done("extract", store, "--teacher", f"nets.py:{teacher}", *TEACHER, *words)
