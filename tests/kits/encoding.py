"""Rows as an encoding writes them, and soft labels of rows that were only reduced.

Shape letters: B any leading axes, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.labels.encoding import Encoded, Encoding, LabelSpace
from kdcache.labels.full import FullEncoding
from kdcache.labels.reduction import TopK
from kdcache.labels.topk_labels import TopKLabels, read_topk

Array = npt.NDArray[Any]


def encode_topk(rows: TopK, encoding: Encoding, classes: int, masked: Sequence[int] = ()) -> Encoded:
    """Reduced rows as a top-k encoding writes them."""
    return encoding.encode(dict(vars(rows)), LabelSpace(classes, tuple(masked)))


def encode_full(logits: Array) -> Encoded:
    """Logits [B, C] as the full encoding writes them; masked ones are -inf."""
    space = LabelSpace(logits.shape[-1])
    no_labels = np.full((*logits.shape[:-1], 1), -1)
    return FullEncoding().encode(FullEncoding().reduce(logits, no_labels, space), space)


def labels_of(kept: TopK, classes: int, masked: tuple[int, ...] = (), means: Any = None) -> TopKLabels:
    """Soft labels of reduced rows, not quantised, with class means [C] where they are given."""
    return read_topk(kept, classes, masked, -kept.label[..., 0]).with_class_means(means)
