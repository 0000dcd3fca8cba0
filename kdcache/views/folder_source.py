"""`folder:` is a folder of images for each class, or one flat folder with a file of labels, as ImageNet's val is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.views.class_files import class_labels, read_class_names, read_labels
from kdcache.views.decoding import DECODERS, decoding_of
from kdcache.views.encoded_images import Described, Opening, file_state, read_bytes, spec_name
from kdcache.views.image_folder import list_flat, list_images


@dataclass(frozen=True)
class ImageFiles:
    """Image files of a folder, named by their paths in it."""

    root: Path
    names: Sequence[str]
    readers: int = 8

    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises InvalidInputError, which names it."""
        return read_bytes(self.root / self.names[index])

    def place(self, index: int) -> str:
        """The path of a file."""
        return str(self.root / self.names[index])

    def state(self, indices: IntArray) -> Iterable[str]:
        """Name, size and time of each file."""
        return (f"{self.names[i]}\0{file_state(self.root / self.names[i])}" for i in indices.tolist())


def open_folder(
    at: Opening,
    *,
    split: Any = "",
    decoder: str = DECODERS[0],
    max_pixels: int | None = None,
    hidden: bool = False,
    labels: str = "",
    class_names: str = "",
) -> Described:
    """The images of PATH/SPLIT/CLASS/, or those of PATH/SPLIT/ itself with `labels`, a file. `class_names`: a file that
    names the classes. Raises InvalidInputError."""
    root = at.path / str(split)
    decoding = decoding_of("folder", decoder, max_pixels)
    if not isinstance(hidden, bool):
        raise InvalidInputError(f"data folder: hidden is {hidden!r}; give true to take hidden folders too, or false")
    classes = read_class_names(class_names)
    if labels:
        names = list_flat(root)
        values: Sequence[str] = read_labels(labels, names)
        notes: tuple[str, ...] = ()
    else:
        images = list_images(root, hidden=hidden)
        names, notes = images.names, images.notes
        values = [images.class_names[number] for number in images.numbers]
    if labels or classes is not None:
        numbers, texts = class_labels(values, names, classes, f"data folder: {root}")
    else:
        numbers, texts = np.asarray(images.numbers, dtype=np.int32), images.class_names
    name = spec_name(
        "folder", split=split, labels=labels and Path(labels), class_names=class_names and Path(class_names)
    )
    return Described(ImageFiles(root, names), decoding, names, numbers, texts, name, notes)
