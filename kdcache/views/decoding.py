"""Decoders of image files: Pillow gives PIL images, torchvision u8 tensors, which crop in a third of the time.

For JPEG both give the same pixels (tests compare them bit for bit: baseline, progressive, every subsampling, grey,
CMYK, EXIF-rotated). Crops of a tensor and of a PIL image differ by a few levels, so a store belongs to one of the two.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
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
from kdcache.views.images import rgb_image

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
    """Samples that are image files of a folder, named by their paths in it and decoded to RGB. `max_pixels`: of the
    largest picture that is decoded, in place of Pillow's limit."""

    root: Path
    names: Sequence[str]
    labels: npt.NDArray[np.int32]
    decoder: str
    max_pixels: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        decode = decoded_tensor if self.decoder == "torchvision" else decoded_image
        return decode(self.root / self.names[index], self.max_pixels), int(self.labels[index])

    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises InvalidInputError, which names it."""
        path = self.root / self.names[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read ({error})") from error


def decoded_image(path: Path, max_pixels: int | None = None) -> Image.Image:
    """An image file as Pillow decodes it, in RGB. Raises InvalidInputError, which names the file."""
    try:
        with _pixel_limit(max_pixels), Image.open(path) as image:
            _require_few_pixels(path, image, max_pixels)
            return rgb_image(image, str(path))
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow warns at its limit, and refuses at twice the limit
        with _pixel_limit(sys.maxsize), Image.open(path) as image:
            raise _size_error(path, image, limit) from error
    except (OSError, SyntaxError, ValueError) as error:  # all else that Pillow raises
        raise InvalidInputError(f"{path} cannot be decoded ({error})") from error


def decoded_tensor(path: Path, max_pixels: int | None = None) -> Tensor:
    """An image file as u8 [3, H, W]. Torchvision decodes JPEG; Pillow decodes all else, and what torchvision cannot."""
    try:
        data = path.read_bytes()
        if data.startswith(JPEG):
            if max_pixels is not None:
                with _pixel_limit(max_pixels), Image.open(BytesIO(data)) as image:
                    _require_few_pixels(path, image, max_pixels)
            jpeg = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # since 0.29; `datasets` asks whether it is there
                return torchvision.io.decode_image(jpeg, mode=torchvision.io.ImageReadMode.RGB)
    except (OSError, RuntimeError):
        pass  # Pillow decodes it, or says what is wrong with it
    return torch.from_numpy(np.array(decoded_image(path, max_pixels))).permute(2, 0, 1).contiguous()


@contextmanager
def _pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Lift Pillow's own limit, which is the process's, where another one is given."""
    limit = Image.MAX_IMAGE_PIXELS
    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _require_few_pixels(path: Path, image: Image.Image, max_pixels: int | None) -> None:
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise _size_error(path, image, max_pixels)


def _size_error(path: Path, image: Image.Image, limit: int) -> InvalidInputError:
    pixels = image.width * image.height
    return InvalidInputError(
        f"{path} has {image.width} x {image.height} = {pixels} pixels, allowed are {limit}; allow it with --data-set "
        f"max_pixels={pixels}, or make the picture smaller"
    )
