"""Targets show the teachers to an objective: one store or several, top-k or full, as log-probabilities.

Shape letters: B any leading axes, K kept classes, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels, Tail
from kdcache.labels.spread import Spread
from kdcache.objectives.closed_form import RowLoss, row_losses
from kdcache.objectives.fused import fits, kl_of_logits
from kdcache.objectives.fused_divergences import Divergence, DivergenceLoss, Pair
from kdcache.objectives.sparse import LOG_ZERO, drawn_cross_entropy, ghost_pair, sparse_kl

Combine = Literal["probabilities", "logits", "predictions", "losses"]

FLOOR = LOG_ZERO  # stands for log 0: exp gives 0 at any temperature in use, and 0 * FLOOR is 0, where 0 * -inf is NaN


@dataclass(frozen=True)
class Targets:
    """Targets are the soft labels of a batch's teachers, in the student's dtype.

    Attributes:
        teachers: The soft labels of each store.
        tail: The way in which the classes outside the top k share the tail's mass.
        combine: The way in which several teachers become one, by a weighted mean: of "probabilities" (tempered), of
            "logits" (tempered log-probabilities, renormalised), or of "predictions" (probabilities at T = 1, tempered
            afterwards; Stanton et al. 2021).
        weights: One a teacher, equal by default.

    Examples:
        >>> from kdcache.objectives.targets import Targets
        >>> Targets((soft,)).kl(logits.log_softmax(dim=-1), 1.0)
        tensor([0.0235, 0.1196])
    """

    teachers: tuple[SoftLabels, ...]
    tail: Tail = "uniform"
    combine: Combine = "probabilities"
    weights: tuple[float, ...] = ()

    def kl(self, log_q: Tensor, temperature: float | Tensor) -> Tensor:
        """KL(p_T || q) [B] in nats to a student's log-probabilities [B, C]; one top-k store needs no [B, C] target.

        Of draws it is the cross-entropy, that is KL and the teacher's entropy, which they do not tell."""
        only = self._only()
        if only is not None and only.DRAWN:
            return drawn_cross_entropy(only, log_q, temperature)
        if only is not None and not only.COMPLETE:
            return sparse_kl(only, log_q, temperature, self.tail)
        return kl_rows(self.log_probs(temperature), log_q)

    def kl_of_logits(self, logits: Tensor, temperature: float | Tensor, *, tau: float = 1.0) -> Tensor:
        """KL(p_T || softmax(logits / tau)) [B] in nats, logits [B, C]; one store takes the closed form of `fused`."""
        if len(self.teachers) == 1 and fits(self.teachers[0], logits, temperature):
            return kl_of_logits(self.teachers[0], logits, tau=tau, temperature=temperature, tail=self.tail)
        return self.kl(torch.log_softmax(logits / tau, dim=-1), temperature)

    def divergence(self, divergence: Divergence, logits: Tensor, temperature: float) -> Tensor:
        """A divergence [B] of softmax(logits / T) from p_T, logits [B, C]; a ghost tail's is of K + 1 outcomes."""
        only = self._only()
        if self.tail == "ghost" and only is not None and only.tail_classes:
            log_p, log_q = ghost_pair(only, torch.log_softmax(logits / temperature, dim=-1), temperature)
            return divergence.measure(Pair(Spread.of(log_p), log_q))[0]
        if only is None:
            log_spread = Spread.of(self.log_probs(temperature))
        else:
            log_spread = only.log_spread(temperature, tail=self.tail).map(_floored)
        return self.row_losses(DivergenceLoss(divergence, log_spread.flat()), logits, temperature)

    def row_losses(self, loss: RowLoss, logits: Tensor, tau: float = 1.0) -> Tensor:
        """The losses [B] of logits [B, C] over tau, in closed form where it covers the case, see `fused.fits`. The
        loss knows rows along one axis."""
        if logits.ndim > 2:
            return self.row_losses(loss, logits.flatten(0, -2), tau).reshape(logits.shape[:-1])
        closed = all(fits(teacher, logits, tau) for teacher in self.teachers)
        return row_losses(loss, logits, tau) if closed else loss.plain(logits / tau)

    def log_probs(self, temperature: float | Tensor, *, labels: Tensor | None = None, which: int = 0) -> Tensor:
        """Log-probabilities [B, C] at T, FLOOR where there is no probability.

        With `labels` [B] the probability of a row's label is exact even outside the top k, and the other tail classes
        share the remaining mass. `which` is the column of the stores' label logits that belongs to `labels`.
        """
        members = [_log_dense(teacher, self.tail, temperature, labels, which) for teacher in self.teachers]
        if len(members) == 1:
            return members[0]
        shares = normalised_weights(self.weights, len(members))
        if self.combine == "logits":
            mean = torch.stack([share * log_p for share, log_p in zip(shares, members, strict=True)]).sum(dim=0)
            return torch.log_softmax(mean, dim=-1).clamp_min(FLOOR)
        if self.combine == "predictions":
            return torch.log_softmax(self._predictions(shares, labels, which) / _column(temperature), dim=-1)
        return _log_mean(members, shares)

    def _predictions(self, shares: tuple[float, ...], labels: Tensor | None, which: int) -> Tensor:
        return _log_mean([_log_dense(teacher, self.tail, 1.0, labels, which) for teacher in self.teachers], shares)

    def label_log_prob(self, temperature: float, labels: Tensor, which: int = 0) -> Tensor:
        """[B] log-probability of hard labels, NaN for -1.

        One store, or a mean of probabilities over several, is exact on top-k too.
        """
        if len(self.teachers) == 1 or self.combine == "probabilities":
            members = [_label_column(teacher, temperature, labels, which) for teacher in self.teachers]
            if len(members) == 1:
                return members[0]
            return _log_mean(members, normalised_weights(self.weights, len(members)))
        log_p = self.log_probs(temperature, labels=labels, which=which)
        label_log_p = log_p.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
        return torch.where(labels >= 0, label_log_p, torch.nan)

    def top_class(self) -> Tensor:
        """The class [B] that the teacher finds most likely."""
        only = self._only()
        best: Tensor = only.top_class if only is not None else self.log_probs(1.0).argmax(dim=-1)
        return best

    def power_sum(self, temperature: float) -> Tensor:
        """[B] sum over classes of p ** (1 / T), p at T = 1; on top-k from the sketch, whatever the tail's shape."""
        if len(self.teachers) == 1:
            teacher = self.teachers[0]
            log_sum: Tensor = teacher.log_normalizer(temperature) - teacher.log_normalizer(1.0) / temperature
            return log_sum.exp()
        return (self.log_probs(1.0) / temperature).logsumexp(dim=-1).exp()

    def logits(self) -> Tensor:
        """Logits [B, C] up to a constant a row, FLOOR where masked. Tail classes lie about the tail's mean logit."""
        logits: Tensor = self.logit_spread().dense()
        return logits

    def logit_spread(self) -> Spread:
        """The same as the head's and the tail's."""
        only = self._only()
        return Spread.of(self.log_probs(1.0)) if only is None else _logit_spread(only, self.tail)

    def deviation(self) -> Tensor:
        """Unbiased standard deviation [B] of a row's logits over its classes; the sketch gives the tail's part."""
        only = self._only()
        logits = self.log_probs(1.0) if only is None else _logit_spread(only, "uniform").dense()
        visible = self.seen(logits)
        squares = (visible - visible.mean(dim=-1, keepdim=True)).square().sum(dim=-1)
        if only is not None and only.tail_classes:
            squares = squares + only.tail_classes * only.tail_moments()[1]
        return (squares / max(visible.shape[-1] - 1, 1)).sqrt()

    @property
    def exact(self) -> bool:
        """True where every teacher keeps all logits."""
        return all(teacher.COMPLETE for teacher in self.teachers)

    @property
    def masked(self) -> tuple[int, ...]:
        """Classes that a teacher masks, ascending."""
        return tuple(sorted({class_id for teacher in self.teachers for class_id in teacher.masked}))

    def seen(self, values: Tensor) -> Tensor:
        """Values [B, C] of the classes that no teacher masks."""
        masked = set(self.masked)
        if not masked:
            return values
        visible = [class_id for class_id in range(values.shape[-1]) if class_id not in masked]
        return values.index_select(-1, torch.tensor(visible, device=values.device))

    def _only(self) -> SoftLabels | None:
        return self.teachers[0] if len(self.teachers) == 1 else None


def in_dtype(teacher: SoftLabels, dtype: torch.dtype) -> SoftLabels:
    """Soft labels in the student's dtype, masked logits at FLOOR."""
    teacher = teacher.to(dtype=dtype)
    return replace(teacher, logits=teacher.logits.clamp_min(FLOOR))


def kl_rows(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) [B]: sum over the last axis of p (log p - log q)."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def normalised_weights(weights: tuple[float, ...], members: int) -> tuple[float, ...]:
    """Weights of the members of an ensemble, scaled to a sum of 1; equal where none are given.

    Raises InvalidInputError where they do not fit.
    """
    weights = weights or (1.0,) * members
    if len(weights) != members or min(weights) < 0 or sum(weights) <= 0:
        raise InvalidInputError(
            f"ensemble weights {weights} do not fit {members} stores; give one at or above 0 for each"
        )
    return tuple(weight / sum(weights) for weight in weights)


def mean_of_teachers(losses: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted mean of the losses, or of those of each row [B], against each teacher."""
    return torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum(dim=0)


def _label_column(teacher: SoftLabels, temperature: float | Tensor, labels: Tensor, which: int) -> Tensor:
    """[B] log-probability that the teacher stores for the labels: all of it, or its column `which` under mixing."""
    log_p: Tensor = teacher.label_log_prob(temperature)
    return log_p[..., which] if log_p.ndim > labels.ndim else log_p


def _column(temperature: float | Tensor) -> float | Tensor:
    return temperature[..., None] if isinstance(temperature, Tensor) and temperature.ndim else temperature


def _log_mean(log_probs: list[Tensor], shares: tuple[float, ...]) -> Tensor:
    """Log of the weighted mean of probabilities."""
    log_shares = torch.tensor(shares, dtype=log_probs[0].dtype, device=log_probs[0].device).log().clamp_min(FLOOR)
    terms = torch.stack([log_p + share for log_p, share in zip(log_probs, log_shares, strict=True)])
    return terms.logsumexp(dim=0).clamp_min(FLOOR)


def _log_dense(
    teacher: SoftLabels, tail: Tail, temperature: float | Tensor, labels: Tensor | None, which: int
) -> Tensor:
    dense: Tensor = teacher.log_dense(temperature, tail=tail)
    if labels is not None and tail != "none" and teacher.tail_classes:
        dense = _with_label(dense, teacher, temperature, labels, which)
    return _floored(dense)


def _with_label(dense: Tensor, teacher: SoftLabels, temperature: float | Tensor, labels: Tensor, which: int) -> Tensor:
    """Give a label that lies in the tail its stored probability; the other tail classes shrink or grow to fit."""
    label_log_p = _label_column(teacher, temperature, labels, which)
    column = labels.clamp_min(0)[..., None]
    in_head = (teacher.classes == column).any(dim=-1)
    moves = ~in_head & label_log_p.isfinite()
    mass = teacher.tail_log_prob(temperature)
    rest = 1.0 - (label_log_p - mass).exp()  # share of the tail's mass that the others have, above 0 but for rounding
    old_rest = 1.0 - (dense.gather(-1, column)[..., 0] - mass).exp()
    scale = torch.where(moves, (rest.clamp_min(1e-6) / old_rest.clamp_min(1e-6)).log(), 0.0)
    in_tail = torch.ones_like(dense, dtype=torch.bool).scatter(-1, teacher.classes, False)
    log_p: Tensor = torch.where(in_tail, dense + scale[..., None], dense)
    label_log_p = torch.where(moves, label_log_p, log_p.gather(-1, column)[..., 0])
    return log_p.scatter(-1, column, label_log_p[..., None])


def _logit_spread(teacher: SoftLabels, tail: Tail) -> Spread:
    if teacher.tail_classes and tail not in ("uniform", "class-mean"):
        raise InvalidInputError(f"tail {tail!r} gives its classes no logits; use uniform or class-mean")
    offsets = _centred_shares(teacher) if teacher.tail_classes and tail == "class-mean" else None
    return teacher.logit_spread(offsets).map(_floored)


def _floored(values: Tensor) -> Tensor:
    return values.clamp_min(FLOOR)


def _centred_shares(teacher: SoftLabels) -> Tensor:
    """Class means [B, C] less a number a row, so that their mean over the tail's classes is 0."""
    shares: Tensor = teacher.tail_shares(1.0).clamp_min(FLOOR).expand(*teacher.logits.shape[:-1], -1)
    in_tail = torch.ones_like(shares, dtype=torch.bool).scatter(-1, teacher.classes, False) & (shares > FLOOR)
    return shares - torch.where(in_tail, shares, 0.0).sum(dim=-1, keepdim=True) / teacher.tail_classes
