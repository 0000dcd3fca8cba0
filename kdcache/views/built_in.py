"""Built-in data sets, whose images lie in memory: scikit-learn's digits, and Fashion-MNIST's files."""

import gzip
import hashlib
import importlib.util
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.views.encoded_images import Opening

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SIDE = 28  # pixels, of its images


@dataclass(frozen=True)
class Tensors:
    """Images in memory, u8 [N, 1, H, W], with labels [N] i32."""

    images: torch.Tensor
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], int(self.labels[index])

    def content(self, index: int) -> bytes:
        """The pixels of an image, row by row."""
        return self.images[index].numpy().tobytes()

    decoder = ""  # of pixels that were never encoded
    readers = 1

    def state(self, indices: IntArray) -> Iterable[str]:
        """A digest of the images."""
        images = self.images.numpy()[indices]
        return [f"{list(images.shape)}", hashlib.sha256(images.tobytes()).hexdigest()]


@dataclass(frozen=True)
class BuiltIn:
    """A built-in data set by its spec without folders, `name`."""

    samples: Tensors
    class_names: Sequence[str]
    name: str


def open_digits(at: Opening, *, split: str = "train") -> BuiltIn:
    """`digits`, see `load_digits`."""
    return load_digits(split)


def open_fashion_mnist(at: Opening, *, split: str = "train", side: int = SIDE) -> BuiltIn:
    """`fashion-mnist:FOLDER`, see `load_fashion_mnist`."""
    if not at.place:
        raise InvalidInputError("data fashion-mnist needs its folder of .gz files: --data fashion-mnist:FOLDER")
    return load_fashion_mnist(at.path, split, side)


def load_digits(split: str = "train") -> BuiltIn:
    """scikit-learn's 1,797 digits of 8 x 8 pixels; every fifth is the test split. Its file is read without importing
    scikit-learn, which takes seconds."""
    table = np.loadtxt(_of_package("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    is_test = np.arange(len(labels)) % 5 == 4
    rows = {"train": ~is_test, "test": is_test, "all": np.ones_like(is_test)}.get(split)
    if rows is None:
        raise InvalidInputError(f"data digits: split is {split!r}; choose train, test or all")
    pixels = (images[rows] * 15).astype(np.uint8)
    return BuiltIn(_tensors(pixels, labels[rows]), [str(digit) for digit in range(10)], f"digits split={split}")


def _of_package(package: str, file: str) -> Path:
    """A file that an installed package brings, without importing it."""
    spec = importlib.util.find_spec(package)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / file
    if path is None or not path.is_file():
        raise InvalidInputError(f"data digits: the installed {package} has no {file}; pip install scikit-learn")
    return path


def load_fashion_mnist(folder: Path, split: str = "train", side: int = SIDE) -> BuiltIn:
    """Fashion-MNIST (Xiao et al. 2017) as gzipped IDX files: 60,000 for training, 10,000 for test.

    side: of smaller images, whose pixels are means over squares of the original, rounded half to even.
    """
    prefix = {"train": "train", "test": "t10k"}.get(split)
    if prefix is None:
        raise InvalidInputError(f"data fashion-mnist: split is {split!r}; choose train or test")
    if not isinstance(side, int) or isinstance(side, bool) or side < 1 or SIDE % side:
        sides = ", ".join(str(number) for number in range(1, SIDE + 1) if SIDE % number == 0)
        raise InvalidInputError(f"data fashion-mnist: side is {side!r}, of images of {SIDE} x {SIDE}; choose {sides}")
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    if len(images) != len(labels):
        raise InvalidInputError(f"data fashion-mnist: {folder} has {len(labels)} labels for {len(images)} images")
    name = f"fashion-mnist split={split}"
    if side != SIDE:
        images, name = shrunk(images, side), f"{name} side={side}"
    return BuiltIn(_tensors(images, labels), FASHION, name)


def shrunk(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Images [N, H, H] u8 as [N, side, side]: means over squares, rounded half to even; side divides H."""
    square = images.shape[1] // side
    means = images.reshape(len(images), side, square, side, square).mean(axis=(2, 4))
    pixels: npt.NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return pixels


def _tensors(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> Tensors:
    return Tensors(torch.from_numpy(images.copy())[:, None], labels.astype(np.int32))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of a gzipped IDX file of bytes. Raises InvalidInputError where header and length disagree."""
    try:
        with gzip.open(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInputError(
            f"{path} cannot be read ({error}); on Debian: apt install dataset-fashion-mnist"
        ) from error
    axes = data[3] if len(data) > 3 and data[:3] == b"\0\0\x08" else 0
    shape = tuple(int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    body = data[4 + 4 * axes :]
    if not axes or len(body) != int(np.prod(shape)):
        raise InvalidInputError(f"{path} is no IDX file of bytes: its header says {shape}, it has {len(body)} bytes")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
