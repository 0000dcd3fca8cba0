"""Decoders of encoded images: Pillow gives PIL images, torchvision u8 tensors, which crop in a third of the time.

For JPEG both give the same pixels (tests compare them bit for bit: baseline, progressive, every subsampling, grey,
CMYK, EXIF-rotated). Crops of a tensor and of a PIL image differ by a few levels, so a store belongs to one of the two.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
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
class Decoding:
    """The way from bytes to pixels: the `decoder`, one of DECODERS, and `max_pixels` of the largest picture that is
    decoded, in place of Pillow's limit."""

    decoder: str = DECODERS[0]
    max_pixels: int | None = None

    def image(self, data: bytes, name: str) -> Any:
        """The pixels of an encoded image, in RGB. Raises InvalidInputError, which begins with `name`."""
        decode = decoded_tensor if self.decoder == "torchvision" else decoded_image
        return decode(data, name, self.max_pixels)


def decoding_of(kind: str, decoder: Any, max_pixels: Any) -> Decoding:
    """The decoding that a user's arguments to a kind of data set ask for. Raises InvalidInputError."""
    if max_pixels is not None and (not isinstance(max_pixels, int) or isinstance(max_pixels, bool) or max_pixels < 1):
        raise InvalidInputError(f"data {kind}: max_pixels is {max_pixels!r}; give the pixels of the largest picture")
    if decoder not in DECODERS:
        raise InvalidInputError(f"data {kind}: decoder is {decoder!r}; choose {' or '.join(DECODERS)}")
    if decoder == "torchvision" and not hasattr(torchvision.io, "decode_image"):
        raise InvalidInputError(f"torchvision {torchvision.__version__} decodes no images; use decoder=pillow")
    return Decoding(decoder, max_pixels)


def decoded_image(data: bytes, name: str, max_pixels: int | None = None) -> Image.Image:
    """An encoded image as Pillow decodes it, in RGB. Raises InvalidInputError, which begins with `name`."""
    try:
        with _pixel_limit(max_pixels), Image.open(BytesIO(data)) as image:
            _require_few_pixels(name, image, max_pixels)
            return rgb_image(image, name)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow warns at its limit, and refuses at twice the limit
        with _pixel_limit(sys.maxsize), Image.open(BytesIO(data)) as image:
            raise _size_error(name, image, limit) from error
    except PIL.UnidentifiedImageError as error:
        reason = f"its {len(data):,} bytes are of no kind of image that Pillow knows" if data else "it is empty"
        raise InvalidInputError(f"{name} cannot be decoded ({reason})") from error
    except (OSError, SyntaxError, ValueError) as error:  # all else that Pillow raises
        raise InvalidInputError(f"{name} cannot be decoded ({error})") from error


def decoded_tensor(data: bytes, name: str, max_pixels: int | None = None) -> Tensor:
    """An encoded image as u8 [3, H, W]. Torchvision decodes JPEG; Pillow decodes all else, and what torchvision
    cannot."""
    try:
        if data.startswith(JPEG):
            if max_pixels is not None:
                with _pixel_limit(max_pixels), Image.open(BytesIO(data)) as image:
                    _require_few_pixels(name, image, max_pixels)
            jpeg = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # since 0.29; `datasets` asks whether it is there
                return torchvision.io.decode_image(jpeg, mode=torchvision.io.ImageReadMode.RGB)
    except (OSError, RuntimeError):
        pass  # Pillow decodes it, or says what is wrong with it
    return torch.from_numpy(np.array(decoded_image(data, name, max_pixels))).permute(2, 0, 1).contiguous()


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


def _require_few_pixels(name: str, image: Image.Image, max_pixels: int | None) -> None:
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise _size_error(name, image, max_pixels)


def _size_error(name: str, image: Image.Image, limit: int) -> InvalidInputError:
    pixels = image.width * image.height
    return InvalidInputError(
        f"{name} has {image.width} x {image.height} = {pixels} pixels, allowed are {limit}; allow it with --data-set "
        f"max_pixels={pixels}, or make the picture smaller"
    )
