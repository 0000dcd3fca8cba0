"""Networks with lazy modules, as users write them: their shapes come from the first view, in every command."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from kdcache.base.specs import load_callable
from tests.kits.doors import Door

DATA = ("--data", "digits", "--data-set", "limit=200")
EXTRACT = (*DATA, "--workers", 0, "--min-accuracy", 0, "--top-k", 3)
TRAIN = (*DATA, "--workers", 0, "--epochs", 1, "--batch-size", 64, "--lr", 0.05)

LAZY = '''"""Networks whose shapes nothing sets before their first view."""
import torch
from torch import nn


class Waves(nn.LazyLinear):
    """Its weights follow from its shape."""

    def reset_parameters(self):
        if not self.has_uninitialized_params():
            with torch.no_grad():
                self.weight.copy_(torch.arange(self.weight.numel()).sin().view_as(self.weight))
                if self.bias is not None:
                    self.bias.zero_()


def waves(num_classes=10):
    return nn.Sequential(nn.Flatten(), Waves(num_classes))


def net(num_classes=10):
    body = (nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*body, nn.LazyLinear(num_classes))


class Unreached(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.net, self.auxiliary = net(num_classes), nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.net(images)
'''


def test_a_lazy_teacher_is_asked_again(door: Door) -> None:
    door.write("lazy.py", LAZY)
    teacher = ("--teacher", "lazy.py:waves")
    content_id = door.done("extract", "s.kd", *EXTRACT, *teacher)["content_id"]
    assert door.done("extract", "s.kd", *EXTRACT, *teacher)["content_id"] == content_id
    assert door.run("verify", "s.kd", *DATA, *teacher).exit_code == 0
    assert door.run("verify", "s.kd", *DATA, "--teacher", "lazy.py:net").exit_code == 1  # of other weights


def test_a_lazy_teacher_of_a_weights_file(door: Door) -> None:
    door.write("lazy.py", LAZY)
    network = load_callable(str(door.folder / "lazy.py:net"), "teacher")()
    network(torch.rand(4, 1, 8, 8))
    save_file(network.state_dict(), "w.safetensors")
    teacher = ("--teacher", "lazy.py:net", "--weights", "w.safetensors")
    door.done("extract", "s.kd", *EXTRACT, *teacher, "--keep", "features,head")
    assert door.run("verify", "s.kd", *DATA, *teacher).exit_code == 0


def test_lazy_modules_that_no_view_reaches_are_named(door: Door) -> None:
    door.write("lazy.py", LAZY)
    message = door.refused("extract", "s.kd", *EXTRACT, "--teacher", "lazy.py:Unreached")
    assert "lazy modules whose shapes nothing has set: auxiliary (of 1)" in message


def test_a_lazy_student_is_trained_and_goes_on(door: Door) -> None:
    door.write("lazy.py", LAZY)
    student = ("--student", "lazy.py:net", "--schedule", "constant")
    door.done("train", "run", *TRAIN, *student)
    first = load_file("run/weights/last.safetensors")
    assert first["4.weight"].shape == (10, 4 * 6 * 6)
    door.done("train", "run", *TRAIN, *student, "--epochs", 2)
    door.done("train", "whole", *TRAIN, *student, "--epochs", 2)
    assert Path("run/weights/last.safetensors").read_bytes() == Path("whole/weights/last.safetensors").read_bytes()
    next_student = ("--student", "lazy.py:net", "--weights", "run/weights/last.safetensors")
    assert door.done("train", "next", *TRAIN, *next_student)["epochs"] == 1
