"""Data sets by name, and the identity of one: digests over ids and labels of all samples, and contents of some."""

import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torchvision

from kdcache.base.arrays import values_digest
from kdcache.base.progress import Progress, silent
from kdcache.base.specs import call, load_callable, portable_name
from kdcache.base.user_code import exception_text
from kdcache.errors import InvalidInputError
from kdcache.store.manifest import DatasetIdentity
from kdcache.views.built_in import BuiltIn, load_digits, load_fashion_mnist
from kdcache.views.chosen_rows import ARGUMENTS, chosen_rows
from kdcache.views.contents import image_bytes
from kdcache.views.data_parts import ids_digest
from kdcache.views.decoding import DECODERS, ImageFiles, decoder_name
from kdcache.views.draw import Samples
from kdcache.views.image_folder import list_images
from kdcache.views.labelled_rows import LabelledRows
from kdcache.views.own_labels import NONE, OwnLabels, absent_notes, label_notes
from kdcache.views.reading import read_probe

PROBES = 64  # samples whose contents enter the identity, evenly spaced

UseOfLabels = Literal["data", "none"]


@dataclass(frozen=True)
class Data:
    """A data set: its samples, and their `ids` and `labels` [N] i32 in dataset order.

    `probe(i)` gives the contents of sample i as bytes; `name` is the spec without this machine's folders; `decoder` is
    the library that makes pixels of files; `notes` are for the user.
    """

    samples: Samples
    ids: Sequence[str]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]
    probe: Callable[[int], bytes]
    name: str
    decoder: str = "none"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Classes by name, or else one more than the largest label; 0 where nothing is labelled."""
        return len(self.class_names) or int(self.labels.max(initial=-1)) + 1

    @property
    def is_labelled(self) -> bool:
        """True where a sample has a label."""
        return bool((self.labels >= 0).any())

    def without_labels(self) -> "Data":
        """The same samples, without any label and without names of classes."""
        return replace(self, labels=np.full(len(self), NONE, dtype=np.int32), class_names=())

    def identity(self) -> DatasetIdentity:
        """Digests over all ids and labels, and over the contents of 64 samples; read once."""
        return self._identity

    @cached_property
    def _identity(self) -> DatasetIdentity:
        rows = len(self)
        contents = hashlib.sha256()
        for index in np.unique(np.linspace(0, rows - 1, min(PROBES, rows)).astype(int)).tolist():
            contents.update(hashlib.sha256(read_probe(self, index, self.ids[index])).digest())
        return DatasetIdentity(
            rows=rows,
            ids=ids_digest(self.ids),
            labels=values_digest(self.labels),
            probes=contents.hexdigest(),
            class_names=self.class_names,
        )


def open_data(
    spec: str, arguments: dict[str, Any], *, labels: UseOfLabels = "data", progress: Progress = silent
) -> Data:
    """The data set of a spec: digits, fashion-mnist:FOLDER, folder:PATH, torchvision:NAME, or a user's callable.

    Every kind takes the arguments of `chosen_rows`, which choose some of its rows and change labels; a callable that
    has one of that name itself keeps it, but for `limit`. `labels` "none": labels are not looked at, and no sample has
    one. `progress` hears of labels that are read one by one. Raises InvalidInputError.
    """
    given, arguments = arguments, of_whole(spec, arguments)
    choice = {name: given[name] for name in ARGUMENTS if given.get(name) is not None and name not in arguments}
    kind, _, place = spec.partition(":")
    if kind in _KINDS:
        data = _KINDS[kind](place, arguments)
    elif kind == "torchvision":
        data = describe_samples(_torchvision(place, arguments), spec, labels=labels, progress=progress)
    elif ":" in spec:
        samples = call(load_callable(spec, "data"), arguments, f"data {spec}")
        data = describe_samples(samples, portable_name(spec), labels=labels, progress=progress)
    else:
        forms = "digits, fashion-mnist:FOLDER, folder:PATH, torchvision:NAME, package.module:callable, file.py:callable"
        raise InvalidInputError(f"there is no data set {spec!r}; choose {forms}")
    if len(data) == 0:
        raise InvalidInputError(f"data {spec} has no samples; check its path and its split")
    data = data.without_labels() if labels == "none" else data
    data = chosen_rows(data, choice, classes=data.classes)
    name = " ".join([data.name, *(f"{key}={value}" for key, value in choice.items() if key not in ("rows", "limit"))])
    notes = (*data.notes, *label_notes(data.labels), *absent_notes(data.labels, data.class_names))
    return replace(data, name=name, notes=notes)


def of_whole(spec: str, arguments: dict[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a data set without those that choose some of its rows or change labels, but for those to
    `keep`."""
    choosing = set(ARGUMENTS) & arguments.keys() - set(keep)
    if choosing and spec.partition(":")[0] not in (*_KINDS, "torchvision") and ":" in spec:
        with suppress(ValueError):  # of builtins without a signature
            choosing -= inspect.signature(load_callable(spec, "data")).parameters.keys() - {"limit"}
    return {name: value for name, value in arguments.items() if name not in choosing}


def describe_samples(samples: Any, name: str, *, labels: UseOfLabels = "data", progress: Progress = silent) -> Data:
    """Ids, labels and class names of a data set object: from its attributes, or by one pass over it.

    Looks for `ids`, or the paths in `samples` under `root`; `labels` or `targets`; `class_names` or `classes`. Raises
    InvalidInputError for what is no data set of (image, label), and for a label that numbers no class.
    """
    _require_indexable(samples, name)
    rows = len(samples)
    ids = getattr(samples, "ids", None)
    if ids is None and hasattr(samples, "root") and isinstance(getattr(samples, "samples", None), list):
        ids = [os.path.relpath(entry[0], samples.root) for entry in samples.samples]  # torchvision's image folders
    ids = [str(index) for index in range(rows)] if ids is None else _as_ids(ids, rows, name)
    named = next((v for v in (getattr(samples, a, None) for a in ("class_names", "classes")) if v is not None), None)
    class_names = tuple(map(str, named)) if isinstance(named, list | tuple) and labels == "data" else ()
    own_labels = OwnLabels(samples, ids, name, progress)
    if labels == "none":
        own_labels.require_rows()
        numbers, checked = np.full(rows, NONE, dtype=np.int32), samples
    else:
        numbers = own_labels.read(class_names)
        checked = LabelledRows(samples, numbers, ids)
    if len(samples) != rows:
        raise InvalidInputError(
            f"data {name} had {rows} samples and has {len(samples)} now: a data set must have one length; count its "
            "samples once, when it is made"
        )
    return Data(
        samples=checked,
        ids=ids,
        labels=numbers,
        class_names=class_names,
        probe=lambda index: image_bytes(checked[index][0]),
        name=name,
        decoder=decoder_name("pillow"),
        notes=_notes_on_ids(ids),
    )


def _notes_on_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """A note where several samples have one id, by which messages and lists of rows know them."""
    counts = Counter(ids)
    if len(counts) == len(ids):
        return ()
    name, most = counts.most_common(1)[0]
    return (
        f"{len(ids):,} samples have {len(counts):,} ids between them: {most:,} are {name!r}; no id tells them apart",
    )


def _require_indexable(samples: Any, name: str) -> None:
    """Raises InvalidInputError for what gives no samples by number."""
    form, advice = type(samples).__name__, ""
    if isinstance(samples, torch.utils.data.IterableDataset):
        form += ", a stream"
        advice = "; views are drawn by index in any order: unpack the stream into a folder or a list"
    elif isinstance(samples, Mapping):
        keys = ", ".join(map(str, list(samples)[:8]))
        form, advice = f"dict with {keys}", "; return one of its data sets"
    elif hasattr(samples, "__len__") and hasattr(samples, "__getitem__"):
        try:
            len(samples)
        except Exception as error:
            raise InvalidInputError(f"data {name}: len() of the {form} raised {exception_text(error)}") from error
        return
    raise InvalidInputError(f"data {name} is a {form}; it must have a length and be indexable{advice}")


def _as_ids(ids: Any, rows: int, name: str) -> list[str]:
    if not hasattr(ids, "__len__") or callable(ids) or isinstance(ids, str):
        raise InvalidInputError(f"data {name}: `ids` is a {type(ids).__name__}; give a list of texts, one a sample")
    if len(ids) != rows:
        raise InvalidInputError(f"data {name} has {len(ids)} ids for {rows} samples; give each sample one")
    return [str(sample_id) for sample_id in ids]


def _in_memory(built_in: BuiltIn) -> Data:
    samples = built_in.samples
    return Data(
        samples=samples,
        ids=[str(index) for index in range(len(samples))],
        labels=samples.labels,
        class_names=tuple(built_in.class_names),
        probe=lambda index: image_bytes(samples.images[index]),
        name=built_in.name,
    )


def _digits(place: str, arguments: dict[str, Any]) -> Data:
    return _in_memory(call(load_digits, arguments, "data digits"))


def _fashion_mnist(place: str, arguments: dict[str, Any]) -> Data:
    if not place:
        raise InvalidInputError("data fashion-mnist needs its folder of .gz files: --data fashion-mnist:FOLDER")
    return _in_memory(call(load_fashion_mnist, {"folder": Path(place), **arguments}, "data fashion-mnist"))


def _folder(place: str, arguments: dict[str, Any]) -> Data:
    arguments = dict(arguments)
    root = Path(place) / str(arguments.pop("split", ""))
    decoder = str(arguments.pop("decoder", DECODERS[0]))
    max_pixels, hidden = arguments.pop("max_pixels", None), arguments.pop("hidden", False)
    if arguments:
        known = "split, decoder, max_pixels, hidden, rows and limit, and as any data range, imbalance, groups and noise"
        raise InvalidInputError(f"data folder takes {known}, not {', '.join(arguments)}")
    if max_pixels is not None and (not isinstance(max_pixels, int) or isinstance(max_pixels, bool) or max_pixels < 1):
        raise InvalidInputError(f"data folder: max_pixels is {max_pixels!r}; give the pixels of the largest picture")
    if decoder not in DECODERS:
        raise InvalidInputError(f"data folder: decoder is {decoder!r}; choose {' or '.join(DECODERS)}")
    if decoder == "torchvision" and not hasattr(torchvision.io, "decode_image"):
        raise InvalidInputError(f"torchvision {torchvision.__version__} decodes no images; use decoder=pillow")
    if not isinstance(hidden, bool):
        raise InvalidInputError(f"data folder: hidden is {hidden!r}; give true to take hidden folders too, or false")
    images = list_images(root, hidden=hidden)
    labels = np.asarray(images.numbers, dtype=np.int32)
    return Data(
        samples=ImageFiles(root, images.names, labels, decoder, max_pixels),
        ids=images.names,
        labels=labels,
        class_names=images.class_names,
        probe=lambda index: (root / images.names[index]).read_bytes(),
        name="folder",
        decoder=decoder_name(decoder),
        notes=images.notes,
    )


def _torchvision(place: str, arguments: dict[str, Any]) -> Any:
    kind = getattr(torchvision.datasets, place, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.utils.data.Dataset)):
        raise InvalidInputError(f"torchvision.datasets has no data set {place!r}; see its documentation for the names")
    try:
        return call(kind, arguments, f"data torchvision:{place}")
    except (RuntimeError, OSError, ValueError) as error:
        raise InvalidInputError(
            f"torchvision:{place} does not open ({error}); see --data-set root=... download=true"
        ) from error


_KINDS: dict[str, Callable[[str, dict[str, Any]], Data]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "folder": _folder,
}
