"""All logits of rows: those of a full store, or those that follow from features and classifier.

Features are f16: logit j is off by at most 2^-11 times the sum over d of |feature d x weight jd|. The rows are held
against the soft labels beside them, so that a classifier which is not what answered is found out.
Shape letters: B rows, C classes, D width of the features.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kdcache.errors import InvalidInputError, MissingBlockError
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
    logits_BC = features_BD @ head["weight"].T + head["bias"]
    error_BC = np.abs(features_BD) @ np.abs(head["weight"]).T * ROUNDING + SUMS * np.abs(logits_BC)
    masked = list(store.identity.teacher.masked_classes)
    logits_BC[:, masked], error_BC[:, masked] = -np.inf, 0.0
    soft = rows.soft_labels()
    classes = np.asarray(soft.classes).astype(np.int64)
    log_probs_BC = logits_BC - np.logaddexp.reduce(logits_BC, axis=1, keepdims=True)
    expected, stored = np.take_along_axis(log_probs_BC, classes, axis=1), np.asarray(soft.log_probs(1.0))
    difference = np.where(np.maximum(stored, expected) > SURE, np.abs(stored - expected), 0.0).max(axis=1)
    limit = encoding.answer_error(float(log_probs_BC.max(initial=0.0)) - SURE) + 2 * error_BC.max(axis=1)
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
