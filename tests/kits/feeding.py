"""A user's networks, data sets and transforms in files, trained weights for them, and the words of an extraction."""

from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from kdcache.store.store import Store
from tests.kits.doors import Door
from tests.kits.pictures import Gallery

NETS = """
import types
from typing import NamedTuple
import torch
from torch import nn
from kdcache.networks import convnet

def plain(num_classes=4): return convnet(width=8, channels=3, num_classes=num_classes)
class Answer(NamedTuple):
    logits: torch.Tensor
    aux_logits: torch.Tensor
class Wrapped(nn.Module):
    def __init__(self, network): super().__init__(); self.network = network
class Softmax(Wrapped):
    def forward(self, x): return self.network(x).softmax(dim=1)
class Sigmoid(Wrapped):
    def forward(self, x): return self.network(x).sigmoid()
class Output(Wrapped):
    def forward(self, x): return types.SimpleNamespace(logits=self.network(x))
class Pair(Wrapped):
    def forward(self, x): return self.network(x), x
class Percents(Wrapped):
    def forward(self, x): return 100 * self.network(x).softmax(dim=1)
class Constant(Wrapped):
    def forward(self, x): return self.network(0 * x)
class TwoHeads(Wrapped):
    def forward(self, x):
        logits = self.network(x)
        return Answer(logits, logits) if self.training else logits
class One(Wrapped):
    def forward(self, x): return self.network(x)[:, :1]
class Map(Wrapped):
    def forward(self, x): return self.network(x)[:, :, None, None].expand(-1, -1, 5, 5)
def softmax(num_classes=4): return Softmax(plain(num_classes))
def sigmoid(num_classes=4): return Sigmoid(plain(num_classes))
def output(num_classes=4): return Output(plain(num_classes))
def percents(): return Percents(plain())
def constant(): return Constant(plain())
def two_heads(num_classes=4): return TwoHeads(plain(num_classes))
def pair(): return Pair(plain())
def one(): return One(plain())
def map(): return Map(plain())
def half(): return plain().half()
def configured():
    network = plain()
    network.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_size": (3, 32, 32)}
    return network
"""
SETS = """
import numpy as np
from torch.utils.data import Dataset
from torchvision import datasets

class Pictures(Dataset):
    def __init__(self, root, form="array"):
        self.inner, self.form = datasets.ImageFolder(root), form
        self.targets, self.classes = self.inner.targets, self.inner.classes
    def __len__(self): return len(self.inner)
    def __getitem__(self, index):
        image = self.inner[index][0]
        array = np.asarray(image)
        return {
            "image": lambda: image,
            "array": lambda: array,
            "first": lambda: array.transpose(2, 0, 1),
            "float64": lambda: array / 255.0,
            "floats": lambda: (array / 255.0).astype(np.float32),
            "normalised": lambda: ((array / 255.0 - (.485, .456, .406)) / (.229, .224, .225)).astype(np.float32),
            "grey": lambda: image.convert("L") if index % 7 == 3 else image,
            "two": lambda: array[:3, :, :],
        }[self.form](), self.targets[index]
"""
TRANSFORMS = """
from torchvision.transforms import v2
def flips(): return v2.Compose([v2.RandomHorizontalFlip(0.5), v2.ColorJitter(.4, .4)])
"""


@pytest.fixture
def words(door: Door, gallery: Gallery) -> dict[str, Any]:
    """The words of an extraction by name, and the user's files."""
    door.write("nets.py", NETS)
    door.write("sets.py", SETS)
    door.write("transforms.py", TRANSFORMS)
    state = load_file(gallery.weights)
    save_file(state, door.folder / "plain.safetensors")
    save_file({f"network.{name}": value for name, value in state.items()}, door.folder / "wrapped.safetensors")
    return {"data": f"folder:{gallery.pictures}", "root": str(gallery.pictures)}


def extract(net: str, data: str, *more: object, weights: str = "plain", store: str = "a.kd") -> list[object]:
    """The words of `kdcache extract`."""
    options = ["--teacher", f"nets.py:{net}", "--weights", f"{weights}.safetensors", "--data", data]
    return ["extract", store, *options, "--top-k", 2, "--workers", 0, "--batch-size", 64, *more]


def array_set(words: dict[str, Any], form: str) -> list[object]:
    return ["--data-set", f"root={words['root']}", "--data-set", f"form={form}"]


def log_probs(door: Door, store: str) -> Any:
    opened = Store.open(door.folder / store)
    return opened.read(0, np.arange(opened.rows)).log_probs(1.0)
