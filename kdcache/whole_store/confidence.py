"""The teacher's confidence in hard labels, from a store: its margin by class, and its loss on each row.

Shape letters: N rows of the store, C classes.
"""

import numpy as np
import numpy.typing as npt

from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.store.store import Store
from kdcache.whole_store.labelled_pieces import labelled_pieces, require_one_label

Floats = npt.NDArray[np.float64]


def class_margins(store: Store, view: int | None = None) -> Floats:
    """[C] means over the labelled rows of each class y of p(y) - max over other classes of p, at T = 1, from one view
    (the first by default); NaN for a class without a row, -1 for a masked one, which the teacher never answers.

    Exact on full and on top-k stores of two classes or more: the label's logit is stored, and the runner-up is one of
    the two best. Raises InvalidInputError for other stores, mixed views and a store without labelled rows.
    """
    require_one_label(store, advice="take an unmixed store of held-out rows")
    store.identity.encoding.require_log_probs("a margin")
    if store.identity.kept < 2:
        raise InvalidInputError(
            f"{store.folder.root} keeps {store.identity.kept} class, a margin needs the 2 best; extract with --top-k 2"
        )
    classes = store.identity.teacher.label_classes
    sums, counts = np.zeros(classes), np.zeros(classes)
    for _, soft, hard in labelled_pieces(store, store.every_view[0] if view is None else view):
        sums += np.bincount(hard, weights=_margins(soft, hard), minlength=classes)
        counts += np.bincount(hard, minlength=classes)
    if not counts.any():
        raise InvalidInputError(f"{store.folder.root} has no row with a hard label; extract labelled rows")
    with np.errstate(invalid="ignore"):
        margins: Floats = sums / counts
    margins[list(store.identity.teacher.masked_classes)] = -1.0
    return margins


def label_losses(store: Store, view: int) -> Floats:
    """[N] -log p(hard label) in nats at T = 1 of each position of a view, NaN without an answer or a label. Exact on
    full and top-k stores. Raises InvalidInputError for other stores and mixed views."""
    require_one_label(store, advice="take an unmixed store")
    store.identity.encoding.require_log_probs("the loss of a row")
    losses = np.full(store.rows, np.nan)
    for positions, soft, _ in labelled_pieces(store, view):
        losses[positions] = -soft.label_log_prob(1.0)
    return losses


def _margins(soft: SoftLabels, hard: npt.NDArray[np.int64]) -> Floats:
    """[B] p(y) less the largest probability of another class."""
    second, first = np.sort(np.asarray(soft.log_probs(1.0)), axis=-1)[:, -2:].T
    is_best = np.asarray(soft.top_class) == hard
    label = np.exp(np.asarray(soft.label_log_prob(1.0)))
    margins: Floats = label - np.exp(np.where(is_best, second, first))
    return margins
