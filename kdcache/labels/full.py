"""The full encoding keeps all logits, max-centred in f16, and its soft labels have no tail.

Shape letters: B any leading axes, C classes, K kept classes, L hard labels a row, R rows.
"""

from dataclasses import dataclass
from math import nan
from typing import ClassVar, Literal, Self

import numpy as np
from array_api_compat import array_namespace, device

from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import UPWARD, Choice, Encoded, Encoding, LabelSpace, RowArray
from kdcache.labels.reduction import (
    Array,
    TopK,
    best_classes,
    centre,
    class_logits,
    label_distances,
    logsumexp,
    reduce_topk,
)
from kdcache.labels.soft_labels import SoftLabels, Tail
from kdcache.labels.spread import Spread
from kdcache.labels.temperatures import column, require_only
from kdcache.labels.topk_labels import TopKLabels, read_topk

LOWEST = -65504.0  # of f16
ROUNDING = 2.0**-10  # of f16, against the distance to the top


@dataclass(frozen=True)
class FullLabels(SoftLabels):
    """Full soft labels hold all logits [B, C] of B rows, by class id; -inf where masked. `SoftLabels` has the other
    fields.

    Attributes:
        subclasses: The number of the C entries that stand for each class of the hard labels. Above 1 an entry, and
            `top_class`, is a subclass; `by_class` gives the classes, and hard labels can be asked for at T = 1 alone.

    Examples:
        >>> soft.top_class, soft.dense(1.0)[0]
        (tensor([0, 1]), tensor([0.7054, 0.2595, 0.0351]))
    """

    subclasses: int = 1

    COMPLETE: ClassVar[bool] = True

    @property
    def classes(self) -> Array:
        """[B, C] ids 0 to C - 1, in the order of `log_probs`."""
        xp = array_namespace(self.logits)
        return xp.broadcast_to(xp.arange(self.num_classes, device=device(self.logits)), self.logits.shape)

    @property
    def tail_classes(self) -> int:
        """0: nothing lies outside."""
        return 0

    @property
    def top_class(self) -> Array:
        """[B] id of the most likely class."""
        return array_namespace(self.logits).argmax(self.logits, axis=-1)

    def best(self, k: int) -> Array:
        """[B, k] i64 ids of the k most likely classes, the best one first; equal logits by id."""
        return best_classes(self.logits, k)

    def tail_log_mass(self, temperature: float | Array) -> Array:
        """[B] of -inf."""
        self.require_temperature(temperature)
        xp = array_namespace(self.logits)
        return xp.full_like(self.logits[..., 0], -xp.inf)

    def tail_moments(self) -> tuple[Array, Array]:
        """Zeros [B]."""
        return self.tail_mean(), self.tail_mean()

    def tail_mean(self) -> Array:
        """Zeros [B]."""
        return array_namespace(self.logits).zeros_like(self.logits[..., 0])

    def log_normalizer(self, temperature: float | Array) -> Array:
        """[B] logsumexp of logits / T, the top logit being 0."""
        self.require_temperature(temperature)
        return logsumexp(self.logits / column(temperature))

    def log_spread(self, temperature: float | Array, *, tail: Tail = "uniform") -> Spread:
        """[B, C] log-probabilities; there is no tail to shape."""
        return Spread.of(self.log_probs(temperature))

    def logit_spread(self, offsets: Array | None = None) -> Spread:
        """[B, C] logits, -inf where masked."""
        return Spread.of(self.logits)

    def by_class(self) -> "FullLabels":
        """The same rows with the logits [B, C / S] of the classes, see `kdcache.class_logits`."""
        if self.subclasses == 1:
            return self
        logits = class_logits(self.logits, self.subclasses)
        top = array_namespace(logits).max(logits, axis=-1)
        label = self.label - (top[..., None] if self.label.ndim > top.ndim else top)
        return FullLabels(logits - top[..., None], label, logits.shape[-1])

    def label_log_prob(self, temperature: float | Array) -> Array:
        """[B] or [B, 2] log-probability of the hard label; NaN where there is none. Raises InvalidInputError for
        subclasses at another temperature than 1, where they have no sum that this holds."""
        if self.subclasses > 1:
            advice = "ask their classes by by_class(), or train with --subclasses 1"
            require_only(temperature, 1.0, f"hard labels of {self.subclasses} subclasses", advice)
        return super().label_log_prob(temperature)

    def prefix(self, k: int) -> TopKLabels:
        """The same rows as top-k soft labels, reduced exactly as extract would have done."""
        if self.subclasses > 1:
            raise InvalidInputError(
                f"top-k {k} was asked of soft labels with {self.subclasses} subclasses a class, which need all logits; "
                "leave --top-k out, or ask their classes by by_class()"
            )
        visible = self.num_classes - len(self.masked)
        if not 1 <= k <= visible:
            raise InvalidInputError(f"top-k {k} was asked of {visible} classes: choose 1 to {visible}")
        xp = array_namespace(self.logits)
        no_labels = xp.full((*self.logits.shape[:-1], 1), -1, dtype=xp.int64, device=device(self.logits))
        return read_topk(self.reduced(k, no_labels), self.num_classes, self.masked, self.label)

    def reduced(self, k: int, hard_BL: Array) -> TopK:
        """The k best classes as `reduction.reduce_topk` gives them."""
        return reduce_topk(self.logits, hard_BL, k, self.masked)


class FullEncoding(Encoding):
    """All logits as f16. `k` and `quantisation` stand in the record for the digests of older stores alone."""

    name: Literal["full"] = "full"
    k: None = None
    quantisation: Literal["default", "high"] = "default"

    COMPLETE: ClassVar[bool] = True
    HOLDS_LABEL: ClassVar[bool] = False

    @classmethod
    def chosen(cls, choice: Choice, space: LabelSpace, *, like: Encoding | None = None) -> Self:
        """All logits, whatever the choice says of top-k."""
        return cls()

    @classmethod
    def narrowed(cls, source: Encoding, choice: Choice, space: LabelSpace) -> Self:
        """The source itself, which must hold all logits."""
        if not isinstance(source, cls):
            raise InvalidInputError(f"all logits were asked of a store that holds {source.logits_kept}; {UPWARD}")
        if choice.quantisation or choice.packing:
            raise InvalidInputError("the store holds all logits, which have no gaps to quantise or pack; give --top-k")
        return source

    @property
    def logits_kept(self) -> str:
        return "all logits"

    def kept(self, space: LabelSpace) -> int:
        return space.classes

    def require_fit(self, space: LabelSpace) -> None:
        """Fits any number of classes."""

    def arrays(self, space: LabelSpace) -> dict[str, RowArray]:
        return {"logits": RowArray("float16", "all logits less the top one", back=(space.classes,), struck=nan)}

    def reduce(self, logits_BC: Array, labels_BL: Array, space: LabelSpace) -> dict[str, Array]:
        """`logits` [B, C] f16, `clamped` [B] and `label` [B, L]. Masked classes are -inf, all others are clipped to
        f16's lowest value. On the teacher's device that halves the bytes that are copied."""
        centred_BC = centre(logits_BC, space.masked)
        xp = array_namespace(centred_BC)
        too_low = (centred_BC < LOWEST) & (centred_BC > -xp.inf)
        clipped_BC = xp.where(too_low, xp.full_like(centred_BC, LOWEST), centred_BC)
        return {
            "logits": xp.astype(clipped_BC, xp.float16),
            "clamped": xp.any(too_low, axis=-1),
            "label": label_distances(_by_class(centred_BC, space), labels_BL),
        }

    def encode(self, fields: dict[str, Array], space: LabelSpace) -> Encoded:
        return Encoded({"logits": fields["logits"]}, fields["clamped"])

    def decode(self, arrays: dict[str, Array], space: LabelSpace) -> FullLabels:
        return FullLabels(
            logits=arrays["logits"].astype(np.float32),
            label=_label_logits(arrays["logits"], arrays["hard"].astype(np.int64), space),
            num_classes=space.classes,
            masked=space.masked,
            subclasses=space.subclasses,
        )

    def fields_of(self, soft: SoftLabels, hard_RL: Array, space: LabelSpace) -> dict[str, Array]:
        """The logits as they are: f16, read as f32."""
        if not soft.COMPLETE:
            raise InvalidInputError(f"all logits were asked of rows that hold {soft.k} of {space.classes}; {UPWARD}")
        clamped = np.zeros(len(soft.logits), dtype=bool)
        return {
            "logits": soft.logits.astype(np.float16),
            "clamped": clamped,
            "label": label_distances(_by_class(soft.logits, space), hard_RL),
        }

    def at_limit(self, arrays: dict[str, Array], kept: int) -> Array:
        return np.asarray((arrays["logits"] == LOWEST).any(axis=1))

    def answer_error(self, span: float) -> float:
        return ROUNDING * max(1.0, span)


def _by_class(logits_BC: Array, space: LabelSpace) -> Array:
    """Logits by the classes of hard labels, the top one 0."""
    return logits_BC if space.subclasses == 1 else centre(class_logits(logits_BC, space.subclasses))


def _label_logits(logits: Array, labels: Array, space: LabelSpace) -> Array:
    """Logits f32 of the hard labels [R] or [R, 2], NaN for none and for masked classes: the encoding stores no label
    distance."""
    classes = labels if labels.ndim == 2 else labels[:, None]
    if space.subclasses > 1:
        logits = class_logits(logits.astype(np.float32), space.subclasses)
    values = np.take_along_axis(logits, np.maximum(classes, 0), axis=1).astype(np.float32)
    values = np.where((classes >= 0) & np.isfinite(values), values, np.float32(np.nan))
    return values if labels.ndim == 2 else values[:, 0]
