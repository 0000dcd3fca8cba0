"""Data sets by name, and the identity of one: digests over ids and labels of all samples, and contents of some."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision

from kdcache.base.arrays import values_digest
from kdcache.base.specs import call, load_callable, portable_name
from kdcache.errors import InvalidInputError
from kdcache.store.manifest import DatasetIdentity
from kdcache.views.contents import image_bytes
from kdcache.views.decoding import DECODERS, ImageFiles, decoder_name
from kdcache.views.draw import Samples

PROBES = 64  # samples whose contents enter the identity, evenly spaced


@dataclass(frozen=True)
class Data:
    """A data set: its samples, and their `ids` and `labels` [N] i32 in dataset order.

    `probe(i)` gives the contents of sample i as bytes; `name` is the spec without this machine's folders; `decoder` is
    the library that makes pixels of files.
    """

    samples: Samples
    ids: Sequence[str]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]
    probe: Callable[[int], bytes]
    name: str
    decoder: str = "none"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Classes by name, or else one more than the largest label; 0 where nothing is labelled."""
        return len(self.class_names) or int(self.labels.max(initial=-1)) + 1

    def identity(self) -> DatasetIdentity:
        """Digests over all ids and labels, and over the contents of 64 samples."""
        rows = len(self)
        ids = hashlib.sha256()
        for name in self.ids:
            ids.update(name.encode("utf-8", "surrogateescape") + b"\n")
        contents = hashlib.sha256()
        for index in np.unique(np.linspace(0, rows - 1, min(PROBES, rows)).astype(int)).tolist():
            contents.update(hashlib.sha256(self.probe(index)).digest())
        return DatasetIdentity(
            rows=rows,
            ids=ids.hexdigest(),
            labels=values_digest(self.labels),
            probes=contents.hexdigest(),
            class_names=self.class_names,
        )


def open_data(spec: str, arguments: dict[str, Any]) -> Data:
    """The data set of a spec: digits, fashion-mnist:FOLDER, folder:PATH, torchvision:NAME, or a user's callable.

    Every kind takes `limit`, which keeps the first so many samples. Raises InvalidInputError.
    """
    arguments = dict(arguments)
    limit = arguments.pop("limit", None)
    kind, _, place = spec.partition(":")
    if kind in _KINDS:
        data = _KINDS[kind](place, arguments)
    elif ":" in spec:
        samples = call(load_callable(spec, "data"), arguments, f"data {spec}")
        data = describe_samples(samples, portable_name(spec))
    else:
        forms = "digits, fashion-mnist:FOLDER, folder:PATH, torchvision:NAME, package.module:callable, file.py:callable"
        raise InvalidInputError(f"there is no data set {spec!r}; choose {forms}")
    if len(data) == 0:
        raise InvalidInputError(f"data {spec} has no samples; check its path and its split")
    return data if limit is None else _limited(data, limit)


def describe_samples(samples: Any, name: str) -> Data:
    """Ids, labels and class names of a data set object: from its attributes, or by one pass over it.

    Looks for `ids`, or the paths in `samples` under `root`; `labels` or `targets`; `class_names` or `classes`.
    """
    if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        raise InvalidInputError(f"data {name} is a {type(samples).__name__}; it must have a length and be indexable")
    rows = len(samples)
    labels = _attribute(samples, "labels", "targets")
    if labels is None:
        labels = [samples[index][1] for index in range(rows)]
    ids = getattr(samples, "ids", None)
    if ids is None and hasattr(samples, "root") and isinstance(getattr(samples, "samples", None), list):
        ids = [os.path.relpath(entry[0], samples.root) for entry in samples.samples]  # torchvision's image folders
    class_names = _attribute(samples, "class_names", "classes")
    return Data(
        samples=samples,
        ids=[str(index) for index in range(rows)] if ids is None else [str(sample_id) for sample_id in ids],
        labels=_as_labels(labels, rows, name),
        class_names=tuple(map(str, class_names)) if isinstance(class_names, list | tuple) else (),
        probe=lambda index: image_bytes(samples[index][0]),
        name=name,
        decoder=decoder_name("pillow"),
    )


def _attribute(samples: Any, *names: str) -> Any:
    return next((getattr(samples, name) for name in names if getattr(samples, name, None) is not None), None)


def _as_labels(labels: Any, rows: int, name: str) -> npt.NDArray[np.int32]:
    try:
        values = np.asarray([-1 if label is None else int(label) for label in labels], dtype=np.int32)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"data {name}: labels must be class numbers or None ({error})") from error
    if len(values) != rows:
        raise InvalidInputError(f"data {name} has {len(values)} labels for {rows} samples")
    return values


@dataclass(frozen=True)
class _Tensors:
    """Images in memory, u8 [N, 1, H, W]."""

    images: torch.Tensor
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], int(self.labels[index])

    def content(self, index: int) -> bytes:
        """The pixels of an image, row by row."""
        return self.images[index].numpy().tobytes()


def _in_memory(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any], class_names: Sequence[str], name: str) -> Data:
    samples = _Tensors(torch.from_numpy(images.copy())[:, None], labels.astype(np.int32))
    return Data(
        samples=samples,
        ids=[str(index) for index in range(len(labels))],
        labels=samples.labels,
        class_names=tuple(class_names),
        probe=lambda index: image_bytes(samples.images[index]),
        name=name,
    )


def _digits(place: str, arguments: dict[str, Any]) -> Data:
    data: Data = call(_load_digits, arguments, "data digits")
    return data


def _load_digits(split: str = "train") -> Data:
    """scikit-learn's 1,797 digits of 8 x 8 pixels; every fifth is the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InvalidInputError("data digits needs scikit-learn; pip install 'kdcache[demo]'") from error
    bunch = load_digits()
    is_test = np.arange(len(bunch.target)) % 5 == 4
    rows = {"train": ~is_test, "test": is_test, "all": np.ones_like(is_test)}.get(split)
    if rows is None:
        raise InvalidInputError(f"data digits: split is {split!r}; choose train, test or all")
    images = (bunch.images[rows] * 15).astype(np.uint8)
    return _in_memory(images, bunch.target[rows], [str(digit) for digit in range(10)], f"digits split={split}")


_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def _fashion_mnist(place: str, arguments: dict[str, Any]) -> Data:
    if not place:
        raise InvalidInputError("data fashion-mnist needs its folder of .gz files: --data fashion-mnist:FOLDER")
    data: Data = call(_load_fashion_mnist, {"folder": Path(place), **arguments}, "data fashion-mnist")
    return data


def _load_fashion_mnist(folder: Path, split: str = "train") -> Data:
    """Fashion-MNIST (Xiao et al. 2017) as gzipped IDX files: 60,000 for training, 10,000 for test."""
    prefix = {"train": "train", "test": "t10k"}.get(split)
    if prefix is None:
        raise InvalidInputError(f"data fashion-mnist: split is {split!r}; choose train or test")
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return _in_memory(images, labels, _FASHION, f"fashion-mnist split={split}")


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


def _folder(place: str, arguments: dict[str, Any]) -> Data:
    arguments = dict(arguments)
    root = Path(place) / str(arguments.pop("split", ""))
    decoder = str(arguments.pop("decoder", DECODERS[0]))
    if arguments:
        raise InvalidInputError(f"data folder takes split, decoder and limit, not {', '.join(arguments)}")
    if decoder not in DECODERS:
        raise InvalidInputError(f"data folder: decoder is {decoder!r}; choose {' or '.join(DECODERS)}")
    if decoder == "torchvision" and not hasattr(torchvision.io, "decode_image"):
        raise InvalidInputError(f"torchvision {torchvision.__version__} decodes no images; use decoder=pillow")
    try:
        images = torchvision.datasets.ImageFolder(str(root))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInputError(
            f"data folder: {root} is no folder with a folder of images a class ({error})"
        ) from error
    ids = [Path(path).relative_to(root).as_posix() for path, _ in images.samples]
    labels = np.asarray(images.targets, dtype=np.int32)
    return Data(
        samples=ImageFiles(root, ids, labels, decoder),
        ids=ids,
        labels=labels,
        class_names=tuple(images.classes),
        probe=lambda index: (root / ids[index]).read_bytes(),
        name="folder",
        decoder=decoder_name(decoder),
    )


def _torchvision(place: str, arguments: dict[str, Any]) -> Data:
    kind = getattr(torchvision.datasets, place, None)
    if kind is None:
        raise InvalidInputError(f"torchvision.datasets has no {place!r}; see its documentation for the names")
    try:
        samples = call(kind, arguments, f"data torchvision:{place}")
    except (RuntimeError, OSError, ValueError) as error:
        raise InvalidInputError(
            f"torchvision:{place} does not open ({error}); see --data-set root=... download=true"
        ) from error
    return describe_samples(samples, f"torchvision:{place}")


_KINDS: dict[str, Callable[[str, dict[str, Any]], Data]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "folder": _folder,
    "torchvision": _torchvision,
}


def _limited(data: Data, limit: Any) -> Data:
    if not isinstance(limit, int) or not 1 <= limit <= len(data):
        raise InvalidInputError(f"limit is {limit!r}; the data set has {len(data)} samples")
    return Data(
        data.samples, data.ids[:limit], data.labels[:limit], data.class_names, data.probe, data.name, data.decoder
    )
