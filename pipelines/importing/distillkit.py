"""DistillKit's parquet: rows of `input_ids`, and for each token but the last the top k of the token that follows.

Worked from DistillKit's sources as of 2025: `sample_logits_vllm` drops the answer that precedes the first token, and
its losses hold answer t against the student's logits at token t. So answer t is the distribution of token t + 1.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.arrays import Array
from kdcache.errors import InvalidInputError
from kdcache.pipelines.importing.capture import HALF, Capture, RowAnswers, expanded
from kdcache.pipelines.importing.compression import Compression, read_compression
from kdcache.views.label_numbers import listed
from kdcache.views.parquet_files import opened
from kdcache.views.parquet_tokens import read_token_rows
from kdcache.views.token_rows import IDS

PLAIN = ("token_ids", "top_values")
PACKED = ("bytepacked_indices", "compressed_logprobs")
LEGACY = ("packed_indices", "exact_values", "coeffs")
AT_ONCE = 16  # rows that are unpacked at a time


def open_distillkit(files: Sequence[str], compression: str = "") -> Capture:
    """The capture in some parquet files. `compression`: DistillKit's configuration. Raises InvalidInputError."""
    paths = expanded(files, (".parquet",))
    columns = _columns(paths)
    rows, _ = read_token_rows(paths, f"data parquet:{paths[0].name}")
    name = f"parquet column={IDS}"
    record: dict[str, Any] = {"layout": "distillkit", "columns": list(columns)}
    if columns == PLAIN:
        if compression:
            raise InvalidInputError(
                f"--compression {compression} was given, and {paths[0]} has plain columns {', '.join(PLAIN)}; leave it "
                "out"
            )
        reader = _Reader(paths, columns, np.diff(rows.offsets).tolist(), None)
        k = next((answers.classes.shape[1] for answers in reader.answers_from(0) if len(answers.classes)), 1)
        return Capture(rows, name, paths, k, reader.answers_from, rounding=HALF, record=record)
    codec, file = read_compression(compression, paths)
    reader = _Reader(paths, columns, np.diff(rows.offsets).tolist(), codec)
    return Capture(
        rows,
        name,
        [*paths, file],
        codec.k,
        reader.answers_from,
        classes=codec.d,
        rounding=codec.rounding,
        approximate=codec.approximate,
        record=record | {"compression": codec.model_dump(mode="json")},
    )


def _columns(paths: Sequence[Path]) -> tuple[str, str]:
    """The columns of ids and log-probabilities, equal in all files. Raises InvalidInputError for other layouts."""
    kinds = []
    for path in paths:
        with opened(path) as file:
            schema = file.schema_arrow
        names = schema.names
        kind = next((pair for pair in (PLAIN, PACKED) if {*pair, IDS} <= set(names)), None)
        if kind is None and set(names) >= set(LEGACY):
            raise InvalidInputError(
                f"{path} has {', '.join(LEGACY)}: DistillKit's legacy compression, whose values may be logits less "
                "their mean; no mass is known: capture again, or unpack to token_ids and top_values"
            )
        if kind is None:
            raise InvalidInputError(
                f"{path} has columns {listed(names, most=12)}; DistillKit's captures have {IDS} with "
                f"{' and '.join(PLAIN)} or with {' and '.join(PACKED)}"
            )
        for name, depth in ((IDS, 1), *((name, 2) for name in kind)):
            if _depth(schema.field(name).type) != depth:
                raise InvalidInputError(
                    f"{path} has {schema.field(name).type} in column {name!r}; DistillKit writes lists of "
                    f"{'lists of ' if depth == 2 else ''}numbers there"
                )
        kinds.append(kind)
    if len(set(kinds)) > 1:
        raise InvalidInputError(f"{paths[0]} has {kinds[0][0]}, another file has not; import files of one form")
    return kinds[0]


def _depth(kind: Any) -> int:
    """The number of lists of a type of pyarrow, one in the other."""
    import pyarrow.types as types

    depth = 0
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth


class _Reader:
    """Reads answers row by row, some rows at a time. `lengths`: the tokens of each row."""

    def __init__(
        self, paths: Sequence[Path], columns: tuple[str, str], lengths: Sequence[int], codec: Compression | None
    ) -> None:
        self.paths, self.columns, self.lengths, self.codec = paths, columns, lengths, codec
        counts = []
        for path in paths:
            with opened(path) as file:
                counts.append(file.metadata.num_rows)
        self.firsts = [0, *accumulate(counts)]

    def answers_from(self, row: int) -> Iterator[RowAnswers]:
        """The answers to a row and to all after it."""
        for file in range(bisect_right(self.firsts, row) - 1, len(self.paths)):
            skipped = max(row - self.firsts[file], 0)
            for number, pair in enumerate(self._pairs(file, skipped), skipped):
                yield self._answers(f"{self.paths[file]}: row {number}", self.firsts[file] + number, *pair)

    def _pairs(self, number: int, skipped: int) -> Iterator[tuple[Array, Array]]:
        """For each row of a file after some, its numbers by token in both columns."""
        place = self.paths[number]
        with opened(place) as file:
            starts = [0, *accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))]
            group = min(bisect_right(starts, skipped), len(starts)) - 1
            first, skipped = starts[group], skipped - starts[group]
            for batch in file.iter_batches(
                batch_size=AT_ONCE,
                row_groups=range(group, file.num_row_groups),
                columns=list(self.columns),
                use_threads=False,
            ):
                if skipped >= len(batch):
                    first, skipped = first + len(batch), skipped - len(batch)
                    continue
                columns = [self._rows(batch.column(name), place, name, first) for name in self.columns]
                yield from list(zip(*columns, strict=True))[skipped:]
                first, skipped = first + len(batch), 0

    def _rows(self, column: Any, path: Path, name: str, first: int) -> list[Array]:
        """For each row of a column of lists of lists, which begins at the row `first` of its file, its lists [M, W].
        Raises InvalidInputError where they are of unequal lengths."""
        inner = column.flatten()
        numbers = inner.flatten()
        if column.null_count or inner.null_count or numbers.null_count:
            raise InvalidInputError(
                f"{path}: {name} is empty (null) in rows {first} to {first + len(column) - 1}; mend them"
            )
        widths = np.asarray(inner.value_lengths())
        stops = np.cumsum(column.value_lengths())
        ends, values = np.concatenate([[0], np.cumsum(widths)]), numbers.to_numpy(zero_copy_only=False)
        rows = []
        for number, (start, stop) in enumerate(pairwise([0, *stops.tolist()])):
            row_widths = widths[start:stop]
            if (other := np.flatnonzero(row_widths != row_widths[:1])).size:
                raise InvalidInputError(
                    f"{path}: row {first + number}, token {other[0]}: {name} has {row_widths[other[0]]} numbers, token "
                    f"0 has {row_widths[0]}; give each token as many"
                )
            width = int(row_widths[0]) if len(row_widths) else 0
            rows.append(values[ends[start] : ends[stop]].reshape(stop - start, width))
        return rows

    def _answers(self, place: str, row: int, ids: Array, values: Array) -> RowAnswers:
        tokens, count = self.lengths[row], len(ids)
        if count not in (tokens, tokens - 1) or len(values) != count:
            raise InvalidInputError(
                f"{place} has {tokens} tokens, {count} lists of {self.columns[0]} and {len(values)} of "
                f"{self.columns[1]}; give one for each token, or for each but the last"
            )
        if self.codec is None:
            if ids.shape != values.shape:
                raise InvalidInputError(
                    f"{place} has {ids.shape[1]} {self.columns[0]} and {values.shape[1]} {self.columns[1]} a token; "
                    "give each id its log-probability"
                )
            return RowAnswers(place, ids.astype(np.int64), values.astype(np.float64))
        if not count:
            return RowAnswers(place, np.empty((0, 0), np.int64), np.empty((0, 0)))
        widths = (self.codec.index_bytes, self.codec.log_prob_bytes)
        for name, array, width in zip(self.columns, (ids, values), widths, strict=True):
            if array.shape[1] != width:
                raise InvalidInputError(
                    f"{place} has {array.shape[1]} bytes a token in {name}, and its configuration takes {width}; name "
                    "the one of the capture by --compression FILE.yaml"
                )
        return RowAnswers(
            place, self.codec.classes(ids.astype(np.uint8)), self.codec.log_probs(values.astype(np.uint8))
        )
