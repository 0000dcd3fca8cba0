"""Soft labels give log-probabilities at any temperature, the tail's mass, dense targets, and a smaller k.

All kinds share the protocol of `SoftLabels`. Each works on numpy and on torch, and returns the kind of array that the
fields hold.

Shape letters: B any leading axes, K kept classes, C classes, L hard labels a row (no axis without mixing, 2 with).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, log, prod
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from array_api_compat import array_namespace, device, is_torch_namespace

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import Array, TopK, fill_at, logsumexp
from kdcache.labels.spread import Spread
from kdcache.labels.temperatures import column, require_temperature

if TYPE_CHECKING:
    import torch

Tail = Literal["uniform", "class-mean", "ghost", "none"]


@dataclass(frozen=True)
class SoftLabels(ABC):
    """Soft labels hold a teacher's answers to B rows: a head of K classes with known logits, and a tail of all others.

    A temperature is a number, or an array: without axes, or [B] with one for each row. With a tail it is 1 or more,
    without one above 0. Raises InvalidInputError for any other number.

    Attributes:
        logits: [B, K] less the top one, -inf where masked.
        label: [B] or [B, 2] the hard label's logit less the top one; NaN without a label.
        num_classes: The number C of all classes.
        masked: Ids of the classes that count as absent.

    Examples:
        >>> soft.prefix(1).tail_mass(2.0)  # the probability of all classes but the best one
        tensor([0.4535, 0.4935])
    """

    logits: Array
    label: Array
    num_classes: int
    masked: tuple[int, ...] = ()

    COMPLETE: ClassVar[bool] = False  # the logits are those of all classes, by id
    DRAWN: ClassVar[bool] = False  # no logit is known: `draws` [B, R] serve a forward cross-entropy alone
    BY_ROW: ClassVar[tuple[str, ...]] = ("logits", "label")  # fields that have rows

    if TYPE_CHECKING:  # a field of those with a tail

        @property
        def classes(self) -> Array: ...

        @property
        def draws(self) -> Array: ...

    @property
    def k(self) -> int:
        """The number K of classes in the head."""
        return int(self.logits.shape[-1])

    @property
    def subclasses(self) -> int:
        """The number of entries that stand for each class of the hard labels."""
        return 1

    @property
    @abstractmethod
    def tail_classes(self) -> int:
        """The number of classes in the tail."""

    @property
    @abstractmethod
    def top_class(self) -> Array:
        """[B] id of the most likely class."""

    @abstractmethod
    def best(self, k: int) -> Array:
        """[B, k] i64 ids of the k most likely classes, the best one first; equal logits by id."""

    @abstractmethod
    def tail_log_mass(self, temperature: float | Array) -> Array:
        """[B] logsumexp of the tail's logits / T, the top logit being 0; -inf without a tail."""

    @abstractmethod
    def tail_moments(self) -> tuple[Array, Array]:
        """Mean and variance [B] of the tail's logits, each class counting once, the top logit being 0."""

    @abstractmethod
    def tail_mean(self) -> Array:
        """[B] mean of the tail's logits under their own softmax at T = 1, the top logit being 0; 0 without a tail."""

    def tail_logit_mean(self) -> Array:
        """[B] mean of the tail's logits: the first of `tail_moments`."""
        return self.tail_moments()[0]

    @abstractmethod
    def prefix(self, k: int) -> "SoftLabels":
        """The same rows with the k best classes; the others join the tail. Raises InvalidInputError for more than are
        held."""

    @abstractmethod
    def reduced(self, k: int, hard_BL: Array) -> TopK:
        """The k best classes as `reduction.reduce_topk` gives them, in f64 where logits join a tail. `hard_BL` [B, L]:
        hard labels."""

    def by_class(self) -> Self:
        """The same rows by the classes of hard labels: of a teacher with subclasses the sums over each class's."""
        return self

    def require_temperature(self, temperature: float | Array, *, tail: Tail = "uniform") -> None:
        """Raises InvalidInputError for a temperature at which these rows are not known. With `tail` "none" the mass of
        the tail is not asked for."""
        require_temperature(temperature, complete=self.COMPLETE)

    def log_normalizer(self, temperature: float | Array) -> Array:
        """[B] logsumexp over all classes of logits / T, the top logit being 0."""
        tail = self.tail_log_mass(temperature)
        return array_namespace(self.logits).logaddexp(logsumexp(self.logits / column(temperature)), tail)

    def log_probs(self, temperature: float | Array) -> Array:
        """[B, K] log-probabilities of `classes`.

        Examples:
            >>> soft.log_probs(2.0)[0]
            tensor([-0.6041, -1.1041, -2.1041])
        """
        normalizer = self.log_normalizer(temperature)[..., None]
        return self.logits / column(temperature) - normalizer

    def tail_log_prob(self, temperature: float | Array) -> Array:
        """[B] log-probability of all classes of the tail together."""
        return self.tail_log_mass(temperature) - self.log_normalizer(temperature)

    def tail_mass(self, temperature: float | Array) -> Array:
        """[B] probability of all classes of the tail."""
        return array_namespace(self.logits).exp(self.tail_log_prob(temperature))

    def label_log_prob(self, temperature: float | Array) -> Array:
        """[B] or [B, 2] log-probability of the hard label; NaN where there is none.

        Examples:
            >>> soft.label_log_prob(1.0)
            tensor([-0.3490, -1.4076])
        """
        normalizer = self.log_normalizer(temperature)
        if self.label.ndim > normalizer.ndim:
            return self.label / column(temperature) - normalizer[..., None]
        return self.label / temperature - normalizer

    def dense(self, temperature: float | Array, *, tail: Tail = "uniform") -> Array:
        """[B, C] probabilities; see `log_dense`.

        Examples:
            >>> soft.prefix(1).dense(2.0, tail="uniform")[0]
            tensor([0.5465, 0.2267, 0.2267])
        """
        return array_namespace(self.logits).exp(self.log_dense(temperature, tail=tail))

    def log_dense(self, temperature: float | Array, *, tail: Tail = "uniform") -> Array:
        """[B, C] log-probabilities; -inf where there is no probability. See `log_spread`."""
        return self.log_spread(temperature, tail=tail).dense()

    def log_spread(self, temperature: float | Array, *, tail: Tail = "uniform") -> Spread:
        """The log-probabilities [B, C] as the head's and the tail's.

        The tail's mass is spread evenly ("uniform") or by the store's class means ("class-mean"), or it is dropped and
        the head renormalised ("none"). Raises InvalidInputError for a ghost tail that is not empty.
        """
        self.require_temperature(temperature, tail=tail)
        log_head = self.logits / column(temperature)
        if tail == "none":
            log_head = log_head - logsumexp(log_head)[..., None]
            return self._spread(array_namespace(log_head).full_like(log_head[..., :1], -inf), log_head)
        mass = self.tail_log_mass(temperature)
        xp = array_namespace(log_head)
        of_head = log_head.logsumexp(dim=-1) if is_torch_namespace(xp) else logsumexp(log_head)
        normalizer = xp.logaddexp(of_head, mass)
        log_tail = self._log_tail((mass - normalizer)[..., None], temperature, tail)
        return self._spread(log_tail, log_head - normalizer[..., None])

    def _log_tail(self, log_mass: Array, temperature: float | Array, tail: Tail) -> Array:
        """[B, C], or [B, 1] where all are equal: the log-probability that each class has if it lies in the tail, from
        that of the whole tail [B, 1]."""
        if not self.tail_classes:
            return log_mass
        if tail not in ("uniform", "class-mean"):
            raise InvalidInputError(f"tail {tail!r} has no probability for each class; use uniform or class-mean")
        if tail == "uniform":
            return self._without_masked(log_mass - log(self.tail_classes))
        xp = array_namespace(log_mass)
        shares = xp.broadcast_to(self.tail_shares(temperature), (*self.logits.shape[:-1], self.num_classes))
        return log_mass + shares - logsumexp(fill_at(shares, self.classes, -inf))[..., None]

    def _spread(self, base: Array, head: Array) -> Spread:
        return Spread(base, self.classes, head, self.num_classes)

    def all_logits(self, offsets: Array | None = None) -> Array:
        """[B, C] logits, -inf where masked. See `logit_spread`."""
        return self.logit_spread(offsets).dense()

    def logit_spread(self, offsets: Array | None = None) -> Spread:
        """The logits [B, C] as the head's and the tail's. A class of the tail has the tail's mean logit, and more by
        its offset: [C], or [B, C]."""
        if not self.tail_classes:
            base = array_namespace(self.logits).full_like(self.logits[..., :1], -inf)
        else:
            mean = self.tail_logit_mean()[..., None]
            base = self._without_masked(mean if offsets is None else offsets + mean)
        return self._spread(base, self.logits)

    def _without_masked(self, values: Array) -> Array:
        """Values [B, C] or [B, 1], the masked classes at -inf."""
        if not self.masked:
            return values
        xp, rows = array_namespace(values), self.logits.shape[:-1]
        ids = xp.broadcast_to(xp.asarray(list(self.masked), device=device(values)), (*rows, len(self.masked)))
        return fill_at(xp.broadcast_to(values, (*rows, self.num_classes)), ids, -xp.inf)

    def tail_shares(self, temperature: float | Array) -> Array:
        """[C] class means over T, -inf where masked; [B, C] where T is [B].

        The tail's mass is spread in proportion to their exponentials. Raises InvalidInputError where the soft labels
        carry no class means.
        """
        raise InvalidInputError(
            "these soft labels carry no class means: load them with LabelOptions(class_means=True), extract the "
            "store again if it has none (Store.class_means says so), or use tail uniform"
        )

    def with_class_means(self, means: Array | None) -> Self:
        """The same rows with class means [C] of their store, or without any; rows without a tail have no use for
        them."""
        return self

    def entropy(self, normalizer: Array | None = None) -> Array:
        """[B] entropy in nats at T = 1, exact without a tail; the part of a tail is estimated, see `tail.tail_mean`.
        `normalizer`: `log_normalizer(1.0)`, where the caller has it."""
        xp = array_namespace(self.logits)
        normalizer = self.log_normalizer(1.0) if normalizer is None else normalizer
        p = xp.exp(self.logits - normalizer[..., None])
        entropy = normalizer - xp.sum(p * xp.where(p > 0, self.logits, xp.zeros_like(p)), axis=-1)
        if not self.tail_classes:
            return entropy
        mass = xp.exp(self.tail_log_mass(1.0) - normalizer)
        return entropy - mass * xp.where(mass > 0, self.tail_mean(), xp.zeros_like(mass))

    def shown(self) -> tuple[Array, Array, Array | None]:
        """For people: ids [B, K] with their probabilities [B, K] at T = 1, and the tail's mass [B]."""
        return self.classes, array_namespace(self.logits).exp(self.log_probs(1.0)), self.tail_mass(1.0)

    def take(self, rows: Array) -> Self:
        """Rows of these: [R] numbers or a mask [B], along the first axis.

        Examples:
            >>> soft.take([1]).logits
            tensor([[-2.,  0., -1.]])
        """
        return self.map(lambda values: values[rows])

    def wide(self) -> Self:
        """The same rows in f64."""
        xp = array_namespace(self.logits)
        return self.map(
            lambda values: xp.astype(values, xp.float64) if xp.isdtype(values.dtype, "real floating") else values
        )

    def flat(self) -> Self:
        """The same rows along one axis."""
        leading = self.logits.ndim - 1
        rows = prod(self.logits.shape[:leading])
        return self if leading == 1 else self.map(lambda values: values.reshape(rows, *values.shape[leading:]))

    def map(self, change: Callable[[Array], Array]) -> Self:
        """The same soft labels with every field changed that has rows."""
        return replace(self, **{name: change(getattr(self, name)) for name in self.BY_ROW})

    def to(self, device: str | None = None, *, dtype: "torch.dtype | None" = None) -> Self:
        """The same rows as torch tensors on a device, by default their own: numbers in a dtype, f32 by default; class
        ids in i64."""
        import torch  # the store side stays importable without it

        from kdcache.base.devices import to_device

        def tensor(values: Array) -> Array:
            values = torch.as_tensor(values)
            values = values.to((dtype or torch.float32) if values.is_floating_point() else torch.int64)
            return values if device is None else to_device(values, device)

        arrays = {name: values for name, values in vars(self).items() if hasattr(values, "dtype")}
        moved = {name: new for name, values in arrays.items() if (new := tensor(values)) is not values}
        return replace(self, **moved) if moved else self
