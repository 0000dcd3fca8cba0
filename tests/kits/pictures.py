"""Folders of small colour pictures cut from real photographs, a class a photograph, and a teacher trained on them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.stage import train
from tests.kits.stages import NETWORK

PLACES = {"cat": "chelsea.png", "coffee": "coffee.png", "eye": "retina.jpg", "tissue": "ihc.png"}
EACH, SIZE = 45, 24
ROWS = EACH * len(PLACES)
NET: dict[str, Any] = {"width": 8, "channels": 3}


def write_pictures(root: Path, *, seed: int = 0, each: int = EACH) -> Path:
    """`root`/CLASS/000.png, 001.jpg, ...: crops of 24 x 24 pixels; file names are the same in every class."""
    import skimage.data

    rng = np.random.RandomState(seed)
    for name, photograph in PLACES.items():
        with Image.open(Path(skimage.data.__file__).parent / photograph) as opened:
            picture = opened.convert("RGB").reduce(4)
        (root / name).mkdir(parents=True)
        for number in range(each):
            left, top = (int(rng.randint(size - SIZE + 1)) for size in picture.size)
            crop = picture.crop((left, top, left + SIZE, top + SIZE))
            crop.save(root / name / f"{number:03d}.{('png', 'jpg')[number % 2]}")
    return root


def pixels_of(path: Path) -> npt.NDArray[np.uint8]:
    """A writable copy of an image file's pixels."""
    with Image.open(path) as opened:
        return np.array(opened)


@dataclass(frozen=True)
class Gallery:
    """Where the session's pictures (train and test), the teacher's weights and a sealed store of two views lie."""

    folder: Path

    @property
    def pictures(self) -> Path:
        return self.folder / "data" / "train"

    @property
    def weights(self) -> str:
        return str(self.folder / "teacher" / "weights" / "best.safetensors")

    @property
    def store(self) -> str:
        return str(self.folder / "pictures.kd")

    def asked(self, store: str | Path, **changes: Any) -> ExtractSettings:
        """Extract's settings: the pictures, top 2, two views of random crops to 16 x 16; with changes."""
        settings = {
            "store": str(store),
            "teacher": NETWORK,
            "teacher_set": NET,
            "weights": self.weights,
            "data": f"folder:{self.pictures}",
            "transform": "imagenet",
            "transform_set": {"size": 16, "scale": [0.5, 1.0]},
            "views": "2",
            "top_k": 2,
            "workers": 0,
            "batch_size": 64,
        }
        return ExtractSettings.model_validate(settings | changes)

    def student(self, run: str | Path, **changes: Any) -> TrainSettings:
        """Train's settings: one epoch of a narrow convnet on the store and the pictures; with changes."""
        settings = {
            "run": str(run),
            "student": NETWORK,
            "student_set": {"width": 4, "channels": 3},
            "data": f"folder:{self.pictures}",
            "store": (self.store,),
            "workers": 0,
            "epochs": 1,
            "batch_size": 64,
        }
        return TrainSettings.model_validate(settings | changes)


@cache
def _gallery(base: Path) -> Gallery:
    gallery = Gallery(base / "gallery")
    write_pictures(gallery.pictures)
    write_pictures(gallery.folder / "data" / "test", seed=1)
    crops = {"transform": "imagenet", "transform_set": {"size": 16, "scale": [0.5, 1.0]}}
    taught = {"student_set": NET, "store": (), "epochs": 12, "lr": 0.1, **crops}
    train(gallery.student(gallery.folder / "teacher", **taught, val_set={}))
    extract(gallery.asked(gallery.store))
    return gallery


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Made once a session, however many modules name this fixture."""
    return _gallery(tmp_path_factory.getbasetemp())
