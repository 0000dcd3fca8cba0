"""`parquet:` is a file, or a folder of files, of encoded images in a column, read by pyarrow a row group at a time.

Rows are read in any order, so the row groups that were unpacked last are kept. Row groups of about 100 images, as
`datasets` writes them, suit that; whoever has larger ones is told of `hf:`, which unpacks all of them once.
"""

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.views.class_files import class_labels, named_classes, read_class_names
from kdcache.views.columns import Columns, Noun, column_ids
from kdcache.views.decoding import DECODERS, decoding_of
from kdcache.views.encoded_images import Described, Opening, file_state, spec_name
from kdcache.views.label_numbers import NONE, listed
from kdcache.views.parquet_files import files_of, opened

GROUPS_BYTES = 256 * 2**20  # of row groups that a process keeps unpacked
OPEN_FILES = 32


class ParquetImages:
    """The encoded images of a column of some files. A process keeps what it unpacked last; a copy of this in another
    one begins without."""

    readers = 1

    def __init__(self, paths: Sequence[Path], rows: Sequence[Sequence[int]], column: str) -> None:
        self.column, self.paths = column, tuple(paths)
        self._groups = [(file, group) for file, counts in enumerate(rows) for group in range(len(counts))]
        self._starts = [0, *accumulate(count for counts in rows for count in counts)]
        self._firsts = [0, *accumulate(map(sum, rows))]
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[int, Any] = OrderedDict()
        self._unpacked: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_files", "_unpacked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def content(self, index: int) -> bytes:
        """The bytes of an image. Raises InvalidInputError where its row has none."""
        group = self._group(index)
        with self._lock:
            values = self._unpacked.get(group)
            if values is None:
                values = self._unpacked[group] = self._read(group)
                while len(self._unpacked) > 1 and sum(v.nbytes for v in self._unpacked.values()) > GROUPS_BYTES:
                    self._unpacked.popitem(last=False)
            self._unpacked.move_to_end(group)
        data: bytes | None = values[index - self._starts[group]].as_py()
        if data is None:
            raise InvalidInputError(f"{self.place(index)} holds no bytes; write the bytes of its image there")
        return data

    def place(self, index: int) -> str:
        """The file, the row in it and the column of an image."""
        group = self._group(index)
        file = self._groups[group][0]
        return f"{self.paths[file]}: row {index - self._firsts[file]} of column {self.column}"

    def state(self, indices: IntArray) -> Iterable[str]:
        """The files, and the rows that are taken."""
        return [*map(file_state, self.paths), *map(str, indices.tolist())]

    def _group(self, index: int) -> int:
        if not 0 <= index < self._starts[-1]:
            raise IndexError(f"row {index} of {self._starts[-1]}")
        return bisect_right(self._starts, index) - 1

    def _read(self, group: int) -> Any:
        """The bytes of all images of a row group, as they lie in the chunks of pyarrow: joined, those
        of 2 GiB and more would overflow."""
        import pyarrow

        number, row_group = self._groups[group]
        if number not in self._files:
            self._files[number] = opened(self.paths[number])
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(number)
        try:
            column = self._files[number].read_row_group(row_group, columns=[self.column], use_threads=False).column(0)
        except NotImplementedError as error:  # of structs of 2 GiB and more
            raise InvalidInputError(
                f"{self.paths[number]}: row group {row_group} is too large to be read ({error}); write the file with "
                "row_group_size=100"
            ) from error
        except (OSError, ValueError) as error:  # pyarrow's own errors are these
            raise InvalidInputError(f"{self.paths[number]}: row group {row_group} cannot be read ({error})") from error
        if not _is_struct(column.type):
            return column
        return pyarrow.chunked_array([chunk.field("bytes") for chunk in column.chunks])


def open_parquet(
    at: Opening,
    *,
    column: str = "",
    label: str = "",
    id: str = "",
    split: str = "",
    class_names: str = "",
    decoder: str = DECODERS[0],
    max_pixels: int | None = None,
) -> Described:
    """The rows of a file, or of all files in a folder. `column`, `label` and `id` name columns; what `datasets` noted
    in the schema tells them otherwise. Raises InvalidInputError."""
    decoding = decoding_of("parquet", decoder, max_pixels)
    noun = f"data parquet:{at.place}"
    paths = files_of(at, str(split), noun)
    files = [opened(path) for path in paths]
    schema, features = files[0].schema_arrow, _features(files[0].schema_arrow)
    kinds = {field.name: _kind(field, features) for field in schema}
    chosen = Columns(kinds, Noun(noun, "name it by --data-set {argument}={column}"), "column")
    column = chosen.images(column, lambda name: _is_image(schema.field(name).type))
    label = chosen.labels(label, lambda name: kinds[name] == "ClassLabel") if at.labelled else ""
    needed = [name for name in (label, id and chosen.named(id, "id")) if name]
    _require_alike(paths, files, [column, *needed], label)
    rows = [[file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] for file in files]
    values = {name: [v for file in files for v in file.read(columns=[name]).column(0).to_pylist()] for name in needed}
    count = sum(map(sum, rows))
    ids = column_ids(values[id], id, noun) if id else [str(index) for index in range(count)]
    labels, names = np.full(count, NONE, np.int32), tuple[str, ...]()
    if label:
        classes = read_class_names(class_names) or _classes_of(features, label)
        labels, names = class_labels(values[label], ids, classes, noun)
    notes = _group_notes(files, column)
    for file in files:
        file.close()
    arguments: dict[str, Any] = {"column": column, "label": label, "id": id, "split": split}
    name = spec_name("parquet", **arguments, class_names=class_names and Path(class_names))
    return Described(ParquetImages(paths, rows, column), decoding, ids, labels, names, name, notes)


def _features(schema: Any) -> Mapping[str, Any]:
    """The features that `datasets` notes in a schema; none where it did not write it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _classes_of(features: Mapping[str, Any], label: str) -> Any:
    names = features.get(label, {}).get("names") if isinstance(features.get(label), dict) else None
    return named_classes([*map(str, names)]) if isinstance(names, list) and names else None


def _kind(field: Any, features: Mapping[str, Any]) -> str:
    """A column as messages name it."""
    feature = features.get(field.name)
    noted = feature.get("_type") if isinstance(feature, dict) else None
    return str(noted if noted in ("Image", "ClassLabel") else field.type)


def _is_struct(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_struct(kind))


def _is_image(kind: Any) -> bool:
    """True for bytes, and for the struct of bytes and path in which `datasets` keeps an image."""
    import pyarrow

    if _is_struct(kind):
        return {"bytes", "path"} == {field.name for field in kind}
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _require_alike(paths: Sequence[Path], files: Sequence[Any], columns: Sequence[str], label: str) -> None:
    """Raises InvalidInputError for a file whose columns differ from those of the first, or whose classes do."""
    first = files[0].schema_arrow
    for path, file in zip(paths, files, strict=True):
        schema = file.schema_arrow
        for column in columns:
            if column not in schema.names:
                raise InvalidInputError(
                    f"{path} has no column {column!r}, as {paths[0]} has; it has {listed(schema.names)}"
                )
            if schema.field(column).type != first.field(column).type:
                raise InvalidInputError(
                    f"{path} has {schema.field(column).type} in column {column!r}, {paths[0]} has "
                    f"{first.field(column).type}; give files of one form"
                )
        if label and _classes_of(_features(schema), label) != _classes_of(_features(first), label):
            raise InvalidInputError(
                f"{path} names other classes in column {label!r} than {paths[0]}; give one list to all"
            )


def _group_notes(files: Sequence[Any], column: str) -> tuple[str, ...]:
    """A note where row groups are so large that rows in any order unpack the same ones again and again."""
    sizes = []
    for file in files:
        for group in map(file.metadata.row_group, range(file.num_row_groups)):
            parts = map(group.column, range(group.num_columns))
            sizes.append(
                sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == column)
            )
    if not sizes or sum(sizes) <= GROUPS_BYTES or (largest := max(sizes)) < GROUPS_BYTES // 64:
        return ()
    return (
        f"row groups of up to {largest / 1e6:,.0f} MB are unpacked for each image that is read out of order: "
        "hf:FOLDER unpacks them once, or write them with row_group_size=100",
    )
