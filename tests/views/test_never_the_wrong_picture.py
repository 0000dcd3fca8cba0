"""A label never meets the wrong picture: twelve mutations of data, transform and teacher, each refused by name.

Ids say where: `before` the first step, or `row`, at the first row whose pixels differ, before a step is made on it.
"""

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kdcache.errors import InvalidInputError, KdcacheError, MismatchError, ReplayError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.views import decoding
from tests.kits import pictures
from tests.kits.pictures import EACH, ROWS, Gallery, pixels_of
from tests.kits.stores import all_files

gallery = pictures.gallery
PROBED = set(np.linspace(0, ROWS - 1, 64).astype(int).tolist())


def names(root: Path) -> list[Path]:
    """The pictures in the data set's order."""
    return sorted(path for path in root.glob("*/*") if path.suffix in (".png", ".jpg"))


def file_of(root: Path, ending: str, *, probed: bool) -> Path:
    """A picture that is, or is not, among those whose contents enter the identity."""
    return next(
        path for row, path in enumerate(names(root)) if row > 20 and path.suffix == ending and (row in PROBED) == probed
    )


def reorder(root: Path) -> None:
    (root / "cat/000.png").rename(root / "cat/999.png")


def swap_two(root: Path) -> None:
    """Two pictures of one class trade names: ids, labels and probes stay as they are."""
    first, second = (
        root / "cat" / names(root)[row].name for row in [r for r in range(2, 20, 2) if r not in PROBED][:2]
    )
    first.rename(root / "keep")
    second.rename(first)
    (root / "keep").rename(second)


def delete(root: Path) -> None:
    (root / f"tissue/{EACH - 1:03d}.png").unlink()


def add(root: Path) -> None:
    shutil.copy(root / "coffee/000.png", root / "coffee/000 (copy).png")


def flip_bit(root: Path, ending: str, *, probed: bool) -> None:
    """One bit of one pixel byte; a JPEG is one bit off in its compressed pixels."""
    path = file_of(root, ending, probed=probed)
    if ending == ".png":
        pixels = pixels_of(path)
        pixels[12, 12, 1] ^= 1
        Image.fromarray(pixels).save(path)
    else:
        data = bytearray(path.read_bytes())
        data[-len(data) // 5] ^= 16
        path.write_bytes(data)


def add_class(root: Path) -> None:
    (root / "dog").mkdir()
    shutil.copy(root / "cat/000.png", root / "dog/000.png")


def swap_classes(root: Path) -> None:
    """Two class folders trade names, so that labels go to other pictures; ids and labels are as they were."""
    for old, new in (("cat", "keep"), ("eye", "cat"), ("keep", "eye")):
        (root / old).rename(root / new)


def permute_labels(root: Path) -> None:
    (root / "cat").rename(root / "zebra")


def other_split(root: Path) -> None:
    """The test pictures under the names of the training pictures."""
    shutil.rmtree(root)
    shutil.copytree(root.parent.parent / "test", root)


FOLDERS: dict[str, tuple[Callable[[Path], None], type[KdcacheError], str]] = {
    "reordered-before": (reorder, MismatchError, r"dataset\.ids: the store has"),
    "two swapped-row": (swap_two, ReplayError, r"sample \d+ \(position \d+\) is another than .* restore its file"),
    "file deleted-before": (delete, MismatchError, rf"dataset\.rows: the store has {ROWS}, this run has {ROWS - 1}"),
    "file added-before": (add, MismatchError, rf"dataset\.rows: the store has {ROWS}, this run has {ROWS + 1}"),
    "bit flipped probe-before": (lambda root: flip_bit(root, ".png", probed=True), MismatchError, r"dataset\.probes"),
    "bit flipped-row": (lambda root: flip_bit(root, ".png", probed=False), ReplayError, r"restore its file"),
    "bit flipped jpeg-row": (lambda root: flip_bit(root, ".jpg", probed=False), KdcacheError, r"(sample|decoded)"),
    "class added-before": (add_class, MismatchError, r"dataset\.class_names: the store has .*, this run has .*'dog'"),
    "labels permuted-before": (permute_labels, MismatchError, r"dataset\.labels|dataset\.class_names"),
    "class folders swapped-before": (swap_classes, MismatchError, r"dataset\.probes"),
    "other split-before": (other_split, MismatchError, r"dataset\.probes"),
}


@pytest.mark.parametrize("mutation", FOLDERS)
def test_a_changed_folder_is_refused(gallery: Gallery, tmp_path: Path, mutation: str) -> None:
    change, kind, message = FOLDERS[mutation]
    root = tmp_path / "data" / "some" / "train"
    shutil.copytree(gallery.pictures, root)
    shutil.copytree(gallery.folder / "data" / "test", tmp_path / "data" / "test")
    change(root)
    settings = gallery.student(tmp_path / "run", data=f"folder:{root}", epochs=2)
    with pytest.raises(kind, match=message):
        train(settings)
    assert not (tmp_path / "run/weights").exists()
    assert (tmp_path / "run").exists() == mutation.endswith("-row"), "where the run is claimed, steps may begin"


def test_another_split_by_name_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    asked = gallery.asked(tmp_path / "a.kd", data=f"folder:{gallery.pictures.parent}", data_set={"split": "train"})
    extract(asked)
    split: dict[str, Any] = {"data": asked.data, "store": (asked.store,)}
    train(gallery.student(tmp_path / "right", **split, data_set={"split": "train"}))
    with pytest.raises(MismatchError, match=r"dataset\.probes"):
        train(gallery.student(tmp_path / "run", **split, data_set={"split": "test"}))
    assert not (tmp_path / "run").exists()


def half_size(data: bytes, name: str, max_pixels: int | None = None) -> Image.Image:
    """Pillow's draft mode lets libjpeg decode at half the size."""
    with Image.open(BytesIO(data)) as image:
        size = image.size
        image.draft("RGB", (size[0] // 2, size[1] // 2))
        return image.convert("RGB").resize(size)


def other_library(data: bytes, name: str, max_pixels: int | None = None) -> Image.Image:
    """A JPEG library whose pixels are a level off here and there."""
    with Image.open(BytesIO(data)) as image:
        pixels = np.array(image.convert("RGB"))
    if name.endswith(".jpg"):
        pixels[::4, ::4] ^= 1
    return Image.fromarray(pixels)


@pytest.mark.parametrize("decoder", [half_size, other_library], ids=["half size-row", "a level off-row"])
def test_another_decoder_is_refused_at_the_first_row(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Callable[[Path], Image.Image]
) -> None:
    monkeypatch.setattr(decoding, "decoded_image", decoder)
    with pytest.raises(ReplayError, match=r"(drift|another picture), of 64 canary rows \d+ differ"):
        train(gallery.student(tmp_path / "run"))
    assert not (tmp_path / "run/weights").exists()


OWN = """
from torchvision import transforms as v1
from torchvision.transforms import v2


def make():
    library = {LIBRARY}
    return library.Compose([library.RandomResizedCrop(16, antialias=True), library.RandAugment()])
"""


@pytest.fixture
def own(gallery: Gallery, tmp_path: Path) -> dict[str, Any]:
    """Train's settings for a store whose views a v2 pipeline of the user's own draws."""
    (tmp_path / "own.py").write_text(OWN.replace("{LIBRARY}", "v2"))
    named = {"transform": f"{tmp_path}/own.py:make", "transform_set": {}}
    extract(gallery.asked(tmp_path / "own.kd", **named))
    return {"store": (str(tmp_path / "own.kd"),), **named}


def test_v1_transforms_for_v2_are_refused(gallery: Gallery, tmp_path: Path, own: dict[str, Any]) -> None:
    train(gallery.student(tmp_path / "right", **own))
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1/own.py").write_text(OWN.replace("{LIBRARY}", "v1"))
    with pytest.raises(MismatchError, match=r"use the transform that the store was made with"):
        train(gallery.student(tmp_path / "run", **{**own, "transform": f"{tmp_path}/v1/own.py:make"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"transform": "imagenet", "transform_set": {"size": 16, "scale": [0.4, 1.0]}},
        {"transform": "light"},
        {"mix": "cutmix"},
    ],
    ids=["arguments", "name", "mixing"],
)
def test_another_transform_is_refused(gallery: Gallery, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises((InvalidInputError, MismatchError), match=r"(?s)(drawn|mixed) by .*the settings name.*leave --"):
        train(gallery.student(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_another_seed_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    """A student's seed is its own: views have the store's, and neither a second pass nor a second store has another."""
    before = all_files(Path(gallery.store))
    for views in ("2", "2:4"):
        with pytest.raises(MismatchError, match=r"views\.seed: the store has 0, this run has 1"):
            extract(gallery.asked(gallery.store, views=views, seed=1))
    assert all_files(Path(gallery.store)) == before
    for order in ("shuffled", "given"):
        stores = [str(tmp_path / f"{order}{seed}.kd") for seed in (0, 1)]
        for seed, store in enumerate(stores):
            extract(gallery.asked(store, seed=seed, order=order, views="1"))
        with pytest.raises(MismatchError, match=r"(order|views)\.seed: the store has 0, this run has 1"):
            train(gallery.student(tmp_path / "run", store=tuple(stores)))
    assert not (tmp_path / "run").exists()


def test_another_teacher_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    state = load_file(gallery.weights)
    state["16.bias"] = state["16.bias"] + torch.tensor([1e-3, 0.0, 0.0, 0.0])
    other = str(tmp_path / "other.safetensors")
    save_file(state, other)
    before = all_files(Path(gallery.store))
    for views in ("2", "2:4"):
        with pytest.raises(
            MismatchError, match=r"teacher\.weights: the store has '\w{12}[.]+', this run has '\w{12}[.]+'"
        ):
            extract(gallery.asked(gallery.store, views=views, weights=other))
    assert all_files(Path(gallery.store)) == before
    asked = gallery.asked(gallery.store)
    teacher: dict[str, Any] = {
        "teacher": asked.teacher,
        "teacher_set": asked.teacher_set,
        "data": asked.data,
        "rows": 40,
    }
    right, wrong = (
        verify(VerifySettings(store=gallery.store, **teacher, weights=weights)) for weights in (asked.weights, other)
    )
    assert right.whole
    assert [check.name for check in wrong.checks if not check.passed] == ["teacher weights", "teacher answers"]
