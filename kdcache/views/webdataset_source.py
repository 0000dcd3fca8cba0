"""`webdataset:` is a folder of tar shards, or a pattern such as data/{000..012}.tar. A sample is read by its place."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.views.class_files import class_labels, read_class_names
from kdcache.views.decoding import DECODERS, decoding_of
from kdcache.views.encoded_images import Described, Opening, file_state, spec_name
from kdcache.views.label_numbers import NONE, listed
from kdcache.views.tar_index import NUMBERS, TarIndexes, Wanted

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
ELSEWHERE = re.compile(r"(pipe:|[a-z0-9+]+://)")


@dataclass(frozen=True)
class TarImages:
    """The encoded images of some plain tars: of each the number of its `shards` [N], `offsets` [N] and `sizes` [N] in
    bytes, and its name for messages. `states`: the tars as they were indexed."""

    paths: Sequence[Path]
    states: Sequence[str]
    shards: npt.NDArray[np.int32]
    offsets: IntArray
    sizes: IntArray
    names: Sequence[str]
    readers: int = 8

    def content(self, index: int) -> bytes:
        """The bytes of an image. Raises InvalidInputError where its tar is gone, or another than was indexed."""
        shard, size = int(self.shards[index]), int(self.sizes[index])
        path = self.paths[shard]
        if file_state(path) != self.states[shard]:
            raise InvalidInputError(f"{path} was changed since it was indexed; give the command again")
        try:
            with path.open("rb", buffering=0) as file:
                data = _read(file.fileno(), size, int(self.offsets[index]))
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read ({error.strerror})") from error
        if len(data) != size:
            raise InvalidInputError(f"{self.place(index)} is cut; copy the tar again")
        return data

    def place(self, index: int) -> str:
        """The tar of an image, and its name there."""
        return f"{self.paths[int(self.shards[index])]}: {self.names[index]}"

    def state(self, indices: IntArray) -> Iterable[str]:
        """The tars, and the places in them."""
        shards = np.unique(self.shards[indices]).tolist()
        places = zip(self.shards[indices].tolist(), self.offsets[indices].tolist(), strict=True)
        return [*(file_state(self.paths[shard]) for shard in shards), *map(str, places)]


def _read(descriptor: int, size: int, offset: int) -> bytes:
    """Bytes of a file, fewer where it ends; a read may give fewer than it is asked for."""
    parts: list[bytes] = []
    while size and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


def open_webdataset(
    at: Opening,
    *,
    image: str = "",
    label: str = NUMBERS,
    id: str = "",
    class_names: str = "",
    decoder: str = DECODERS[0],
    max_pixels: int | None = None,
) -> Described:
    """The samples of all shards in their order. `image` is the extension of the picture, `label` and `id` are keys of
    .json; without them labels are .cls, and ids the samples' keys. Raises InvalidInputError."""
    decoding = decoding_of("webdataset", decoder, max_pixels)
    noun = f"data webdataset:{at.place}"
    paths = shards_of(at.place)
    indexes = TarIndexes(Wanted(str(image), str(label) if at.labelled else "", str(id)))
    states, columns = [], []
    for number, path in enumerate(paths, start=1):
        states.append(file_state(path))  # before it is read, so that one that is replaced meanwhile is noticed
        columns.append(indexes.of(path))
        at.progress("indexing shards", number, len(paths))
    ids = [name for index in columns for name in index.ids]
    labels, names = np.full(len(ids), NONE, np.int32), tuple[str, ...]()
    if at.labelled:
        values = [value for index in columns for value in index.labels]
        labels, names = class_labels(values, ids, read_class_names(class_names), noun)
    source = TarImages(
        paths,
        states,
        np.repeat(np.arange(len(paths), dtype=np.int32), [len(index.keys) for index in columns]),
        np.array([offset for index in columns for offset in index.offsets], dtype=np.int64),
        np.array([size for index in columns for size in index.sizes], dtype=np.int64),
        [f"{key}.{ext}" for index in columns for key, ext in zip(index.keys, index.extensions, strict=True)],
    )
    unkept = (f"the index of the shards is not kept, and made each time: {indexes.problem}",) if indexes.problem else ()
    name = spec_name("webdataset", image=image, label=label, id=id, class_names=class_names and Path(class_names))
    return Described(source, decoding, ids, labels, names, name, unkept)


def shards_of(place: str) -> list[Path]:
    """The tars of a folder, sorted, or those that a pattern with braces names. Raises InvalidInputError."""
    if ELSEWHERE.match(place):
        raise InvalidInputError(f"data webdataset:{place} lies elsewhere; copy the shards here, and name their folder")
    folder = Path(place).expanduser()
    if folder.is_dir():
        paths = sorted(folder.glob("*.tar")) or sorted(folder.glob("*.t*gz")) or sorted(folder.glob("*.tar.*"))
        if not paths:
            raise InvalidInputError(f"data webdataset:{place} is a folder without .tar files")
        return paths
    paths = [Path(text).expanduser() for text in expanded(place)] if place else []
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InvalidInputError(
            f"data webdataset: {len(missing)} of {len(paths)} shards are not there: {listed(missing)}; name a folder "
            "of tars, or a pattern such as data/{000..012}.tar"
        )
    if not paths:
        raise InvalidInputError("data webdataset needs its shards: --data webdataset:FOLDER, or data/{000..012}.tar")
    return paths


def expanded(pattern: str) -> Iterator[str]:
    """The texts of a pattern in which {000..012} counts and {a,b} lists, as shells have them."""
    texts = BRACES.split(pattern)
    choices = [_choices(text) if number % 2 else [text] for number, text in enumerate(texts)]
    return map("".join, itertools.product(*choices))


def _choices(text: str) -> list[str]:
    if (match := RANGE.fullmatch(text)) is None:
        return text.split(",")
    first, last = match[1], match[2]
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{width}}" for number in range(int(first), int(last) + step, step)]
