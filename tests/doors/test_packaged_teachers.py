"""Teachers whose classes an installed package defines: its version is reported, and an upgrade refuses no resume."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdcache.store.store import Store
from tests.kits.doors import Door

NET = '''
"""A network as a package has it."""
from torch import nn
from kdcache.networks import convnet

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.net = convnet(width=2, num_classes=num_classes)

    def forward(self, images):
        return self.net(images)  # of version {version}
'''
FACTORY = "from rivernet import Net\n\ndef net(num_classes=10):\n    return Net(num_classes)\n"
DATA = ("--data", "digits", "--data-set", "limit=128", "--workers", 0, "--transform", "light")
Install = Callable[..., None]


@pytest.fixture
def install(door: Door, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts version N of the package into a folder, from which it is imported from now on; and weights of its network
    into run/."""

    def install(version: int, folder: str = "site-packages") -> None:
        place = Path(door.folder) / "env" / folder
        door.write(f"env/{folder}/rivernet/__init__.py", NET.replace("{version}", str(version) * 40))
        for old in place.glob("river_net-*.dist-info"):
            old.rename(place / f"river_net-{version}.dist-info")
        metadata = f"Metadata-Version: 2.1\nName: river-net\nVersion: {version}\n"
        door.write(f"env/{folder}/river_net-{version}.dist-info/METADATA", metadata)
        door.write(f"env/{folder}/river_net-{version}.dist-info/top_level.txt", "rivernet\n")
        monkeypatch.setattr(sys, "path", [str(place), *(path for path in sys.path if "/env/" not in path)])
        monkeypatch.delitem(sys.modules, "rivernet", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        importlib.invalidate_caches()

    install(1)
    door.done("train", "run", "--student", "rivernet:Net", *DATA, "--epochs", 1)
    return install


def extract(views: str, teacher: str = "rivernet:Net") -> tuple[Any, ...]:
    words = ("--weights", "run/weights/last.safetensors", "--min-accuracy", 0, "--top-k", 3)
    return ("extract", "s.kd", "--teacher", teacher, *DATA, *words, "--views", views)


def versions(door: Door) -> list[str | None]:
    """The package's version by the commits of each pass."""
    segments = Store.open(door.folder / "s.kd").segments
    return [segment.commits()[0].provenance.versions.get("river-net") for segment in segments]


@pytest.mark.parametrize("teacher", ["rivernet:Net", "mine.py:net"])
def test_an_upgrade_of_the_package_refuses_nothing_and_is_reported(door: Door, install: Install, teacher: str) -> None:
    door.write("mine.py", FACTORY)
    door.done(*extract("0:1", teacher))
    install(2)
    door.write("again/mine.py", FACTORY)  # a file of its own: one that was loaded keeps what it imported
    door.done(*extract("1:2", teacher.replace("mine.py", "again/mine.py")))
    assert versions(door) == ["1", "2"]


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_store_goes_on(door: Door, install: Install, version: int) -> None:
    """Its text has the package's source in it, as that of a module outside site-packages has it."""
    install(1, "project")
    door.done(*extract("0:1"))
    install(version)
    door.done(*extract("1:2"))
    assert versions(door) == [None, str(version)]


def test_an_older_store_with_code_of_the_user_s_is_held_to_it(door: Door, install: Install) -> None:
    door.write("mine.py", FACTORY)
    install(1, "project")
    door.done(*extract("0:1", "mine.py:net"))
    door.write("other/mine.py", FACTORY.replace("    return", "    # edited\n    return"))
    install(1)
    assert "teacher.text" in door.refused(*extract("1:2", "other/mine.py:net"))
    door.done(*extract("1:2", "mine.py:net"))


def test_the_user_s_own_code_is_in_the_text(door: Door, install: Install) -> None:
    door.write("mine.py", FACTORY)
    door.done(*extract("0:1", "mine.py:net"))
    door.write("other/mine.py", FACTORY.replace("    return", "    # edited\n    return"))
    assert "teacher.text" in door.refused(*extract("1:2", "other/mine.py:net"))
