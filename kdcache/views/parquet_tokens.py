"""`parquet:` with a column of lists of token ids is a data set of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.views.columns import Columns, Noun, column_ids
from kdcache.views.encoded_images import Opening, spec_name
from kdcache.views.parquet_files import files_of, opened
from kdcache.views.texts import NO_VOCABULARY, DescribedTexts
from kdcache.views.token_rows import IDS, LABELS, MASK, TokenRows, texts_of_rows
from kdcache.views.tokenizer_file import open_tokenizer


def holds_tokens(at: Opening, column: str, split: str) -> bool:
    """True where the column, by default `input_ids`, is there and holds lists of integers."""
    path = files_of(at, split, f"data parquet:{at.place}")[0]
    with opened(path) as file:
        names = file.schema_arrow.names
        return (column or IDS) in names and _is_list(file.schema_arrow.field(column or IDS).type)


def open_parquet_tokens(
    at: Opening,
    *,
    column: str = "",
    label: str = "",
    mask: str = "",
    id: str = "",
    split: str = "",
    sequence: int = 0,
    tokenizer: str = "",
) -> DescribedTexts:
    """The rows of token ids of a file, or of all files in a folder, as texts of `sequence` tokens, by default the least
    power of two that holds the longest row. `label` and `mask` name columns of lists, by default `labels` and
    `attention_mask` where there are some. `tokenizer`: the file that made the ids. Raises InvalidInputError."""
    noun = f"data parquet:{at.place}"
    if not at.labelled:
        raise InvalidInputError(f"{noun}: the labels of texts are their own tokens; leave out --labels none")
    rows, ids = read_token_rows(files_of(at, str(split), noun), noun, column=column, label=label, mask=mask, id=id)
    vocabulary = open_tokenizer(tokenizer).vocabulary if tokenizer else NO_VOCABULARY
    name = spec_name(
        "parquet", column=column or IDS, id=id, split=split, sequence=sequence or "",
        tokenizer=tokenizer and Path(tokenizer),
    )  # fmt: skip
    return texts_of_rows(rows, ids, name, sequence=sequence, vocabulary=vocabulary)


def read_token_rows(
    paths: Sequence[Path], noun: str, *, column: str = "", label: str = "", mask: str = "", id: str = ""
) -> tuple[TokenRows, list[str]]:
    """The rows of token ids of some files, and their ids: those of a column, or their numbers. Columns are those of
    `open_parquet_tokens`; `noun` begins messages. Raises InvalidInputError."""
    column = column or IDS
    with opened(paths[0]) as first:
        kinds = {field.name: str(field.type) for field in first.schema_arrow}
    columns = Columns(kinds, Noun(noun, "name it by --data-set {argument}={column}"), "column")
    given = {"label": label or (LABELS if LABELS in kinds else ""), "mask": mask or (MASK if MASK in kinds else "")}
    named = {noun: columns.named(name, noun) for noun, name in {**given, "id": id}.items() if name}
    values: dict[str, list[Any]] = {name: [] for name in (column, *named.values())}
    for path in paths:
        with opened(path) as file:
            if lacking := [name for name in values if name not in file.schema_arrow.names]:
                raise InvalidInputError(f"{path} has no column {lacking[0]!r}; give files of one form")
            table = file.read(columns=list(values))
        for name in values:
            values[name] += _lists(table.column(name)) if name != named.get("id") else table.column(name).to_pylist()
    rows = TokenRows.of(
        values[column],
        noun.removeprefix("data "),
        values[named["label"]] if "label" in named else (),
        values[named["mask"]] if "mask" in named else (),
    )
    return rows, column_ids(values[id], id, noun) if id else [str(index) for index in range(len(values[column]))]


def _is_list(kind: Any) -> bool:
    import pyarrow.types

    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists) and bool(pyarrow.types.is_integer(kind.value_type))


def _lists(column: Any) -> list[Any]:
    """The lists of a column as arrays of numpy."""
    parts = []
    for chunk in column.chunks:
        if chunk.null_count:
            raise InvalidInputError(
                f"a list of token ids is empty (null) in {chunk.null_count} rows; write lists there"
            )
        lengths = chunk.value_lengths().to_numpy(zero_copy_only=False)
        parts += np.split(chunk.flatten().to_numpy(zero_copy_only=False), np.cumsum(lengths)[:-1]) if len(chunk) else []
    return parts
