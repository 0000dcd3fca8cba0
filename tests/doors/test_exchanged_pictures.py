"""Pictures that were exchanged since extraction, where views drift by a few levels and that was accepted."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdcache.store.store import Store
from tests.kits.doors import Door

ROWS = 200
NETWORK = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "width=2", "--teacher-set", "channels=3")
EXTRACTION = (*NETWORK, "--views", 2, "--top-k", 2, "--min-accuracy", 0, "--workers", 0, "--batch-size", 64)
STUDENT = ("--student", "kdcache.networks:convnet", "--student-set", "width=2", "--student-set", "channels=3")
TRAINING = (*STUDENT, "--epochs", 2, "--batch-size", 64, "--workers", 0)
CROPS = ("--transform", "imagenet", "--transform-set", "size=16")
PROBED = set(np.unique(np.linspace(0, ROWS - 1, 64).astype(int)).tolist())  # whose contents enter the identity

OWN = """
import numpy as np, os
from PIL import Image
class Pictures:
    "Pictures of four classes; some may be exchanged, or be decoded a few levels off."
    class_names = ["a", "b", "c", "d"]
    def __init__(self, exchanged=(), off=0):
        small = np.random.RandomState(0).randint(0, 250, (200, 6, 6, 3)).astype("u1")
        self.files = [small[index].tobytes() for index in range(200)]
        for a, b in zip(exchanged[::2], exchanged[1::2]):
            self.files[a], self.files[b] = self.files[b], self.files[a]
        self.labels, self.off = [index % 4 for index in range(200)], off
    def __len__(self): return 200
    def __getitem__(self, index):
        values = np.frombuffer(self.files[index], "u1").reshape(6, 6, 3) + np.uint8(self.off)
        return Image.fromarray(values).resize((24, 24), Image.Resampling.BICUBIC), self.labels[index]
class WithContent(Pictures):
    def content(self, index): return self.files[index]
"""
DRIFTING = """
import numpy as np, os, torch
def augment():
    "A transform that some libraries compute a little otherwise, as resizing does."
    def transform(image):
        values = np.asarray(image).transpose(2, 0, 1) // 2 + 10
        return torch.from_numpy((values + int(os.environ.get("LEVELS", "0"))).astype("u1"))
    return transform
"""


def free_samples(store: Path) -> list[int]:
    """Samples that neither the identity nor the canary looks at; an even number of them."""
    canary = set(Store.open(store).order[:64].tolist())
    samples = [index for index in range(ROWS) if index not in PROBED | canary]
    return samples[: len(samples) // 2 * 2]


def photographs(folder: Path) -> Path:
    rng = np.random.RandomState(0)
    for index in range(ROWS):
        path = folder / f"c{index % 4}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.randint(0, 255, (6, 6, 3)).astype("u1"))
        small.resize((24, 24), Image.Resampling.BICUBIC).save(path, quality=90)
    return folder


def exchange(folder: Path, copy: Path, samples: list[int]) -> None:
    """A copy of a folder with pictures exchanged in pairs."""
    shutil.copytree(folder, copy)
    files = sorted(copy.rglob("*.jpg"), key=lambda path: str(path.relative_to(copy)))
    for a, b in zip(samples[::2], samples[1::2], strict=True):
        first, second = files[a].read_bytes(), files[b].read_bytes()
        files[a].write_bytes(second)
        files[b].write_bytes(first)


@pytest.mark.situation(
    "pictures were exchanged since extraction, and `--accept-drift` is given since another library decodes them",
    "the first sample that is another than the teacher saw, by its number and the fingerprints of its bytes",
    exit_code=2,
    left="a run without weights",
)
@pytest.mark.parametrize(("decoder", "other"), [("pillow", "torchvision"), ("torchvision", "pillow")])
def test_exchanged_files(door: Door, decoder: str, other: str) -> None:
    """By every decoder: drift of the same pictures is accepted, other pictures are not."""
    folder = photographs(door.folder / "photos")
    store = ("--data", "folder:photos", "--data-set", f"decoder={decoder}", *CROPS)
    door.done("extract", "a.kd", *EXTRACTION, *store)
    samples = free_samples(door.folder / "a.kd")
    exchange(folder, door.folder / "other", samples)
    given = ("--data-set", f"decoder={other}", "--store", "a.kd", *TRAINING)
    assert "drift" in door.refused("train", "run", "--data", "folder:photos", *given)
    assert door.done("train", "run", "--data", "folder:photos", *given, "--accept-drift")["steps"] > 0
    message = door.refused("train", "more", "--data", "folder:other", *given, "--accept-drift")
    assert int(message.partition("sample ")[2].split()[0]) in samples


@pytest.mark.situation(
    "the same with a data set of your own that gives no bytes (`content(index)`)",
    "the first sample whose decoded values are another's, while the canary's are what they were",
    exit_code=2,
    left="a run without weights",
)
@pytest.mark.parametrize("name", ["Pictures", "WithContent"])
def test_exchanged_pictures_of_an_own_data_set(door: Door, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The transform drifts; the samples decode as they did, so their values tell as their bytes do."""
    door.write("own.py", OWN)
    door.write("parts.py", DRIFTING)
    transform = ("--transform", "parts.py:augment")
    door.done("extract", "a.kd", *EXTRACTION, "--data", f"own.py:{name}", *transform)
    assert Store.open(door.folder / "a.kd").identity.encoding.contents == ("values" if name == "Pictures" else "bytes")
    samples = free_samples(door.folder / "a.kd")
    given = ("--data", f"own.py:{name}", "--store", "a.kd", *transform, *TRAINING)
    monkeypatch.setenv("LEVELS", "2")
    door.refused("train", "run", *given)
    assert door.done("train", "run", *given, "--accept-drift")["steps"] > 0
    message = door.refused("train", "more", *given, "--accept-drift", "--data-set", f"exchanged={samples}")
    assert int(message.partition("sample ")[2].split()[0]) in samples


def test_an_own_data_set_that_decodes_otherwise_is_another(door: Door) -> None:
    """Without bytes nobody can tell its pictures from others then: 64 of them enter the identity, and must be equal."""
    door.write("own.py", OWN)
    door.done("extract", "a.kd", *EXTRACTION, "--data", "own.py:Pictures")
    given = ("--data", "own.py:Pictures", "--data-set", "off=1", "--store", "a.kd", *TRAINING)
    assert "probes" in door.refused("train", "run", *given, "--accept-drift")


@pytest.mark.parametrize("name", ["Pictures", "WithContent"])
def test_a_later_pass_over_exchanged_pictures(door: Door, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Views drift, which a later pass accepts and says; samples are those of the first pass all the same."""
    door.write("own.py", OWN)
    door.write("parts.py", DRIFTING)
    given = ("--data", f"own.py:{name}", "--transform", "parts.py:augment")
    door.done("train", "teacher", *given, *TRAINING, "--epochs", 1)
    given = (*given, *EXTRACTION, "--weights", "teacher/weights/last.safetensors")
    door.done("extract", "a.kd", *given)
    samples = free_samples(door.folder / "a.kd")
    monkeypatch.setenv("LEVELS", "2")
    message = door.refused("extract", "a.kd", *given, "--views", "2:4", "--data-set", f"exchanged={samples}")
    assert int(message.partition("sample ")[2].split()[0]) in samples, message
    assert door.done("extract", "a.kd", *given, "--views", "2:4")["notes"]
