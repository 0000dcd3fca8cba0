"""Samples become images on which transforms act: arrays by their layout, PIL images of rare modes by their range.

Torchvision's transforms pass arrays through as they are, and palette numbers for grey values. Pillow cuts 16 bits off
at 255. An 8-bit image is left as it is.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import v2

from kdcache.errors import InvalidInputError

Array = npt.NDArray[Any]

WHITE = 65535  # of 16 bits
USUAL_CHANNELS = (1, 3), (2, 4)  # the likelier ones first
WIDER = 4  # times as long as any other count of channels is an axis of pixels
BY_DTYPE = {  # what to return instead
    "float64": "astype(np.float32) where the values are normalised, (255 * array).round().astype(np.uint8) where they "
    "lie in 0..1",
    "uint16": "(array / 257).round().astype(np.uint8) where all 16 bits are used",
    "bool": "255 * array.astype(np.uint8)",
}


def is_deep(image: Image) -> bool:
    """True for an image of one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def rgb_image(image: Image, name: str) -> Image:
    """An image in RGB, deep ones scaled to 8 bits. Raises InvalidInputError, which begins with `name`, where it has no
    known range."""
    return (_read_as_today(image) or eight_bits(image, name) if is_deep(image) else image).convert("RGB")


def _read_as_today(image: Image) -> Image | None:
    """A deep image of a format without a range whose values are those of 8 bits, in mode L; None for any other."""
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        return None
    values = np.asarray(image)
    is_whole = image.mode == "I" or bool((values == np.floor(values)).all() and (values.max() > 1 or not values.any()))
    return image.convert("L") if is_whole and values.min() >= 0 and values.max() <= 255 else None


def eight_bits(image: Image, name: str) -> Image:
    """A deep image in mode L, scaled by the range of 16 bits. Raises InvalidInputError, which begins with `name`, where
    its range is not known."""
    values = np.asarray(image)
    lowest, highest = values.min(), values.max()
    problem = f"{name} has pixels of mode {image.mode}, from {lowest:g} to {highest:g}"
    if image.mode == "F" or not 0 <= lowest <= highest <= WHITE:
        raise InvalidInputError(
            f"{problem}, of which no range is known: scale them to 8 bits (0 black, 255 white), in mode L or RGB"
        )
    if 0 < highest <= 255 and not image.mode.startswith("I;16") and image.format != "PPM":
        raise InvalidInputError(
            f"{problem}: they may have 8 bits (0..255), or a dark image's 16 (0..65535); give them in mode L or I;16"
        )
    return PIL.Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))


def plain_image(image: Image, name: str, *, deep: bool) -> Image:
    """An image on which transforms act: two levels in mode L, a palette in RGB, and where `deep` 16 bits in L. Raises
    InvalidInputError."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA").convert("RGB")  # the colours that ImageFolder gives, without a warning
    if deep and is_deep(image) and image.mode != "F":
        return eight_bits(image, name)
    return image


def array_image(array: Array, name: str) -> Image | Tensor:
    """A sample's array [H, W], [H, W, ch] or [ch, H, W] as an image: u8 of one or three channels a PIL image, other u8
    and floats a tensor [ch, H, W]. Raises InvalidInputError, which begins with `name`, for other dtypes and shapes."""
    if array.dtype.newbyteorder("=") not in (np.uint8, np.float32, np.float16):
        default = "astype(np.uint8) where the values are from 0 to 255"
        raise InvalidInputError(
            f"{name} is an array of dtype {array.dtype} and shape {list(array.shape)}; images are uint8, or float32 "
            f"once normalised: return {BY_DTYPE.get(array.dtype.name, default)}"
        )
    values = channels_first(array, name)
    if values.dtype == np.uint8 and len(values) in (1, 3):
        return PIL.Image.fromarray(np.ascontiguousarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0)))
    return array_tensor(values)


def channels_first(array: Array, name: str) -> Array:
    """An array as [ch, H, W]. Raises InvalidInputError, which begins with `name`, where its shape has two readings, or
    none."""
    if array.ndim == 2 and array.size:
        return array[None]
    if array.ndim != 3 or not array.size:
        raise InvalidInputError(
            f"{name} is an array of shape {list(array.shape)}; an image is [height, width], [height, width, channels] "
            "or [channels, height, width]"
        )
    return array if _has_channels_first(array, name) else array.transpose(2, 0, 1)


def _has_channels_first(array: Array, name: str) -> bool:
    first, last = array.shape[0], array.shape[2]
    for counts in USUAL_CHANNELS:
        if (first in counts) != (last in counts):
            return first in counts
        if first in counts:
            break
    else:
        if last < first:
            return False
        if WIDER * first <= last:
            return True
    raise InvalidInputError(
        f"{name} is an array of shape {list(array.shape)}, which may be [height, width, channels] with {last} channels "
        f"or [channels, height, width] with {first}: return a tensor [channels, height, width] or a PIL image"
    )


def array_tensor(array: Array) -> Tensor:
    """The values of an array as a tensor in memory of its own."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor that numpy reads: on the host, without gradient, bfloat16 as float32."""
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def view_tensor(image: Any, name: str) -> Tensor:
    """A view as a plain contiguous tensor [channels, height, width], u8 from images, or as the transform left it.

    Raises InvalidInputError, which begins with `name`, for what is no image."""
    if isinstance(image, Image):
        image = v2.functional.to_image(plain_image(image, name, deep=True))
    elif isinstance(image, np.ndarray):
        try:
            image = array_tensor(channels_first(image, name))
        except TypeError as error:
            raise InvalidInputError(f"{name} is an array of dtype {image.dtype}; give uint8 or float32") from error
    if not isinstance(image, Tensor):
        raise InvalidInputError(
            f"{name} is a {type(image).__name__}; a view is a tensor [channels, height, width], a PIL image or an array"
        )
    tensor = plain_tensor(image.as_subclass(Tensor)).contiguous()
    if tensor.ndim != 3 or not tensor.numel():
        raise InvalidInputError(f"{name} has shape {list(tensor.shape)}; a view is [channels, height, width]")
    return tensor


def difference_error(one: Array, other: Array, indices: tuple[int, int] | None = None) -> InvalidInputError:
    """The error for views [ch, H, W] of two shapes or dtypes, which no batch can hold, of samples `indices`."""
    names = [f"sample {index} gives " for index in indices or ()] or ["", ""]
    texts = [f"{name}{list(image.shape)} torch.{image.dtype}" for name, image in zip(names, (one, other), strict=True)]
    advice = "use a transform that ends in one size, for example --transform imagenet or center"
    if one.dtype != other.dtype:
        advice = f"give all samples in one dtype, {one.dtype} or {other.dtype}"
    elif one.shape[0] != other.shape[0]:
        counts = f"{one.shape[0]} and {other.shape[0]} channels"
        advice = (
            f"they have {counts}: give all samples in one mode, for example by image.convert('RGB') in the data set"
        )
    return InvalidInputError(f"views differ: {' and '.join(texts)}; {advice}")
