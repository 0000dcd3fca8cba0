"""Decoders of image files: Pillow gives PIL images, torchvision u8 tensors, which crop in a third of the time.

For JPEG both give the same pixels (tests compare them bit for bit: baseline, progressive, every subsampling, grey,
CMYK, EXIF-rotated). Crops of a tensor and of a PIL image differ by a few levels, so a store belongs to one of the two.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor

from kdcache.errors import InvalidInputError

DECODERS = ("pillow", "torchvision")
JPEG = b"\xff\xd8\xff"


def decoder_name(decoder: str) -> str:
    """A decoder as provenance names it: the library and its version."""
    return f"torchvision {torchvision.__version__}" if decoder == "torchvision" else f"Pillow {PIL.__version__}"


def decoder_kind(name: str) -> str:
    """The library that a provenance's decoder names, as `--data-set decoder=` takes it; "" for any other decoder."""
    kind = name.partition(" ")[0].lower()
    return kind if kind in DECODERS else ""


@dataclass(frozen=True)
class ImageFiles:
    """Samples that are image files of a folder, named by their paths in it and decoded to RGB."""

    root: Path
    names: Sequence[str]
    labels: npt.NDArray[np.int32]
    decoder: str

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        decode = decoded_tensor if self.decoder == "torchvision" else decoded_image
        return decode(self.root / self.names[index]), int(self.labels[index])

    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises InvalidInputError, which names it."""
        path = self.root / self.names[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read ({error}); mend or remove the file") from error


def decoded_image(path: Path) -> Image.Image:
    """An image file as Pillow decodes it, in RGB. Raises InvalidInputError, which names the file."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all that Pillow raises
        raise InvalidInputError(f"{path} cannot be decoded ({error}); mend or remove the file") from error


def decoded_tensor(path: Path) -> Tensor:
    """An image file as u8 [3, H, W]. Torchvision decodes JPEG; Pillow decodes all else, and what torchvision cannot."""
    try:
        data = path.read_bytes()
        if data.startswith(JPEG):
            jpeg = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # since 0.29; `datasets` asks whether it is there
                return torchvision.io.decode_image(jpeg, mode=torchvision.io.ImageReadMode.RGB)
    except (OSError, RuntimeError):
        pass  # Pillow decodes it, or says what is wrong with it
    return torch.from_numpy(np.array(decoded_image(path))).permute(2, 0, 1).contiguous()
