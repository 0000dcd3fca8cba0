"""Soft labels for a trainer of one's own: they join the batches that it makes, by the number of each text.

Shape letters: B texts, L tokens of the longest of them, S tokens of the store's texts, K kept classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError, ReplayError
from kdcache.objectives.batch import Batch
from kdcache.store.store import Store
from kdcache.training.text_batches import as_texts
from kdcache.views.fingerprint import token_fingerprints
from kdcache.views.texts import IGNORED

Feature = Mapping[str, Any]


class SoftLabelCollator:
    """A collator makes a batch of features as `collate` does, and adds the `Batch` that objectives take, under `key`:
    soft labels of texts for a trainer that you keep.

    Each feature's `input_ids` are compared with the ids that the teacher read, token by token, before anything is
    learned. A feature may be shorter than the store's texts: tokens beyond its own do not count, nor do those that its
    own `labels` (-100) or `attention_mask` (0) leave out.

    Args:
        store: A store of texts.
        collate: Makes a batch of the features; by default it stacks them.
        view: The view whose soft labels are read.
        key: Where the batch is put; a trainer that hands on nothing but its labels takes `labels`.
        row: The key of a feature that holds the number of its text in the data set that the store was extracted from.

    Raises InvalidInputError for a store of pictures.

    Examples:
        >>> collator = SoftLabelCollator(Store.open("texts.kd"))  # four texts of four tokens
        >>> collator([{"row": 2, "input_ids": [8, 9, 10, 11]}])["soft_labels"]
        Batch(1 texts, tokens 4 int64 cpu, view 0, epoch 0, step 0 of 1, 1 teacher)
    """

    def __init__(
        self,
        store: Store,
        collate: Callable[[Sequence[Feature]], Mapping[str, Any]] | None = None,
        *,
        view: int = 0,
        key: str = "soft_labels",
        row: str = "row",
    ) -> None:
        self.store, self.view, self.key, self.row = store, view, key, row
        self.collate = collate or torch.utils.data.default_collate
        self.sequence = store.identity.dataset.sequence
        if self.sequence == 1:
            raise InvalidInputError(f"{store.folder.root} holds pictures; the collator is for texts: use the Loader")
        texts = store.order[:: self.sequence] // self.sequence
        self._places = np.empty(len(texts), dtype=np.int64)
        self._places[texts] = np.arange(len(texts))

    def __call__(self, features: Sequence[Feature]) -> dict[str, Any]:
        """The batch of some features. Raises InvalidInputError for a feature without the number of its text and for a
        batch that is padded on the left, and ReplayError, naming text and token, for tokens that the teacher did not
        read."""
        texts = np.array([self._text(feature) for feature in features], dtype=np.int64)
        tokens = [_tokens(feature) for feature in features]
        others = [{name: value for name, value in feature.items() if name != self.row} for feature in features]
        if self.collate is torch.utils.data.default_collate:
            others = [{name: torch.as_tensor(value) for name, value in feature.items()} for feature in others]
        batch = dict(self.collate(others))
        length = int(batch["input_ids"].shape[1])
        if length > self.sequence:
            raise InvalidInputError(
                f"texts of {length} tokens were given, those of {self.store.folder.root} have {self.sequence}: cut "
                "them as the store's were cut"
            )
        _require_at_the_left(batch["input_ids"], tokens, texts)
        positions = (self._places[texts][:, None] * self.sequence + np.arange(length)).reshape(-1)
        rows = self.store.load(self.view, positions)
        self._require_same(texts, tokens, rows.arrays["pixels"].reshape(-1, length))
        labels = self.store.labels[positions].astype(np.int64).reshape(-1, length)
        for row, feature in enumerate(features):
            labels[row, : len(tokens[row])][~_counts(feature, len(tokens[row]))] = -1
            labels[row, len(tokens[row]) :] = -1
        flat = Batch(
            images=batch["input_ids"],
            y=torch.from_numpy(labels.reshape(-1)),
            y2=None,
            lam=None,
            positions=torch.from_numpy(positions),
            view=self.view,
            epoch=0,
            step=0,
            teachers=(rows.soft_labels().to(),),
        )
        return batch | {self.key: as_texts(flat, length)}

    def _text(self, feature: Feature) -> int:
        number = feature.get(self.row)
        count = len(self._places)
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or not 0 <= number < count:
            raise InvalidInputError(
                f"a feature has {self.row} {number!r}; give it the number of its text in the store's data set, 0 to "
                f"{count - 1}, for example by dataset.map(lambda text, i: {{{self.row!r}: i}}, with_indices=True)"
            )
        return int(number)

    def _require_same(self, texts: IntArray, tokens: Sequence[IntArray], stored: Any) -> None:
        for text, ids, fingerprints in zip(texts.tolist(), tokens, stored, strict=True):
            wrong = np.flatnonzero(token_fingerprints(ids, self.sequence) != fingerprints[: len(ids)])
            if len(wrong):
                raise ReplayError(
                    f"text {text} is not the one that the teacher of {self.store.folder.root} read, from token "
                    f"{wrong[0]} (id {int(ids[wrong[0]])}) on: use the texts, the tokenizer and the cuts that the "
                    f"store was made with, and give each text its own number as {self.row!r}"
                )


def _tokens(feature: Feature) -> IntArray:
    """The ids of a feature [L], without the padding that its `attention_mask` tells, which must be at its end."""
    ids = np.asarray(feature["input_ids"], dtype=np.int64).reshape(-1)
    if (mask := feature.get("attention_mask")) is None:
        return ids
    count = int((flags := np.asarray(mask).reshape(-1) != 0).sum())
    if not flags[:count].all():
        raise InvalidInputError(
            "a feature has padding before its tokens (attention_mask 0), and the teacher read none: pad at the right"
        )
    return ids[:count]


def _counts(feature: Feature, length: int) -> npt.NDArray[np.bool_]:
    """[L] true where the token that follows counts by the feature's own `labels`, which stand at their own token, -100
    where they do not; all without."""
    if (given := feature.get("labels")) is None:
        return np.ones(length, dtype=bool)
    labels = np.asarray(given).reshape(-1)
    return np.append(labels[1:length] != IGNORED, False)  # it does not tell what follows its last token


def _require_at_the_left(input_ids: Tensor, tokens: Sequence[IntArray], texts: IntArray) -> None:
    """Raises InvalidInputError where a batch [B, L] does not begin with the tokens of its features."""
    for row, (text, ids) in enumerate(zip(texts.tolist(), tokens, strict=True)):
        if not np.array_equal(input_ids[row, : len(ids)].cpu().numpy(), ids):
            raise InvalidInputError(
                f"the batch does not begin with the tokens of text {text}: its collate pads on the left, or changes "
                "them; pad on the right (padding_side='right')"
            )
