"""Commands in a folder of their own, and a folder that transformers' save_pretrained wrote."""

from pathlib import Path

import pytest

from tests.kits.doors import Door
from tests.kits.tiny_models import trained_vit, write_pictures


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    monkeypatch.chdir(tmp_path)
    return Door(tmp_path, capsys)


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that tells the classes of `photos`."""
    folder = tmp_path_factory.mktemp("models") / "vit"
    trained_vit(folder)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures with the splits train and val."""
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    write_pictures(folder)
    return folder
