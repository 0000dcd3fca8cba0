"""Texts: samples of S tokens each, whose labels are the tokens that follow.

A token is a row of the store, and a text is a sample: it is read, fingerprinted and dealt as a whole.

Shape letters: Q texts, S tokens of a text, N = Q S rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import Array, IntArray
from kdcache.base.limits import CLASSES_MAX, SEQUENCE_MAX
from kdcache.errors import InvalidInputError
from kdcache.views.label_numbers import NONE

IGNORED = -100  # a label of other libraries that says: do not learn from this token


@dataclass(frozen=True)
class Vocabulary:
    """The token ids that a text may hold: `size` of them, 0 where nobody says. `tokenizer` is the sha256 of the file
    that made them, "" where there is none. `token_bytes` [size] are the bytes of text that each stands for, or None."""

    size: int = 0
    tokenizer: str = ""
    token_bytes: IntArray | None = None


NO_VOCABULARY = Vocabulary()


@dataclass(frozen=True)
class DescribedTexts:
    """A source of texts as it describes itself: `tokens` [Q, S] and `labels` [Q, S] are ids, of the token after each,
    -1 where that does not count; `ids` [Q] name the texts; its `name` without this machine's folders."""

    tokens: Array
    labels: Array
    ids: Sequence[str]
    name: str
    vocabulary: Vocabulary = NO_VOCABULARY


class Texts:
    """Samples (ids [S] i32, -1) of `tokens` [Q, S] i32, which may lie in a file that is mapped. A text has no label of
    its own: its tokens have."""

    def __init__(self, tokens: Array) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.array(self.tokens[index], dtype=np.int32)), NONE

    def content(self, index: int) -> bytes:
        """The ids of a text, i32 little-endian."""
        return np.asarray(self.tokens[index], dtype="<i4").tobytes()

    @property
    def sequence(self) -> int:
        """S, by which `sequence_of` knows texts."""
        return int(self.tokens.shape[1])


def sequence_of(samples: object) -> int:
    """The tokens of each sample of a data set of texts; 1 for pictures."""
    return int(getattr(samples, "sequence", 1))


@overload
def rows_of_texts(texts: IntArray, sequence: int) -> IntArray: ...
@overload
def rows_of_texts(texts: IntArray | range, sequence: int) -> IntArray | range: ...
def rows_of_texts(texts: IntArray | range, sequence: int) -> IntArray | range:
    """The rows of some texts, as all of their tokens in order; the same for pictures."""
    if sequence == 1:
        return texts
    if isinstance(texts, range) and texts.step == 1:
        return range(texts.start * sequence, texts.stop * sequence)
    return (np.asarray(texts, dtype=np.int64)[:, None] * sequence + np.arange(sequence)).reshape(-1)


def texts_of_order(order: IntArray, sequence: int) -> IntArray:
    """The order [Q] of texts, from that [N] of rows."""
    return order if sequence == 1 else order[::sequence] // sequence


def require_sequence(sequence: object, name: str) -> int:
    """The tokens of a text. Raises InvalidInputError unless they are a power of two up to the largest block."""
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not 2 <= sequence <= SEQUENCE_MAX:
        raise InvalidInputError(
            f"data {name}: sequence is {sequence!r}; give the tokens of a text, 2 to {SEQUENCE_MAX:,}"
        )
    if sequence & (sequence - 1):
        lower, upper = 1 << sequence.bit_length() - 1, min(1 << sequence.bit_length(), SEQUENCE_MAX)
        raise InvalidInputError(
            f"data {name}: sequence is {sequence}, and blocks hold whole texts: give a power of two, such as {lower} "
            f"or {upper}"
        )
    return sequence


def next_tokens(tokens: Array, counts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Labels [Q, S] of texts [Q, S]: the token after each, -1 for the last, and where that token does not count
    [Q, S]: it is padding, or part of a prompt."""
    labels = np.full(tokens.shape, NONE, dtype=np.int32)
    labels[:, :-1] = np.where(counts[:, 1:], tokens[:, 1:], NONE)
    return labels


def require_tokens(texts: DescribedTexts) -> None:
    """Raises InvalidInputError for ids of tokens or labels that are none of the vocabulary's, and where no token of any
    text counts."""
    size, name = texts.vocabulary.size or CLASSES_MAX, texts.name
    for noun, values, least in (("token", texts.tokens, 0), ("label", texts.labels, NONE)):
        if values.size and not least <= int(values.min()) <= int(values.max()) < size:
            text, place = np.argwhere((values < least) | (values >= size))[0].tolist()
            advice = "use the tokenizer that its ids are of" if texts.vocabulary.tokenizer else "mend it"
            raise InvalidInputError(
                f"data {name}: {noun} {place} of text {text} ({texts.ids[text]}) is {int(values[text, place])}; ids go "
                f"from 0 to {size - 1:,}: {advice}"
            )
    if not (texts.labels >= 0).any():
        raise InvalidInputError(
            f"data {name}: no token of its {len(texts.tokens):,} texts counts: all are masked as prompt or padding; "
            "leave out the mask, or give texts with an answer after the prompt"
        )
