"""Good code of users: data sets, transforms and networks in all forms that kdcache takes, named as `file.py:callable`.

It imports nothing of the tests. Data sets of pictures take the `root` of an image folder; digits are scikit-learn's.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from torchvision import transforms as v1
from torchvision.transforms import v2

from kdcache.networks import convnet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _folder(root: str) -> torchvision.datasets.ImageFolder:
    return torchvision.datasets.ImageFolder(root)


def _u8(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _normalised(image: Any) -> Tensor:
    return v2.functional.normalize(_u8(image) / 255, list(MEAN), list(STD))


def _digits(rows: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    bunch = load_digits()
    return (bunch.images[:rows] * 15).astype(np.uint8), bunch.target[:rows]


FORMS: dict[str, Callable[[Image.Image], Any]] = {
    "pil": lambda image: image,
    "u8": _u8,
    "array": lambda image: np.array(image),
    "floats": _normalised,
}
LABELS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tensor": torch.tensor,
    "array": np.array,
    "u8": lambda labels: np.array(labels, dtype=np.uint8),
    "i16": lambda labels: np.array(labels, dtype=np.int16),
    "whole-floats": lambda labels: torch.tensor(labels, dtype=torch.float32),
    "booleans": lambda labels: [bool(label) for label in labels],
    "none": lambda labels: [None] * len(labels),
    "half": lambda labels: [label if row % 2 else None for row, label in enumerate(labels)],
    "half-minus": lambda labels: [label if row % 2 else -1 for row, label in enumerate(labels)],
    "scalars": lambda labels: [torch.tensor(label) for label in labels],
}


class Pictures(Dataset[Any]):
    """An image folder whose images and labels have the forms that are asked for; it names classes and ids on request.
    `attribute` holds the labels; where it is empty, the rows alone do."""

    def __init__(
        self,
        root: str,
        form: str = "pil",
        labels: str = "list",
        attribute: str = "targets",
        names: bool = True,
        ids: bool = False,
    ) -> None:
        inner = _folder(root)
        self.inner, self.form = inner, FORMS[form]
        self.row_labels = LABELS[labels](inner.targets)
        if attribute:
            setattr(self, attribute, self.row_labels)
        if names:
            self.classes = inner.classes
        if ids:
            self.ids = [f"{Path(path).name} of {label}" for path, label in inner.samples]

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.form(self.inner[index][0]), self.row_labels[index]


class Encoded(Pictures):
    """Pictures that also give their files' bytes."""

    def content(self, index: int) -> bytes:
        return Path(self.inner.samples[index][0]).read_bytes()


class Longer(Pictures):
    """Pictures whose rows are lists, and hold the file's path as well."""

    def __getitem__(self, index: int) -> Any:
        return [*super().__getitem__(index), self.inner.samples[index][0]]


def subset(root: str) -> Subset[Any]:
    return Subset(_folder(root), range(0, len(_folder(root)), 2))


def half(root: str) -> Subset[Any]:
    return random_split(_folder(root), [0.5, 0.5], torch.Generator().manual_seed(0))[0]


def twice(first: str, second: str) -> ConcatDataset[Any]:
    return ConcatDataset([_folder(first), _folder(second)])


def pairs(root: str) -> list[tuple[Image.Image, int]]:
    return list(_folder(root))


def tensors(root: str) -> TensorDataset:
    folder = _folder(root)
    return TensorDataset(torch.stack([_u8(image) for image, _ in folder]), torch.tensor(folder.targets))


class Digits(Dataset[Any]):
    """The first digits, without class names, each a grey PIL image or, on request, an array [8, 8]."""

    def __init__(self, rows: int = 120, array: bool = False) -> None:
        self.images, self.labels = _digits(rows)
        self.array = array

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        return image if self.array else Image.fromarray(image), int(self.labels[index])


# Transforms.


def jitter(size: int = 16) -> nn.Module:
    return v2.Compose([
        v2.RandomResizedCrop(size, (0.6, 1.0), antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2),
    ])  # fmt: skip


def floats(size: int = 16) -> nn.Module:
    return v2.Compose([
        v2.ToImage(), v2.RandomResizedCrop(size, (0.6, 1.0), antialias=True), v2.RandomErasing(0.2),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])  # fmt: skip


def older(size: int = 16) -> Any:
    return v1.Compose([v1.RandomCrop(size), v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize(MEAN, STD)])


def of_timm(size: int = 16) -> Any:
    from timm.data import create_transform

    return create_transform(size, is_training=True, auto_augment=None, scale=(0.6, 1.0))


def of_numpy() -> Callable[[Any], npt.NDArray[np.uint8]]:
    """Crops and flips an array [H, W, 3] by numpy's global generator."""

    def crop(image: Any) -> npt.NDArray[np.uint8]:
        pixels = np.array(image)
        top, left = np.random.randint(0, pixels.shape[0] - 16 + 1, 2)
        window = pixels[top : top + 16, left : left + 16]
        return np.ascontiguousarray(window[:, ::-1] if np.random.rand() < 0.5 else window)

    return crop


def of_random() -> Callable[[Any], Any]:
    """Turns a PIL image by an angle from `random`, in place of which nothing else is drawn."""
    return lambda image: image.rotate(random.randrange(-9, 10))


def to_u8(size: int = 16) -> Callable[[Any], Tensor]:
    crop = v2.RandomCrop(size)
    return lambda image: crop(_u8(image))


# Networks. `Wrapped` is the plain convnet, whose answer is changed in a way that leaves it an answer.


class Wrapped(nn.Sequential):
    """A convnet, under the names of its own layers, and a change of its logits [B, C]."""

    def __init__(self, network: nn.Sequential, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(*network)
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(super().forward(images))


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "log-probabilities": lambda logits: logits.log_softmax(dim=1),
    "sharp": lambda logits: 100 * logits,
    "flat": lambda logits: logits / 20,
    "shifted": lambda logits: logits + 1000,
    "f16": lambda logits: logits.half(),
    "f64": lambda logits: logits.double(),
    "masked": lambda logits: torch.cat([logits, torch.full_like(logits[:, :2], -torch.inf)], dim=1),
    "more": lambda logits: torch.cat([logits, logits[:, :2] - 12], dim=1),
    "two": lambda logits: logits[:, :2],
}


def changed(change: str, width: int = 8, channels: int = 3, classes: int = 4) -> Wrapped:
    return Wrapped(convnet(width=width, channels=channels, num_classes=classes), CHANGES[change])


def in_parts(parts: Sequence[int] = (8, 8), num_classes: int = 4) -> nn.Module:
    """A network of its own making: strided convolutions and a mean over pixels, without a linear head."""
    layers: list[nn.Module] = []
    channels = 3
    for width in parts:
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GELU()]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
