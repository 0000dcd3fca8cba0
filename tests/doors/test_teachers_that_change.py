"""Teachers whose answers hang on more than their weights and the picture, from the command line."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdcache.networks import teacher
from kdcache.store.store import Store
from tests.kits import feeding, pictures
from tests.kits.doors import Door
from tests.kits.feeding import array_set, extract, log_probs

gallery = pictures.gallery
words = feeding.words

TEACHERS = """
from pathlib import Path
import torch
from torch import nn
from kdcache.networks import convnet

class Wrapped(nn.Module):
    def __init__(self): super().__init__(); self.network = convnet(width=8, channels=3, num_classes=4)
    def forward(self, x): return self.network(x)
class Decays(Wrapped):
    def __init__(self): super().__init__(); self.register_buffer("scale", torch.ones(()), persistent=True)
    def forward(self, x): self.scale.mul_(.999); return self.network(x) * self.scale
class Learns(Wrapped):
    def forward(self, x): self.network[-1].bias.data[0] += .001; return self.network(x)
class Caches(Wrapped):
    def __init__(self): super().__init__(); self.register_buffer("seen", torch.zeros(()), persistent=False)
    def forward(self, x): self.seen += 1; return self.network(x)
class ByFile(Wrapped):
    def forward(self, x): return self.network(x) * float(Path("scale.txt").read_text())
class Unregistered(Wrapped):
    def __init__(self): super().__init__(); self.extra = [nn.Linear(4, 4)]
    def forward(self, x): z = self.network(x); return z + .5 * self.extra[0](z)
class NoisyInLargeBatches(Wrapped):
    def forward(self, x): z = self.network(x); return z + (torch.randn_like(z) if len(x) > 64 else 0)
class Noisy(Wrapped):
    def forward(self, x): z = self.network(x); return z + .03 * z.std() * torch.randn_like(z)
class InBatch(Wrapped):
    def forward(self, x): return self.network(x) + .02 * x.mean() * torch.arange(4.)
class Reversed(Wrapped):
    def forward(self, x): return self.network(x).flip(0)
class InPlace(Wrapped):
    def forward(self, x): return self.network(x.mul_(1.0).add_(0.0).clamp_(-9, 9))
"""


def of(name: str, words: dict[str, Any], *more: object, store: str = "a.kd") -> list[object]:
    line = extract("plain", words["data"], *more, weights="wrapped", store=store)
    return [f"teachers.py:{name}" if word == "nets.py:plain" else word for word in line]


@pytest.fixture
def teachers(door: Door, words: dict[str, Any]) -> dict[str, Any]:
    door.write("teachers.py", TEACHERS)
    return words


@pytest.mark.situation(
    "a teacher that changes its weights or buffers while it answers", "which of them", exit_code=2, left="nothing new"
)
@pytest.mark.parametrize(("name", "tensor"), [("Decays", "scale"), ("Learns", "network.16.bias")])
def test_weights_that_change(door: Door, teachers: dict[str, Any], name: str, tensor: str) -> None:
    if name == "Decays":
        state = load_file(door.folder / "wrapped.safetensors")
        save_file({**state, "scale": torch.ones(())}, door.folder / "wrapped.safetensors")
    assert tensor in door.refused(*of(name, teachers))


def test_a_buffer_that_is_no_weight_may_change(door: Door, teachers: dict[str, Any]) -> None:
    assert door.done(*of("Caches", teachers))["notes"] == []


@pytest.mark.situation(
    "another pass by a teacher of the same weights that answers otherwise",
    "a row, and by how much its answer differs from the stored one",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize("name", ["ByFile", "Unregistered"])
def test_answers_that_hang_on_what_is_no_weight(door: Door, teachers: dict[str, Any], name: str) -> None:
    door.write("scale.txt", "1")
    door.done(*of(name, teachers))
    if name == "ByFile":
        assert door.done(*of(name, teachers))["blocks_done_before"] == 3
        door.write("scale.txt", "0.5")
    message = door.refused(*of(name, teachers, "--views", "1:2"))
    assert "rows of view 0 that stand in a.kd" in message
    assert "sample " in message


@pytest.mark.parametrize("more", [("--precision", "bfloat16"), ("--mix", "mixup"), ("--quantisation", "high")])
def test_a_later_pass_of_the_same_teacher(door: Door, teachers: dict[str, Any], more: tuple[str, str]) -> None:
    """No false alarm: in low precision, mixed, in fine steps, and in batches of another size."""
    accepted = (*more, "--transform", "light", "--min-accuracy", 0)
    door.done(*extract("plain", teachers["data"], *accepted))
    record = door.done(*extract("plain", teachers["data"], *accepted, "--views", "1:2", "--batch-size", 128))
    assert (record["notes"], record["rows"]) == ([], 180)


@pytest.mark.situation(
    "a teacher whose answers hang on the batch or on chance",
    "by how much; a note where it is little",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize(("name", "text"), [("Noisy", "and for noise"), ("Reversed", "row by row")])
def test_answers_that_hang_on_the_batch(door: Door, teachers: dict[str, Any], name: str, text: str) -> None:
    assert text in door.refused(*of(name, teachers))


def test_answers_that_hang_on_chance_in_larger_batches_than_the_checks_ask(
    door: Door, teachers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU: on a CPU no forward is larger."""
    monkeypatch.setattr(teacher, "CPU_ROWS", None)
    line = of("NoisyInLargeBatches", teachers, "--batch-size", 128, "--views", 2)
    for _ in range(2):
        assert "in one batch of 128" in door.refused(*line)
    assert not Store.open_for_writing(door.folder / "a.kd").segments[0].commits()


def test_answers_that_hang_a_little_on_the_batch(door: Door, teachers: dict[str, Any]) -> None:
    assert any("hangs a little on its batch" in note for note in door.done(*of("InBatch", teachers))["notes"])


@pytest.mark.parametrize("form", ["image", "normalised"])
def test_a_network_that_writes_into_its_input(door: Door, teachers: dict[str, Any], form: str) -> None:
    line = [str(word) for word in of("InPlace", teachers)]
    line[line.index(teachers["data"])] = "sets.py:Pictures"
    door.done(*line, *array_set(teachers, form))
    door.done(*extract("plain", "sets.py:Pictures", *array_set(teachers, form), store="b.kd"))
    np.testing.assert_array_equal(log_probs(door, "a.kd"), log_probs(door, "b.kd"))
