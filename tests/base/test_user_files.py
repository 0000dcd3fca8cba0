"""user_files: files of one stem are modules of their own, in every process, and no record tells where they lie."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kdcache.base.specs import load_callable, own_source
from kdcache.base.user_files import UserFiles
from kdcache.base.view_span import ViewSpan
from kdcache.networks.build import network_text
from kdcache.views.transforms import describe
from kdcache.views.view_stack import ViewRequest
from kdcache.views.workers import draw_requests
from tests.kits.views import view_dataset

CODE = """
import torch
from torch import nn

LEVEL = {level}

class Net(nn.Module):
    def forward(self, x):
        return x + LEVEL

class Pictures:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((1, 2, 2), LEVEL, dtype=torch.uint8), 0

class Brighter:
    def __call__(self, image):
        return image + LEVEL
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two files of one stem that define the same names, of level 1 and of level 2."""
    for name, level in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(CODE.format(level=level))
    return str(tmp_path / "a/net.py"), str(tmp_path / "b/net.py")


def test_two_files_of_one_stem_are_pickled_as_their_own(files: tuple[str, str]) -> None:
    makes = [load_callable(f"{file}:Brighter", "transform")() for file in files]
    assert [make(0) for make in makes] == [1, 2]
    payload = pickle.dumps(makes)
    assert [make(0) for make in pickle.loads(payload)] == [1, 2]
    code = "import pickle, sys; files, data = pickle.load(sys.stdin.buffer); files.load()\n"
    code += "print([make(0) for make in pickle.loads(data)])"
    for paths in (files, files[::-1]):  # another process may have met them in another order
        given = pickle.dumps((UserFiles(paths), payload))
        there = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True)
        assert there.stdout.decode().strip() == "[1, 2]"


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_draw_by_both_files(files: tuple[str, str], workers: int) -> None:
    """Those of other starts are in tests/processes: each takes seconds to begin."""
    a, b = files
    for samples, transform, level in ((a, b, 3), (b, a, 3), (a, a, 2), (b, b, 4)):
        dataset = view_dataset(
            load_callable(f"{samples}:Pictures", "data")(), load_callable(f"{transform}:Brighter", "transform")()
        )
        (drawn,) = draw_requests(dataset, [ViewRequest(ViewSpan(0, 1), np.arange(4))], workers, "fork")
        assert torch.unique(torch.as_tensor(drawn.images)).tolist() == [level]


def test_records_hold_the_stem_and_no_folder(files: tuple[str, str]) -> None:
    source = "class Net(nn.Module):\n    def forward(self, x):\n        return x + LEVEL\n"
    text = f": kdcache_user_net.Net\n{source}"  # the name of a module in records, wherever its file lies
    for file in files:
        net = load_callable(f"{file}:Net", "teacher")
        assert own_source(net) == source
        assert network_text(net(), f"{file}:Net") == "sha256 " + hashlib.sha256(text.encode()).hexdigest()
        brighter = load_callable(f"{file}:Brighter", "transform")()
        described = describe(brighter, "net.py:Brighter").text
        assert described.startswith("<kdcache_user_net.Brighter object>; source sha256 ")
