"""Top-k soft labels: the k best classes, and three numbers for all others, the tail.

Shape letters: B any leading axes, K kept classes, C classes, L hard labels a row.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from array_api_compat import array_namespace

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import SKETCH_TEMPERATURES, Array, TopK, logsumexp
from kdcache.labels.soft_labels import SoftLabels, Tail
from kdcache.labels.tail import tail_logit_mean, tail_logsumexp, tail_mean, tail_moments
from kdcache.labels.temperatures import column, require_only

MASS_HOLDER = "a tail of which the mass alone was kept"
MASS_ADVICE = "use T = 1, or drop the tail by tail none"


def require_mass(temperature: float | Array) -> None:
    """Raises InvalidInputError for any temperature but 1, at which alone the tail's mass is known."""
    require_only(temperature, 1.0, MASS_HOLDER, MASS_ADVICE)


@dataclass(frozen=True, kw_only=True)
class TopKLabels(SoftLabels):
    """Top-k soft labels hold the k best classes of B rows, and three numbers for all others; `SoftLabels` has the other
    fields.

    Attributes:
        classes: [B, K] ids, best first.
        tail: [B, 3] logsumexp of the other logits at T = 1, 2, 4, less the top logit, -inf without a tail; or [B, 1],
            the tail's mass at T = 1 alone.
        class_means: [C] f32, where they were asked for: the mean logit of a class over the rows in which it lies in the
            tail, less the mean of that row's tail.

    Examples:
        >>> rows = store.read(view=0, positions=[0, 1])
        >>> rows.classes.shape, rows.tail_classes
        ((2, 3), 7)
    """

    classes: Array
    tail: Array
    class_means: Array | None = None

    BY_ROW: ClassVar[tuple[str, ...]] = ("classes", "logits", "tail", "label")

    def require_temperature(self, temperature: float | Array, *, tail: Tail = "uniform") -> None:
        """Raises InvalidInputError below T = 1, and where the tail's mass is not known at a temperature."""
        super().require_temperature(temperature)
        if self.tail.shape[-1] == 1 and tail != "none":
            require_mass(temperature)

    @property
    def tail_classes(self) -> int:
        """The number of classes in the tail."""
        return self.num_classes - len(self.masked) - self.k

    @property
    def top_class(self) -> Array:
        """[B] id of the most likely class."""
        return self.classes[..., 0]

    def best(self, k: int) -> Array:
        """[B, k] i64 ids of the k most likely classes."""
        xp = array_namespace(self.classes)
        return xp.astype(self.classes[..., :k], xp.int64)

    def tail_log_mass(self, temperature: float | Array) -> Array:
        """[B] logsumexp of the tail's logits / T, the top logit being 0; from the sketch, see `tail.tail_logsumexp`."""
        self.require_temperature(temperature)
        return tail_logsumexp(self.tail, self.logits[..., -1], self.tail_classes, temperature)

    def tail_moments(self) -> tuple[Array, Array]:
        """Mean and variance [B] of the tail's logits, see `tail.tail_moments`. Raises InvalidInputError where its mass
        at T = 1 is all that is known."""
        self._require_moments()
        return tail_moments(self.tail, self.logits[..., -1], self.tail_classes)

    def tail_logit_mean(self) -> Array:
        """[B] mean of the tail's logits: the first of `tail_moments`, without the work for the other."""
        self._require_moments()
        return tail_logit_mean(self.tail, self.logits[..., -1], self.tail_classes)

    def _require_moments(self) -> None:
        if self.tail.shape[-1] == 1 and self.tail_classes > 1:
            raise InvalidInputError(f"the mean of a tail's logits was asked of {MASS_HOLDER}; {MASS_ADVICE}")

    def tail_mean(self) -> Array:
        """[B] mean of the tail's logits under their own softmax at T = 1, see `tail.tail_mean`."""
        return tail_mean(self.tail, self.logits[..., -1], self.tail_classes)

    def tail_shares(self, temperature: float | Array) -> Array:
        """[C] class means over T, -inf where masked; [B, C] where T is [B]."""
        if self.class_means is None:
            return super().tail_shares(temperature)
        shares = self.class_means / column(temperature)
        if self.masked:
            shares[..., list(self.masked)] = -array_namespace(shares).inf
        return shares

    def with_class_means(self, means: Array | None) -> Self:
        """The same rows with class means [C] of their store, or without any."""
        return replace(self, class_means=means)

    def prefix(self, k: int) -> "TopKLabels":
        """The same rows with k' <= k classes; the logits that leave the head join the tail's sketch exactly.

        Examples:
            >>> store.read(view=0, positions=[0, 1]).prefix(2).classes.shape
            (2, 2)
        """
        if not 1 <= k <= self.k:
            raise InvalidInputError(f"top-k {k} was asked of soft labels that hold {self.k}: choose 1 to {self.k}")
        if k == self.k:
            return self
        xp = array_namespace(self.logits)
        temperatures = SKETCH_TEMPERATURES[: self.tail.shape[-1]]
        sketch = [logsumexp(self.logits[..., k:] / temperature) for temperature in temperatures]
        tail = xp.logaddexp(self.tail, xp.stack(sketch, axis=-1))
        return replace(self, classes=self.classes[..., :k], logits=self.logits[..., :k], tail=tail)

    def reduced(self, k: int, hard_BL: Array) -> TopK:
        """The k best classes as `reduction.reduce_topk` gives them; logits join the tail in f64."""
        rows = self.wide().prefix(k)
        label = rows.label if rows.label.ndim == hard_BL.ndim else rows.label[..., None]
        return TopK(rows.classes, -rows.logits, rows.tail, -label)


def read_topk(rows: TopK, num_classes: int, masked: tuple[int, ...], label: Array | None = None) -> TopKLabels:
    """Soft labels of reduced rows. `label` [B] or [B, 2]: the hard label's logit less the top one, by default none."""
    label = np.full_like(rows.distances[..., 0], np.nan) if label is None else label
    return TopKLabels(
        classes=rows.classes,
        logits=-rows.distances,
        tail=rows.tail,
        label=label,
        num_classes=num_classes,
        masked=masked,
    )
