"""Rows of token ids become texts: those of a column of parquet, of a data set of Hugging Face, or of an object of one's
own.

Rows of any length are cut into texts of S tokens; what a text has less than S is padding, which counts nowhere.

Shape letters: R rows, M tokens of all rows, Q texts, S tokens of a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import Array, IntArray
from kdcache.base.limits import SEQUENCE_MAX
from kdcache.errors import InvalidInputError
from kdcache.views.label_numbers import NONE
from kdcache.views.texts import IGNORED, DescribedTexts, Vocabulary, next_tokens, require_sequence

PIECE = 4096  # texts that are looked at together
IDS, LABELS, MASK = "input_ids", "labels", "attention_mask"
"""The columns of token ids as other libraries name them; of labels, which stand at their own token, -100 where it does
not count; and of a mask, 0 for padding."""


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens, one after the other: `values` [M], of row r those from `offsets`[r] to `offsets`[r + 1], and
    `counts` [M], true where a token may be a label."""

    values: Array
    offsets: IntArray
    counts: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Sequence[Any], name: str, labels: Sequence[Any] = (), masks: Sequence[Any] = ()) -> "TokenRows":
        """The rows of lists of ids, with lists of labels and of masks where there are some. Raises
        InvalidInputError."""
        lengths = [len(row) for row in rows]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        values = _joined(rows, name, "ids")
        counts = np.ones(len(values), dtype=bool)
        for noun, lists, absent in (("labels", labels, IGNORED), ("mask", masks, 0)):
            if not len(lists):
                continue
            if wrong := [
                row for row, (entry, length) in enumerate(zip(lists, lengths, strict=True)) if len(entry) != length
            ]:
                row = wrong[0]
                raise InvalidInputError(
                    f"data {name}: row {row} has {lengths[row]} ids and {len(lists[row])} {noun}; give one for each"
                )
            given = _joined(lists, name, noun)
            counts &= given != absent
            starts = np.zeros(len(values), dtype=bool)
            starts[offsets[:-1][np.diff(offsets) > 0]] = True
            if noun == "mask" and (late := np.flatnonzero((given[1:] != 0) & (given[:-1] == 0) & ~starts[1:])).size:
                row = int(np.searchsorted(offsets, late[0] + 1, side="right")) - 1
                raise InvalidInputError(
                    f"data {name}: row {row} has padding (mask 0) before its tokens, which a teacher would read as "
                    "text; pad at the right, or leave the padding out"
                )
            if noun == "labels" and (other := np.flatnonzero((given != values) & counts)).size:
                row = int(np.searchsorted(offsets, other[0], side="right")) - 1
                raise InvalidInputError(
                    f"data {name}: row {row} has label {int(given[other[0]])} where its token is "
                    f"{int(values[other[0]])}; labels stand at their own token, {IGNORED} where it does not count"
                )
        return cls(values, offsets, counts)

    def starts(self, sequence: int) -> list[tuple[int, int]]:
        """The row of each text, and its first token there."""
        lengths = np.diff(self.offsets).tolist()
        return [(row, start) for row, length in enumerate(lengths) for start in range(0, length, sequence)]

    def texts(self, sequence: int) -> tuple[Array, npt.NDArray[np.int32], list[tuple[int, int]]]:
        """Tokens [Q, S] and labels [Q, S] of the texts, and for each its row and the first token there. The last token
        of a row has no label."""
        lengths = np.diff(self.offsets)
        if (lengths == sequence).all():
            tokens = self.values.reshape(-1, sequence)
            return tokens, next_tokens(tokens, self.counts.reshape(-1, sequence)), self.starts(sequence)
        following = np.where(np.append(self.counts[1:], False), np.append(self.values[1:], NONE), NONE)
        following[self.offsets[1:][lengths > 0] - 1] = NONE
        starts = self.starts(sequence)
        tokens = np.zeros((len(starts), sequence), dtype=np.int32)
        labels = np.full((len(starts), sequence), NONE, dtype=np.int32)
        for text, (row, start) in enumerate(starts):
            first = int(self.offsets[row]) + start
            last = min(first + sequence, int(self.offsets[row + 1]))
            tokens[text, : last - first], labels[text, : last - first] = self.values[first:last], following[first:last]
        return tokens, labels, starts


def texts_of_rows(
    rows: TokenRows, ids: Sequence[str], name: str, *, sequence: int, vocabulary: Vocabulary
) -> DescribedTexts:
    """The texts of rows of tokens, `sequence` tokens each; 0: the least power of two that holds the longest row. Raises
    InvalidInputError."""
    longest = int(np.diff(rows.offsets).max(initial=0))
    if longest < 2:
        raise InvalidInputError(
            f"data {name}: its {len(ids):,} rows have at most {longest} tokens; give rows of two or more"
        )
    if not sequence:
        sequence = min(1 << (longest - 1).bit_length(), SEQUENCE_MAX)
    require_sequence(sequence, name)
    tokens, labels, starts = rows.texts(sequence)
    text_ids = [ids[row] if longest <= sequence else f"{ids[row]}:{start}" for row, start in starts]
    return DescribedTexts(tokens, labels, text_ids, name, vocabulary)


def is_texts(samples: Any) -> bool:
    """True for an object of texts: with an array `tokens` [Q, S], with a column `input_ids`, or a list of dicts of
    `input_ids`."""
    if getattr(getattr(samples, "tokens", None), "ndim", 0) == 2:
        return True
    if names := getattr(samples, "column_names", None):
        return IDS in names
    return isinstance(samples, list | tuple) and bool(samples) and isinstance(samples[0], Mapping) and IDS in samples[0]


def texts_of_object(samples: Any, name: str) -> DescribedTexts:
    """The texts of an object that `is_texts`. Its `tokens` [Q, S] come with `labels` [Q, S], where it has them: the
    token after each, -1 where that does not count; with `ids`; and with `vocabulary`, the number of ids. Raises
    InvalidInputError."""
    vocabulary = Vocabulary(int(getattr(samples, "vocabulary", 0)))
    if getattr(getattr(samples, "tokens", None), "ndim", 0) != 2:
        count = len(samples)
        entries = [samples[index] for index in range(count)]
        lists = {key: _values(entries, key, name) for key in (IDS, LABELS, MASK) if any(key in e for e in entries)}
        rows = TokenRows.of(lists[IDS], name, lists.get(LABELS, ()), lists.get(MASK, ()))
        return texts_of_rows(rows, _ids(samples, count, name), name, sequence=0, vocabulary=vocabulary)
    tokens = samples.tokens
    if not np.issubdtype(tokens.dtype if isinstance(tokens, np.ndarray) else np.asarray(tokens[:0]).dtype, np.integer):
        raise InvalidInputError(f"data {name}: its tokens are {tokens.dtype}; give integers [texts, tokens]")
    tokens = tokens if isinstance(tokens, np.ndarray) else np.asarray(tokens)
    labels = getattr(samples, "labels", None)
    if labels is None:
        labels = next_tokens(tokens, np.ones(tokens.shape, dtype=bool))
    labels = np.asarray(labels)
    if labels.shape != tokens.shape:
        raise InvalidInputError(
            f"data {name}: its tokens are {list(tokens.shape)} and its labels {list(labels.shape)}; give a label a "
            "token, -1 where it does not count"
        )
    ids = _ids(samples, len(tokens), name)
    _require_next(tokens, labels, ids, name)
    return DescribedTexts(tokens, labels, ids, name, vocabulary)


def _values(entries: Sequence[Mapping[str, Any]], key: str, name: str) -> list[Any]:
    """The values of a key of all rows. Raises InvalidInputError for a row that lacks it."""
    if lacking := [row for row, entry in enumerate(entries) if key not in entry]:
        raise InvalidInputError(
            f"data {name}: row {lacking[0]} has no {key}, and other rows have; give it to all of them, or to none"
        )
    return [entry[key] for entry in entries]


def _require_next(tokens: Array, labels: Array, ids: Sequence[str], name: str) -> None:
    """Raises InvalidInputError for a label [Q, S] that counts and is not the token after its own."""
    for start in range(0, len(tokens), PIECE):
        some, piece = labels[start : start + PIECE, :-1], tokens[start : start + PIECE, 1:]
        if len(wrong := np.argwhere((some >= 0) & (some != piece))):
            text, place = start + int(wrong[0][0]), int(wrong[0][1])
            raise InvalidInputError(
                f"data {name}: label {place} of text {text} ({ids[text]}) is {int(labels[text, place])}, and the token "
                f"after it is {int(tokens[text, place + 1])}: a label is the next token, -1 where it does not count; "
                "leave `labels` out where all count"
            )


def _ids(samples: Any, count: int, name: str) -> list[str]:
    ids = getattr(samples, "ids", None)
    if ids is None:
        return [str(number) for number in range(count)]
    if len(ids) != count:
        raise InvalidInputError(f"data {name} has {len(ids)} ids for {count} texts; give each one")
    return [str(entry) for entry in ids]


def _joined(rows: Sequence[Any], name: str, noun: str) -> Array:
    """The numbers of some lists, one after the other, as i32."""
    try:
        values = np.concatenate([np.asarray(row).reshape(-1) for row in rows]) if len(rows) else np.empty(0, np.int64)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"data {name}: its {noun} are no lists of integers ({error})") from error
    if values.size and (
        values.dtype.kind not in "iub" or not -(2**31) <= int(values.min()) <= int(values.max()) < 2**31
    ):
        raise InvalidInputError(f"data {name}: its {noun} are {values.dtype}; give integers of 32 bits")
    return values.astype(np.int32)
