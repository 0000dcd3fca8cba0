"""The rows of a block of an imported store: each token of its texts gets the answer that stands at it in its file.

What has no answer, padding and the last token of a row, gets that of a teacher who knows nothing: the same probability
for every class, and no label.

Shape letters: R rows of a block, K kept classes, S tokens of a text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from kdcache.base.arrays import Array, IntArray
from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import topk_of_log_probs
from kdcache.pipelines.importing.capture import Capture, RowAnswers, sound_answers
from kdcache.store.commits import Counts
from kdcache.store.manifest import Identity
from kdcache.views.contents import content_fingerprint
from kdcache.views.data import Data
from kdcache.views.fingerprint import token_fingerprints
from kdcache.views.texts import Texts

LEAST = 32  # best classes that can tell one alignment from another


@dataclass(frozen=True)
class BlockAnswers:
    """The answers of a block: `classes` [R, K], `log_probs` [R, K] and `labels` [R] as `RowAnswers` has them, NaN where
    unknown; `answered` [R]; and how many were `normalised`."""

    classes: IntArray
    log_probs: Array
    labels: Array
    answered: Array
    normalised: int


class BlockRows:
    """Gives the answers of blocks, whose rows of tokens are read one after the other."""

    def __init__(self, capture: Capture, classes: int, sequence: int, *, normalise: bool) -> None:
        self._capture, self._classes, self._sequence = capture, classes, sequence
        self._starts = capture.rows.starts(sequence)
        self._check: Callable[[RowAnswers], tuple[RowAnswers, int]] = lambda answers: sound_answers(
            answers, capture, classes, normalise=normalise
        )
        self._answers: Iterator[RowAnswers] = iter(())
        self._row, self._current = -1, (RowAnswers("", np.empty((0, 0), np.int64), np.empty((0, 0))), 0)

    def of(self, start: int, stop: int) -> BlockAnswers:
        """The answers of positions start to stop - 1, whole texts. Raises as `sound_answers` does."""
        size, k, sequence = stop - start, self._capture.k, self._sequence
        classes = np.tile(np.arange(k), (size, 1))
        log_probs = np.full((size, k), -np.log(self._classes))
        labels, answered, normalised = np.full(size, np.nan), np.zeros(size, dtype=bool), 0
        for place, (row, first) in enumerate(self._starts[start // sequence : stop // sequence]):
            answers, count_normalised = self._of_row(row)
            normalised += count_normalised if first == 0 else 0
            part = slice(first, first + sequence)
            count = len(answers.classes[part])
            rows = slice(place * sequence, place * sequence + count)
            classes[rows], log_probs[rows], answered[rows] = answers.classes[part], answers.log_probs[part], True
            if answers.labels is not None:
                labels[rows] = answers.labels[part]
        return BlockAnswers(classes, log_probs, labels, answered, normalised)

    def _of_row(self, row: int) -> tuple[RowAnswers, int]:
        if row != self._row:
            if row != self._row + 1 or row == 0:
                self._answers = self._capture.answers_from(row)
            self._row, self._current = row, self._check(next(self._answers))
        return self._current


def require_aligned(answers: BlockAnswers, data: Data) -> None:
    """Raises InvalidInputError where best classes in the first rows are the tokens at which they stand, and not those
    that follow."""
    samples, end = cast(Texts, data.samples), len(answers.answered)
    labels, tokens = data.labels[:end], np.asarray(samples.tokens[: end // data.sequence]).reshape(-1)
    labelled = answers.answered & (labels >= 0)
    best = answers.classes[labelled, 0]
    hits_here, hits_next = int((best == tokens[labelled]).sum()), int((best == labels[labelled]).sum())
    if hits_here > LEAST and hits_here > 2 * hits_next:
        raise InvalidInputError(
            f"the best class is the token itself in {hits_here:,} of the first {int(labelled.sum()):,} answers, "
            f"and the token that follows in {hits_next:,}: an answer stands at the token before its subject; shift them"
        )


def encoded_block(
    identity: Identity, answers: BlockAnswers, data: Data, start: int, end: int
) -> tuple[dict[str, Array], Counts]:
    """The arrays of a block, positions start to end - 1, and its counts."""
    space, texts = identity.space, range(start // data.sequence, end // data.sequence)
    labels = data.labels[start:end, None]
    tail_classes = space.visible - identity.kept
    rows = topk_of_log_probs(answers.classes, answers.log_probs, labels, tail_classes, answers.labels[:, None])
    encoded = identity.encoding.encode({name: values[None] for name, values in vars(rows).items()}, space)
    samples = cast(Texts, data.samples)
    pixels = np.concatenate([token_fingerprints(samples.tokens[text]) for text in texts])
    contents = [content_fingerprint(samples, text, None, "bytes") for text in texts]
    labelled = answers.answered & (labels[:, 0] >= 0)
    counts = Counts.model_validate(
        {
            "clamped": int(encoded.clamped.sum()),
            "labelled": int(labelled.sum()),
            "correct": int((answers.classes[labelled, 0] == labels[labelled, 0]).sum()),
            "normalised": answers.normalised,
        }
    )
    arrays = {"pixels": pixels[None], "contents": np.repeat(np.array(contents, np.uint32), data.sequence)[None]}
    return encoded.arrays | arrays, counts
