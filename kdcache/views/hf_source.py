"""`hf:` is a data set of Hugging Face's `datasets`: a folder of save_to_disk, of parquet or arrow files, or a hub name.

Images are taken encoded, as they lie in the Arrow files, and decoded as `folder:` decodes them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.user_code import exception_text
from kdcache.errors import InvalidInputError
from kdcache.views.class_files import class_labels, named_classes
from kdcache.views.columns import Columns, Noun, column_ids, require_split
from kdcache.views.decoding import DECODERS, Decoding, decoding_of
from kdcache.views.dict_rows import LABEL_KEYS
from kdcache.views.encoded_images import Described, Opening, file_state, read_bytes, spec_name
from kdcache.views.label_numbers import NONE, Labels, listed

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
DICT, SAVED = "dataset_dict.json", "state.json"  # files of save_to_disk
FILES = ("*.parquet", "*.arrow")


@dataclass(frozen=True)
class HfImages:
    """The encoded images of a column of a data set, whose other columns are left out."""

    table: Any
    column: str
    readers: int = 1

    def content(self, index: int) -> bytes:
        """The bytes of an image, or of the file that it names."""
        value = self.table[index][self.column]
        if value is None or (value["bytes"] is None and not value["path"]):
            raise InvalidInputError(f"{self.place(index)} is empty")
        data: bytes = read_bytes(Path(value["path"])) if value["bytes"] is None else value["bytes"]
        return data

    def place(self, index: int) -> str:
        """The row and the column of an image."""
        return f"row {index} of column {self.column}"

    def state(self, indices: IntArray) -> Iterable[str] | None:
        """The Arrow files that the images lie in; None where they lie in memory, or in files of their own."""
        files = [Path(entry["filename"]) for entry in self.table.cache_files]
        column = self.table.data.column(self.column)
        if not files or any(chunk.field("bytes").null_count for chunk in column.chunks):
            return None
        return [*map(file_state, files), str(self.table._fingerprint), *map(str, indices.tolist())]


def open_hf(
    at: Opening,
    *,
    split: str = "",
    config: str = "",
    image: str = "",
    label: str = "",
    id: str = "",
    decoder: str = DECODERS[0],
    max_pixels: int | None = None,
    download: bool = False,
) -> Described:
    """A data set of a folder, or of a hub name: out of the cache of `datasets`, unless `download` is true. `image`,
    `label` and `id` name columns. Raises InvalidInputError."""
    decoding = decoding_of("hf", decoder, max_pixels)
    if not isinstance(download, bool):
        raise InvalidInputError(f"data hf: download is {download!r}; give true to fetch what is not in the cache")
    table, head = _opened(at, str(split), str(config), download)
    columns = {"image": image, "label": label, "id": id}
    name = spec_name(head, config=config, split=split, **columns)
    noun = Noun(f"data hf:{at.place}", "name it by --data-set {argument}={column}")
    return describe_hf(table, name, noun, columns, decoding, labelled=at.labelled)


def describe_hf(
    table: Any,
    name: str,
    noun: Noun,
    columns: dict[str, str],
    decoding: Decoding,
    *,
    labelled: bool,
) -> Described:
    """The data set of an object of `datasets`, which `noun` names in messages.

    `columns` names those of `image`, `label` and `id`; empty ones are found by their types. Raises InvalidInputError.
    """
    library = _library()
    features = dict(table.features)
    chosen = Columns({column: _kind(feature) for column, feature in features.items()}, noun)
    image = chosen.images(columns["image"], lambda c: _is_image(features[c], is_named=bool(columns["image"])))
    ids = [str(index) for index in range(len(table))]
    if columns["id"]:
        ids = column_ids(_values(table, chosen.named(columns["id"], "id")), columns["id"], noun.text)
    labels, names = np.full(len(table), NONE, np.int32), tuple[str, ...]()
    if labelled:
        label = chosen.labels(columns["label"], lambda c: isinstance(features[c], library.ClassLabel))
        labels, names = hf_labels(table, label, ids, noun.text)
    images = table.select_columns([image]).with_format(None).cast_column(image, library.Image(decode=False))
    return Described(HfImages(images, image), decoding, ids, labels, names, name)


def hf_labels(table: Any, column: str, ids: list[str], noun: str) -> tuple[Labels, tuple[str, ...]]:
    """Labels and class names of a column, read without its images."""
    feature = table.features[column]
    names = getattr(feature, "names", None)
    return class_labels(_values(table, column), ids, named_classes(names) if names else None, noun)


def label_column(features: Mapping[str, Any], name: str) -> str:
    """The column of labels of a data set that a callable returned: "" where a ClassLabel tells it, or else the column
    of whole numbers that is called as labels are. Raises InvalidInputError."""
    kinds = {column: _kind(feature) for column, feature in features.items()}
    if "ClassLabel" in kinds.values():
        return ""
    columns = [key for key in LABEL_KEYS if type(features.get(key)).__name__ == "Value"]
    column = columns[0] if len(columns) == 1 or LABEL_KEYS[0] in columns else ""
    if column and re.fullmatch(r"u?int\d+", kinds[column]):
        return column
    problem = f"column {column!r} holds {kinds[column]}" if column else "no column is known to hold classes"
    raise InvalidInputError(
        f"data {name}: {problem}; return data.cast_column({column or 'COLUMN'!r}, ClassLabel(names=[...])), or "
        f"--labels none uses no label; it has {listed([f'{key} ({kind})' for key, kind in kinds.items()], most=12)}"
    )


def is_encoded(samples: Any) -> bool:
    """True for a data set of `datasets` with a column of images, and without a format or transform of its own."""
    return (
        is_hf(samples)
        and samples.format["type"] is None
        and any(_is_image(feature, is_named=False) for feature in samples.features.values())
    )


def is_hf(samples: Any) -> bool:
    """True for a data set of `datasets`, which is not imported for that."""
    return type(samples).__module__ == "datasets.arrow_dataset"


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InvalidInputError(
            f"data hf: is read by Hugging Face's datasets, which cannot be imported ({error}); pip install "
            "'kdcache[datasets]'"
        ) from error
    return datasets


def _opened(at: Opening, split: str, config: str, download: bool) -> tuple[Any, str]:
    """The data set of a place and a split, and its name without this machine's folders."""
    library, path, noun = _library(), at.path, f"data hf:{at.place}"
    if not at.place:
        raise InvalidInputError("data hf needs a folder or the name of a data set: --data hf:FOLDER_OR_NAME")
    if path.is_dir():
        if (path / DICT).is_file():
            splits = _checked(library.load_from_disk, str(path), noun=noun)
            return splits[require_split(split, list(splits), noun)], "hf"
        if (path / SAVED).is_file():
            if split:
                require_split(split, [], noun)
            return _checked(library.load_from_disk, str(path), noun=noun), "hf"
        if not any(next(path.rglob(pattern), None) for pattern in FILES):
            raise InvalidInputError(
                f"{noun} is neither a folder of save_to_disk nor one of {' or '.join(FILES)} files; folders of images "
                f"are read by folder:{at.place}"
            )
        with _network(is_allowed=False):
            splits = _checked(library.load_dataset, str(path), *filter(None, [config]), noun=noun)
        return splits[require_split(split, list(splits), noun)], "hf"
    if path.exists() or path.is_absolute() or not HUB_NAME.fullmatch(at.place):
        raise InvalidInputError(f"{noun} is no folder, and no name such as OWNER/NAME of a data set of the hub")
    try:
        with _network(is_allowed=download):
            splits = library.load_dataset(at.place, *filter(None, [config]))
    except Exception as error:
        way = "check the name and the network" if download else "--data-set download=true fetches it from the hub"
        raise InvalidInputError(
            f"{noun} is no folder here, and no data set in the cache of datasets ({exception_text(error)}); {way}"
        ) from error
    return splits[require_split(split, list(splits), noun)], f"hf:{at.place}"


def _checked(load: Any, *arguments: Any, noun: str) -> Any:
    """A data set as `datasets` loads it. Raises InvalidInputError for all that it raises."""
    try:
        return load(*arguments)
    except Exception as error:
        raise InvalidInputError(f"{noun} cannot be opened by datasets: {exception_text(error)}") from error


@contextmanager
def _network(*, is_allowed: bool) -> Iterator[None]:
    """Let `datasets` ask the hub, or not: its offline mode is read from the environment once, when it is imported."""
    import huggingface_hub.constants as hub

    modules: tuple[Any, ...] = (_library().config, hub)
    former = [module.HF_HUB_OFFLINE for module in modules]
    bars = _library().are_progress_bars_disabled()
    _library().disable_progress_bars()
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = module.HF_HUB_OFFLINE or not is_allowed
        yield
    finally:
        for module, value in zip(modules, former, strict=True):
            module.HF_HUB_OFFLINE = value
        if not bars:
            _library().enable_progress_bars()


def _kind(feature: Any) -> str:
    """A feature as messages name it."""
    return str(getattr(feature, "dtype", None) if type(feature).__name__ == "Value" else type(feature).__name__)


def _is_image(feature: Any, *, is_named: bool) -> bool:
    """True for images, and for a column that the user names also where their bytes have no such type."""
    if isinstance(feature, _library().Image):
        return True
    if isinstance(feature, dict):
        return is_named and {"bytes", "path"} == feature.keys()
    return is_named and getattr(feature, "dtype", "") in ("binary", "large_binary")


def _values(table: Any, column: str) -> list[Any]:
    """The values of a column, in the order of rows; no other column is read."""
    values = table.select_columns([column]).with_format("arrow")[:].column(column)
    return list(values.to_pylist())
