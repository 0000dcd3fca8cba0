"""A data set as all stages know it: samples, ids, labels and class names, and its identity."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from kdcache.base.arrays import values_digest
from kdcache.base.progress import Progress, silent
from kdcache.base.user_code import exception_text
from kdcache.errors import InvalidInputError
from kdcache.store.manifest import DatasetIdentity
from kdcache.views.built_in import BuiltIn
from kdcache.views.contents import image_bytes
from kdcache.views.data_parts import ids_digest
from kdcache.views.decoding import decoder_name
from kdcache.views.dict_rows import DictRows, keys_of
from kdcache.views.draw import Samples, own_generators
from kdcache.views.encoded_images import Described, EncodedImages
from kdcache.views.label_numbers import NONE
from kdcache.views.labelled_rows import LabelledRows
from kdcache.views.own_labels import OwnLabels
from kdcache.views.reading import read_probe
from kdcache.views.texts import (
    NO_VOCABULARY,
    DescribedTexts,
    Texts,
    Vocabulary,
    require_sequence,
    require_tokens,
    sequence_of,
)

PEEKED = 8  # rows of which one must be readable to tell their form
PROBES = 64  # samples whose contents enter the identity, evenly spaced

UseOfLabels = Literal["data", "none"]


@dataclass(frozen=True)
class Data:
    """A data set holds samples, with `ids` and `labels` in dataset order. Of texts each sample has S labels, one a
    token, and N counts tokens.

    Attributes:
        samples: The samples by dataset index, without any transform.
        ids: An id of each sample.
        labels: [N] i32, -1 for none.
        class_names: Names of the classes, in order; empty where they have none.
        probe: A callable that gives the contents of the sample at an index as bytes.
        name: The spec of the data set, without this machine's folders.
        decoder: The library that makes pixels of files.
        notes: Remarks for people.
        vocabulary: The tokens that texts may hold.

    Examples:
        >>> len(data), data.classes, data.sequence
        (300, 10, 1)
    """

    samples: Samples
    ids: Sequence[str]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]
    probe: Callable[[int], bytes]
    name: str
    decoder: str = "none"
    notes: tuple[str, ...] = ()
    vocabulary: Vocabulary = NO_VOCABULARY

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sequence(self) -> int:
        """The tokens S of each sample; 1 for pictures."""
        return sequence_of(self.samples)

    @property
    def classes(self) -> int:
        """Classes by name, tokens of the vocabulary, or else one more than the largest label; 0 where nothing is
        labelled."""
        return len(self.class_names) or self.vocabulary.size or int(self.labels.max(initial=-1)) + 1

    @property
    def is_labelled(self) -> bool:
        """True where a sample has a label."""
        return bool((self.labels >= 0).any())

    def without_labels(self) -> "Data":
        """The same samples, without any label and without names of classes.

        Examples:
            >>> data.without_labels().is_labelled
            False
        """
        return replace(self, labels=np.full(len(self), NONE, dtype=np.int32), class_names=())

    def identity(self) -> DatasetIdentity:
        """Digests over all ids and labels, and over the contents of 64 samples; read once.

        Examples:
            >>> data.identity() == store.identity.dataset
            True
        """
        return self._identity

    @cached_property
    def _identity(self) -> DatasetIdentity:
        count = len(self.ids)
        contents = hashlib.sha256()
        for index in np.unique(np.linspace(0, count - 1, min(PROBES, count)).astype(int)).tolist():
            contents.update(hashlib.sha256(read_probe(self, index, self.ids[index])).digest())
        return DatasetIdentity(
            rows=len(self),
            ids=ids_digest(self.ids),
            labels=values_digest(self.labels),
            probes=contents.hexdigest(),
            class_names=self.class_names,
            sequence=self.sequence,
            tokenizer=self.vocabulary.tokenizer,
        )


def text_data(texts: DescribedTexts) -> Data:
    """The data set of texts. Raises InvalidInputError for ids out of range, for an S that is no power of two, and where
    nothing counts."""
    require_sequence(int(texts.tokens.shape[1]), texts.name)
    require_tokens(texts)
    samples = Texts(texts.tokens)
    return Data(
        samples=samples,
        ids=texts.ids,
        labels=np.ascontiguousarray(texts.labels, dtype=np.int32).reshape(-1),
        class_names=(),
        probe=samples.content,
        name=texts.name,
        notes=id_notes(texts.ids),
        vocabulary=texts.vocabulary,
    )


def built_in_data(built_in: BuiltIn) -> Data:
    """The data set of built-in images."""
    samples = built_in.samples
    return Data(
        samples=samples,
        ids=[str(index) for index in range(len(samples))],
        labels=samples.labels,
        class_names=tuple(built_in.class_names),
        probe=lambda index: image_bytes(samples.images[index]),
        name=built_in.name,
    )


def encoded_data(described: Described) -> Data:
    """The data set of a source of encoded images."""
    return Data(
        samples=EncodedImages(described.source, described.labels, described.decoding),
        ids=described.ids,
        labels=described.labels,
        class_names=described.class_names,
        probe=described.source.content,
        name=described.name,
        decoder=decoder_name(described.decoding.decoder),
        notes=(*id_notes(described.ids), *described.notes),
    )


def id_notes(ids: Sequence[str]) -> tuple[str, ...]:
    """A note where several samples have one id, by which messages and lists of rows know them."""
    counts = Counter(ids)
    if len(counts) == len(ids):
        return ()
    name, most = counts.most_common(1)[0]
    return (
        f"{len(ids):,} samples have {len(counts):,} ids between them: {most:,} are {name!r}; no id tells them apart",
    )


def describe_samples(samples: Any, name: str, *, labels: UseOfLabels = "data", progress: Progress = silent) -> Data:
    """Ids, labels and class names of a data set object: from its attributes, or by one pass over it.

    Looks for `ids`, or the paths in `samples` under `root`; `labels` or `targets`; `class_names` or `classes`. Raises
    InvalidInputError for what is no data set of (image, label), and for a label that numbers no class.
    """
    _require_indexable(samples, name)
    samples = _pairs(samples, name, labelled=labels == "data")
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
        notes=id_notes(ids),
    )


def _pairs(samples: Any, name: str, *, labelled: bool) -> Any:
    """The data set itself, or its rows as pairs where they are dicts, as one that can be read in its middle tells."""
    with own_generators():
        middle = len(samples) // 2  # checks read the first rows already
        for index in range(middle, min(len(samples), middle + PEEKED)):
            with suppress(Exception):  # of the user's own code; whoever draws that row is told
                row = samples[index]
                break
        else:
            return samples
    return DictRows(samples, keys_of(row, name, labelled=labelled)) if isinstance(row, Mapping) else samples


def _require_indexable(samples: Any, name: str) -> None:
    """Raises InvalidInputError for what gives no samples by number."""
    form, advice = type(samples).__name__, ""
    if isinstance(samples, torch.utils.data.IterableDataset):
        form += ", a stream"
        advice = (
            "; views are drawn by index in any order: unpack the stream into a folder or a list (webdataset:SHARDS "
            "reads tars)"
        )
    elif isinstance(samples, torch.utils.data.DataLoader):
        advice = "; return its data set, `.dataset`"
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
