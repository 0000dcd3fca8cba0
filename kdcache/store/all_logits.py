"""All logits of rows: those of a full store, or those that follow from features and classifier.

Features are f16: logit j is off by at most 2^-11 times the sum over d of |feature d x weight jd|. The rows are held
against the soft labels beside them, so that a classifier which is not what answered is found out.
Shape letters: B rows, C classes, D width of the features.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.labels.encoding import Encoding
from kdcache.places.place import Place
from kdcache.store.manifest import Identity
from kdcache.store.reading import EncodedRows

Array = npt.NDArray[Any]

ROUNDING = 2.0**-11  # relative, of f16
SUMS = 1e-5  # relative, of sums in f32 in another order
SURE = -12.0  # log-probability above which classes are compared: below it gaps may be clamped


class Source(Protocol):
    """A store, as far as its logits are asked for."""

    folder: Place

    @property
    def identity(self) -> Identity: ...

    def load(self, view: int, positions: npt.ArrayLike, *, features: bool = False) -> EncodedRows: ...

    def head(self) -> dict[str, Array]: ...


def all_logits(store: Source, view: int, positions: npt.NDArray[np.int64]) -> Array:
    """All logits [B, C] f32 of one view at `positions` [B], as far as the store knows: a full store's own, else
    features @ weight.T + bias; -inf for masked classes. A row is known up to one number added to all of its logits.

    Raises MissingBlockError where the store keeps neither, and InvalidInputError where a row's logits do not give the
    soft labels that are stored for it, within quantising and the rounding of the features.
    """
    encoding, root = store.identity.encoding, store.folder.root
    encoding.require_log_probs("Store.logits")
    if encoding.COMPLETE:
        return np.asarray(store.load(view, positions).soft_labels().log_probs(1.0), dtype=np.float32)
    if not (encoding.features and encoding.head):
        raise MissingBlockError(
            f"{root} holds {encoding.described()}: all logits follow from features and head; extract with --keep "
            "features,head, or with --encoding full"
        )
    rows, head = store.load(view, positions, features=True), store.head()
    features_BD = rows.arrays["features"].astype(np.float32)
    logits_BC, error_B = head_logits(features_BD, head, store.identity.teacher.masked_classes)
    soft = rows.soft_labels()
    classes = np.asarray(soft.classes).astype(np.int64)
    expected = np.take_along_axis(normalised(logits_BC), classes, axis=1)
    difference, limit = deviation(expected, np.asarray(soft.log_probs(1.0)), error_B, encoding)
    wrong = np.flatnonzero(~(difference <= limit))
    if len(wrong):
        row = int(wrong[0])
        raise InvalidInputError(
            f"{root}: features and head do not give the stored soft labels of {len(wrong)} of {len(positions)} rows: "
            f"at position {positions[row]} of view {view} log-probabilities differ by {difference[row]:.3g}, "
            f"quantising and rounding explain {limit[row]:.3g}. The teacher does more than its last linear layer; "
            "extract with --encoding full"
        )
    return logits_BC


def head_logits(features_BD: Array, head: dict[str, Array], masked: Sequence[int]) -> tuple[Array, Array]:
    """Logits [B, C] f32 of features and classifier, -inf for masked classes, and the most [B] by which one of a row is
    off where the features are rounded to f16."""
    logits_BC = features_BD @ head["weight"].T + head["bias"]
    error_BC = np.abs(features_BD) @ np.abs(head["weight"]).T * ROUNDING + SUMS * np.abs(logits_BC)
    logits_BC[:, list(masked)], error_BC[:, list(masked)] = -np.inf, 0.0
    return logits_BC, error_BC.max(axis=1)


def normalised(logits_BC: Array) -> Array:
    """Log-probabilities [B, C] of logits."""
    log_probs_BC: Array = logits_BC - np.logaddexp.reduce(logits_BC, axis=1, keepdims=True)
    return log_probs_BC


def deviation(head_BK: Array, answered_BK: Array, error_B: Array, encoding: Encoding) -> tuple[Array, Array]:
    """By how much [B] log-probabilities of a classifier and of an answer differ at most, among classes that are not
    below both, and the most [B] that rounding and the encoding explain."""
    is_sure = np.maximum(head_BK, answered_BK) > SURE
    difference = np.where(is_sure, np.abs(np.where(is_sure, answered_BK, 0) - np.where(is_sure, head_BK, 0)), 0.0)
    limit = encoding.answer_error(float(head_BK.max(initial=0.0)) - SURE) + 2 * error_B
    return difference.max(axis=1), limit
