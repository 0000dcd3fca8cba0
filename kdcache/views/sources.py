"""Data sets by name: a kind and a place, such as folder:PATH, or a callable of the user's own that returns one."""

import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torchvision

from kdcache.base.progress import Progress, silent
from kdcache.base.specs import call, load_callable, portable_name
from kdcache.errors import InvalidInputError
from kdcache.views.built_in import open_digits, open_fashion_mnist
from kdcache.views.chosen_rows import ARGUMENTS, chosen_rows
from kdcache.views.columns import Noun
from kdcache.views.data import Data, UseOfLabels, built_in_data, describe_samples, encoded_data, text_data
from kdcache.views.decoding import Decoding
from kdcache.views.encoded_images import Opening
from kdcache.views.folder_source import open_folder
from kdcache.views.hf_source import describe_hf, is_encoded, label_column, open_hf
from kdcache.views.label_numbers import absent_notes, label_notes
from kdcache.views.parquet_source import open_parquet
from kdcache.views.parquet_tokens import holds_tokens, open_parquet_tokens
from kdcache.views.source_forms import FORMS, LIST
from kdcache.views.text_source import open_text
from kdcache.views.token_rows import is_texts, texts_of_object
from kdcache.views.webdataset_source import open_webdataset


def open_data(
    spec: str, arguments: dict[str, Any], *, labels: UseOfLabels = "data", progress: Progress = silent
) -> Data:
    """A data set is opened by its spec: a kind and a place, such as `folder:PATH`, or a callable of your own.

    Args:
        spec: A kind that `kdcache extract --help` lists, with its place; `package.module:callable` or
            `file.py:callable`.
        arguments: The arguments of that kind or callable, and those that every kind takes: `limit`, `rows`, `range` and
            `imbalance` choose some of the rows, `groups` and `noise` change labels. A callable that has one of these
            names itself keeps it, but for `limit`.
        labels: "data", or "none": labels are not looked at, and no sample has one.
        progress: A callable that hears of labels that are read one by one.

    Raises InvalidInputError for an unknown kind or argument, listing the known ones, and for a data set without
    samples.

    Examples:
        >>> open_data("digits", {"limit": 100}).labels[:5]
        array([0, 1, 2, 3, 5], dtype=int32)
    """
    given, arguments = arguments, of_whole(spec, arguments)
    choice = {name: given[name] for name in ARGUMENTS if given.get(name) is not None and name not in arguments}
    kind, _, place = spec.partition(":")
    if kind in KINDS:
        at = Opening(place, labels == "data", progress)
        open_kind = KINDS[kind] if kind != "parquet" else _parquet(at, arguments)
        _require_known(kind, open_kind, arguments)
        data = open_kind(at, **arguments)
    elif ":" in spec:
        samples = call(load_callable(spec, "data"), arguments, f"data {spec}")
        data = _of_object(samples, portable_name(spec), labels, progress)
    else:
        raise InvalidInputError(f"there is no data set {spec!r}; choose {LIST}")
    if len(data) == 0:
        raise InvalidInputError(f"data {spec} has no samples; check its path and its split")
    data = data.without_labels() if labels == "none" else data
    data = chosen_rows(data, choice, classes=data.classes)
    named = {**choice, **({"rows": Path(str(choice["rows"])).name} if "rows" in choice else {})}
    name = " ".join([data.name, *(f"{key}={value}" for key, value in named.items())])
    notes = data.notes
    if data.sequence == 1:
        notes += (*label_notes(data.labels), *absent_notes(data.labels, data.class_names))
    return replace(data, name=name, notes=notes)


def of_whole(spec: str, arguments: dict[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a data set without those that choose some of its rows or change labels, but for those to
    `keep`."""
    choosing = set(ARGUMENTS) & arguments.keys() - set(keep)
    if choosing and spec.partition(":")[0] not in KINDS and ":" in spec:
        with suppress(ValueError):  # of builtins without a signature
            choosing -= inspect.signature(load_callable(spec, "data")).parameters.keys() - {"limit"}
    return {name: value for name, value in arguments.items() if name not in choosing}


def _require_known(kind: str, open_kind: Callable[..., Data], arguments: dict[str, Any]) -> None:
    """Raises InvalidInputError for arguments that a kind of data set does not take, and lists those that it takes."""
    parameters = inspect.signature(open_kind).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    unknown = arguments.keys() - known
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names = ", ".join([*known, "rows"])
        hint = FORMS[kind].hint and f"; {FORMS[kind].hint}"
        others = "as all texts range" if kind == "text" else "as any data range, imbalance, groups and noise"
        raise InvalidInputError(
            f"data {kind} takes {names} and limit, and {others}, not {', '.join(sorted(unknown))}{hint}"
        )


def _of_object(samples: Any, name: str, labels: UseOfLabels, progress: Progress) -> Data:
    """The data set of an object that a user's callable returned."""
    if is_texts(samples):
        if labels == "none":
            raise InvalidInputError(f"data {name}: the labels of texts are their own tokens; leave out --labels none")
        return text_data(texts_of_object(samples, name))
    if not is_encoded(samples):
        return describe_samples(samples, name, labels=labels, progress=progress)
    noun = Noun(f"data {name}", "return data.select_columns of one column of images and one of labels")
    labelled = labels == "data"
    columns = {"image": "", "label": label_column(samples.features, name) if labelled else "", "id": ""}
    return encoded_data(describe_hf(samples, name, noun, columns, Decoding(), labelled=labelled))


def _made(make: Callable[[Any], Data], open_source: Callable[..., Any]) -> Callable[..., Data]:
    """The function that opens a source and makes a data set of it, with the arguments of that source."""

    @wraps(open_source)
    def open_kind(at: Opening, **arguments: Any) -> Data:
        return make(open_source(at, **arguments))

    return open_kind


def _parquet(at: Opening, arguments: dict[str, Any]) -> Callable[..., Data]:
    """The function that opens what a parquet file holds: texts, or encoded images."""
    is_of_texts = holds_tokens(at, str(arguments.get("column", "")), str(arguments.get("split", "")))
    return _made(text_data, open_parquet_tokens) if is_of_texts else KINDS["parquet"]


def _torchvision(at: Opening, **arguments: Any) -> Data:
    kind = getattr(torchvision.datasets, at.place, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.utils.data.Dataset)):
        raise InvalidInputError(
            f"torchvision.datasets has no data set {at.place!r}; see its documentation for the names"
        )
    try:
        samples = call(kind, arguments, f"data torchvision:{at.place}")
    except (RuntimeError, OSError, ValueError) as error:
        raise InvalidInputError(
            f"torchvision:{at.place} does not open ({error}); see --data-set root=... download=true"
        ) from error
    labels: UseOfLabels = "data" if at.labelled else "none"
    return describe_samples(samples, f"torchvision:{at.place}", labels=labels, progress=at.progress)


KINDS: dict[str, Callable[..., Data]] = {
    "digits": _made(built_in_data, open_digits),
    "fashion-mnist": _made(built_in_data, open_fashion_mnist),
    "folder": _made(encoded_data, open_folder),
    "hf": _made(encoded_data, open_hf),
    "parquet": _made(encoded_data, open_parquet),
    "text": _made(text_data, open_text),
    "webdataset": _made(encoded_data, open_webdataset),
    "torchvision": _torchvision,
}
"""The function that opens each kind of `source_forms.FORMS`, with its arguments as keywords."""
