"""A cache of decoded samples, for data whose views do not fit: a file holds one image, u8, as its decoder gave it.

A file is made whole, with a mark: 64 bits of xxh3 over its pixels, seeded by key, sample, form and contents.
"""

import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import xxhash

from kdcache.views.cache_folder import CacheFolder, Fingerprints

HEAD = struct.Struct("<8sQ4I2I")  # magic, mark, form, three axes, content fingerprints
MAGIC = b"kdimage1"
MODES = ("RGB", "L")  # of Pillow's images that are kept; the form after them is a tensor [ch, H, W] u8
TENSOR = len(MODES)


class DecodedCache:
    """Decoded samples by their index, of `samples`, under a folder's key. `serves` False: they are kept, none is
    served."""

    def __init__(self, folder: CacheFolder, samples: int, *, serves: bool = True) -> None:
        self.folder, self.samples, self.serves = folder, samples, serves
        self._seed = int(folder.name[:16], 16)

    def keeping(self) -> "DecodedCache":
        """The same cache, of which nothing is served."""
        return DecodedCache(self.folder, self.samples, serves=False)

    def get(self, index: int) -> tuple[Any, Fingerprints] | None:
        """The image of a sample and its content fingerprints; None where it is not here, whole."""
        descriptor = self.folder.open(_name(index))
        if descriptor is None:
            return None
        try:
            if (size := os.fstat(descriptor).st_size) <= HEAD.size:
                return None
            memory = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        except OSError:  # no memory or no descriptor for the map
            return None
        finally:
            os.close(descriptor)
        magic, mark, form, *axes, first, second = HEAD.unpack_from(memory)
        pixels = np.frombuffer(memory, np.uint8, offset=HEAD.size)
        if magic != MAGIC or form > TENSOR or int(np.prod(axes, dtype=object)) != len(pixels):
            return None
        pixels = pixels.reshape(axes)
        if self._mark(index, form, (first, second), pixels) != mark:
            return None
        return _image(pixels, form), (first, second)

    def keep(self, index: int, image: Any, fingerprints: Fingerprints) -> bool:
        """Keep the image of a sample in place of what is there. False where there is no room, or where it is no image
        of 8 bits in RGB, L or a tensor [ch, H, W]."""
        if (values := _pixels(image)) is None:
            return False
        pixels, form = values
        head = HEAD.pack(MAGIC, self._mark(index, form, fingerprints, pixels), form, *pixels.shape, *fingerprints)

        def write(descriptor: int) -> None:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(head)
                file.write(pixels.data)

        if not self.serves:
            self.folder.remove(_name(index))
        return self.folder.make(_name(index), HEAD.size + pixels.nbytes, write)

    def held(self, views: Sequence[int]) -> tuple[int, int]:
        """The numbers of samples that there are, whatever the views, and that there may be."""
        return len(self.folder.names()), self.samples

    def _mark(self, index: int, form: int, fingerprints: Fingerprints, pixels: npt.NDArray[np.uint8]) -> int:
        key = struct.pack("<QI3I2I", index, form, *pixels.shape, *fingerprints)
        return xxhash.xxh3_64_intdigest(pixels.data, seed=xxhash.xxh3_64_intdigest(key, seed=self._seed))


def _pixels(image: Any) -> tuple[npt.NDArray[np.uint8], int] | None:
    """The values of an image that can be kept, with three axes, and its form."""
    if isinstance(image, PIL.Image.Image):
        if image.mode not in MODES or (image.mode == "RGB" and "transparency" in image.info):
            return None
        values = np.asarray(image)
        return np.ascontiguousarray(values.reshape(*values.shape[:2], -1)), MODES.index(image.mode)
    is_plain = type(image) is torch.Tensor and image.dtype == torch.uint8 and image.ndim == 3
    return (np.ascontiguousarray(image.numpy()), TENSOR) if is_plain and image.device.type == "cpu" else None


def _image(pixels: npt.NDArray[np.uint8], form: int) -> Any:
    """The image of values as they were kept, in memory of its own."""
    if form == TENSOR:
        return torch.from_numpy(pixels.copy())
    return PIL.Image.fromarray(pixels[:, :, 0] if MODES[form] == "L" else pixels)


def _name(index: int) -> str:
    return f"{index:010d}"
