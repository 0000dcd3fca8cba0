"""Soft labels give log-probabilities at any temperature, the tail's mass, dense targets, and a smaller k.

`TopKLabels` and `FullLabels` share these methods; `TopKLabels` has a few more for its tail. Each works on numpy and on
torch, and returns the kind of array that the fields hold.

Shape letters: B any leading axes, K kept classes, C classes, L hard labels a row (no axis without mixing, 2 with).
"""

from dataclasses import dataclass, replace
from math import log
from typing import Literal

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import SKETCH_TEMPERATURES, Array, TopK, fill_at, logsumexp, reduce_topk
from kdcache.labels.tail import tail_logsumexp

Tail = Literal["uniform", "class-mean", "ghost", "none"]


@dataclass(frozen=True)
class TopKLabels:
    """Soft labels of B rows: the k best classes, and three numbers for all others, the tail.

    classes [B, K]: ids, best first. logits [B, K]: less the top one. tail [B, 3]: logsumexp of the other logits at
    T = 1, 2, 4, less the top logit (-inf: no tail). label [B] or [B, 2]: the hard label's logit less the top one (NaN:
    no label). num_classes: all classes. masked: the ids that count as absent. class_means [C] f32, where they were
    asked for: the mean logit of a class over the rows in which it lies in the tail, less the mean of that row's tail.

    A temperature is a number of 1 or more, or an array: without axes, or [B] with one for each row.
    """

    classes: Array
    logits: Array
    tail: Array
    label: Array
    num_classes: int
    masked: tuple[int, ...] = ()
    class_means: Array | None = None

    @property
    def k(self) -> int:
        return int(self.classes.shape[-1])

    @property
    def tail_classes(self) -> int:
        """The number of classes in the tail."""
        return self.num_classes - len(self.masked) - self.k

    def tail_log_mass(self, temperature: float | Array) -> Array:
        """[B] logsumexp of the tail's logits / T, the top logit being 0; from the sketch, see `tail.tail_logsumexp`."""
        check_temperature(temperature, full=False)
        return tail_logsumexp(self.tail, self.logits[..., -1], self.tail_classes, temperature)

    def log_normalizer(self, temperature: float | Array) -> Array:
        """[B] logsumexp over all classes of logits / T, the top logit being 0."""
        tail = self.tail_log_mass(temperature)
        return array_namespace(self.logits).logaddexp(logsumexp(self.logits / _column(temperature)), tail)

    def log_probs(self, temperature: float | Array) -> Array:
        """[B, K] log-probabilities of `classes`."""
        normalizer = self.log_normalizer(temperature)[..., None]
        return self.logits / _column(temperature) - normalizer

    def tail_log_prob(self, temperature: float | Array) -> Array:
        """[B] log-probability of all classes outside the top k together."""
        return self.tail_log_mass(temperature) - self.log_normalizer(temperature)

    def tail_mass(self, temperature: float | Array) -> Array:
        """[B] probability of all classes outside the top k."""
        return array_namespace(self.logits).exp(self.tail_log_prob(temperature))

    def label_log_prob(self, temperature: float | Array) -> Array:
        """[B] or [B, 2] log-probability of the hard label; NaN where there is none."""
        return _label_log_prob(self, temperature)

    def dense(self, temperature: float | Array, *, tail: Tail = "uniform") -> Array:
        """[B, C] probabilities; see `log_dense`."""
        return array_namespace(self.logits).exp(self.log_dense(temperature, tail=tail))

    def log_dense(self, temperature: float | Array, *, tail: Tail = "uniform") -> Array:
        """[B, C] log-probabilities; -inf where there is no probability.

        The tail's mass is spread evenly ("uniform") or by the store's class means ("class-mean"), or it is dropped and
        the head renormalised ("none"). Raises InvalidInputError for a ghost tail that is not empty.
        """
        xp = array_namespace(self.logits)
        log_head = self.log_probs(temperature)
        if tail == "none":
            log_head = log_head - logsumexp(log_head)[..., None]
        shape = (*self.logits.shape[:-1], self.num_classes)
        return _put(xp.broadcast_to(self._log_tail(temperature, tail), shape), self.classes, log_head)

    def _log_tail(self, temperature: float | Array, tail: Tail) -> Array:
        """[B, C], or [B, 1] where all are equal: the log-probability that each class has if it lies in the tail."""
        xp = array_namespace(self.logits)
        if tail == "none" or self.tail_classes == 0:
            return xp.full_like(self.logits[..., :1], -xp.inf)
        if tail not in ("uniform", "class-mean"):
            raise InvalidInputError(f"tail {tail!r} has no probability for each class; use uniform or class-mean")
        mass = self.tail_log_prob(temperature)[..., None]
        if tail == "class-mean":
            shares = xp.broadcast_to(self.tail_shares(temperature), (*self.logits.shape[:-1], self.num_classes))
            return mass + shares - logsumexp(fill_at(shares, self.classes, -xp.inf))[..., None]
        log_p = mass - log(self.tail_classes)
        if not self.masked:
            return log_p
        rows = self.logits.shape[:-1]
        masked_ids = xp.asarray(list(self.masked), device=device(self.logits))
        masked_ids = xp.broadcast_to(masked_ids, (*rows, len(self.masked)))
        return fill_at(xp.broadcast_to(log_p, (*rows, self.num_classes)), masked_ids, -xp.inf)

    def tail_shares(self, temperature: float | Array) -> Array:
        """[C] class means over T, -inf where masked; [B, C] where T is [B].

        The tail's mass is spread in proportion to their exponentials. Raises InvalidInputError where the soft labels
        carry no class means.
        """
        if self.class_means is None:
            raise InvalidInputError(
                "these soft labels carry no class means: load them with Loader(class_means=True), extract the store "
                "again if it has none (Store.class_means says so), or use tail uniform"
            )
        shares = self.class_means / _column(temperature)
        if self.masked:
            shares[..., list(self.masked)] = -array_namespace(shares).inf
        return shares

    def prefix(self, k: int) -> "TopKLabels":
        """The same rows with k' <= k classes; the logits that leave the head join the tail's sketch exactly."""
        if not 1 <= k <= self.k:
            raise InvalidInputError(f"top-k {k} was asked of soft labels that hold {self.k}: choose 1 to {self.k}")
        if k == self.k:
            return self
        xp = array_namespace(self.logits)
        sketch = [logsumexp(self.logits[..., k:] / temperature) for temperature in SKETCH_TEMPERATURES]
        tail = xp.logaddexp(self.tail, xp.stack(sketch, axis=-1))
        return replace(self, classes=self.classes[..., :k], logits=self.logits[..., :k], tail=tail)

    def torch(self, device: str = "cpu") -> "TopKLabels":
        """The same rows as torch tensors on a device; class ids become int64."""
        return replace(self, **_tensors(self, device))


@dataclass(frozen=True)
class FullLabels:
    """Soft labels of B rows that hold all logits.

    logits [B, C]: less the top one, -inf where masked. label, num_classes and masked as in TopKLabels.
    """

    logits: Array
    label: Array
    num_classes: int
    masked: tuple[int, ...] = ()

    @property
    def classes(self) -> Array:
        """[B, C] ids 0 to C - 1, in the order of `log_probs`."""
        xp = array_namespace(self.logits)
        return xp.broadcast_to(xp.arange(self.num_classes, device=device(self.logits)), self.logits.shape)

    def log_normalizer(self, temperature: float | Array) -> Array:
        """[B] logsumexp of logits / T, the top logit being 0."""
        check_temperature(temperature, full=True)
        return logsumexp(self.logits / _column(temperature))

    def log_probs(self, temperature: float | Array) -> Array:
        """[B, C] log-probabilities at any temperature above 0: a number, or an array as in TopKLabels."""
        normalizer = self.log_normalizer(temperature)[..., None]
        return self.logits / _column(temperature) - normalizer

    def tail_mass(self, temperature: float | Array) -> Array:
        """[B] zeros: nothing lies outside."""
        check_temperature(temperature, full=True)
        return array_namespace(self.logits).zeros_like(self.logits[..., 0])

    def label_log_prob(self, temperature: float | Array) -> Array:
        """[B] or [B, 2] log-probability of the hard label; NaN where there is none."""
        return _label_log_prob(self, temperature)

    def dense(self, temperature: float | Array, *, tail: Tail = "uniform") -> Array:
        """[B, C] probabilities; there is no tail to shape."""
        return array_namespace(self.logits).exp(self.log_dense(temperature, tail=tail))

    def log_dense(self, temperature: float | Array, *, tail: Tail = "uniform") -> Array:
        """[B, C] log-probabilities; there is no tail to shape."""
        return self.log_probs(temperature)

    def prefix(self, k: int) -> TopKLabels:
        """The same rows as top-k soft labels, reduced exactly as extract would have done."""
        classes = self.num_classes - len(self.masked)
        if not 1 <= k <= classes:
            raise InvalidInputError(f"top-k {k} was asked of {classes} classes: choose 1 to {classes}")
        xp = array_namespace(self.logits)
        no_labels = xp.full((*self.logits.shape[:-1], 1), -1, dtype=xp.int64, device=device(self.logits))
        rows: TopK = reduce_topk(self.logits, no_labels, k, self.masked)
        return TopKLabels(rows.classes, -rows.distances, rows.tail, self.label, self.num_classes, self.masked)

    def torch(self, device: str = "cpu") -> "FullLabels":
        """The same rows as torch tensors on a device."""
        return replace(self, **_tensors(self, device))


SoftLabels = TopKLabels | FullLabels


def check_temperature(temperature: float | Array, *, full: bool) -> None:
    """A temperature is 1 or more, above 0 for full soft labels. Raises InvalidInputError for any other number.

    Below T = 1 the sketch would extrapolate, and no three numbers can carry the tail. An array is not looked at: that
    would wait for the device at every step.
    """
    if not isinstance(temperature, int | float):
        return
    if not (temperature > 0 if full else temperature >= 1):
        limit = "above 0" if full else "1 or more: a top-k store's tail is known between T = 1 and infinity"
        advice = "" if full else "; extract with --encoding full for lower temperatures"
        raise InvalidInputError(f"temperature {temperature} was asked for; it must be {limit}{advice}")


def _column(temperature: float | Array) -> float | Array:
    """The temperature in a shape that broadcasts with [B, K]: [B] gets an axis."""
    return temperature if isinstance(temperature, int | float) or temperature.ndim == 0 else temperature[..., None]


def _label_log_prob(soft: SoftLabels, temperature: float | Array) -> Array:
    normalizer = soft.log_normalizer(temperature)
    if soft.label.ndim > normalizer.ndim:
        return soft.label / _column(temperature) - normalizer[..., None]
    return soft.label / temperature - normalizer


def _put(base: Array, classes: Array, values: Array) -> Array:
    """A copy of `base` with `values` at `classes`. Gradients pass through tensors, as a learned temperature needs."""
    if is_numpy_namespace(array_namespace(base)):
        base = base.copy()
        np.put_along_axis(base, classes.astype(np.int64), values, axis=-1)
        return base
    return base.scatter(-1, classes, values)


def _tensors(soft: SoftLabels, device: str) -> dict[str, Array]:
    import torch  # the store side stays importable without it

    from kdcache.base.devices import to_device

    fields = dict.fromkeys(("logits", "tail", "label", "class_means"), torch.float32) | {"classes": torch.int64}
    return {
        name: to_device(torch.as_tensor(value).to(dtype), device)
        for name, dtype in fields.items()
        if (value := vars(soft).get(name)) is not None
    }
