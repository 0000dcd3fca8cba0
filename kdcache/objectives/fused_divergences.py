"""Divergences are computed together with their gradient: rows in pieces that fit the cache.

A divergence sums over classes a function f of p_c and q_c, q = softmax(z). Its gradient by z is h - q sum(h), where
h = q df/dq. So the backward pass needs no tensor [B, C] but the gradient, which the forward pass makes.

Shape letters: B any leading axes, R rows, C classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from kdcache.labels.spread import Spread
from kdcache.objectives.pieces import pieces, tempered


class Divergence(Protocol):
    """A divergence of q from p: a sum over classes."""

    def measure(self, pair: "Pair") -> tuple[Tensor, Tensor]:
        """The divergences [R], and h [R, C]: q times the derivative by q of each class's part, up to a multiple of q a
        row."""
        ...


@dataclass(frozen=True)
class Pair:
    """Probabilities of a teacher, p, and of a student, q, of the same outcomes, [R, C].

    log_p_spread: log p. logits: of the student, or its log q.
    """

    log_p_spread: Spread
    logits: Tensor

    @property
    def p(self) -> Tensor:
        p: Tensor = self.log_p_spread.map(torch.exp).dense()
        return p

    @property
    def log_p(self) -> Tensor:
        log_p: Tensor = self.log_p_spread.dense()
        return log_p

    @cached_property
    def q(self) -> Tensor:
        return torch.softmax(self.logits, dim=-1)

    @property
    def log_q(self) -> Tensor:
        return torch.log_softmax(self.logits, dim=-1)


@dataclass(frozen=True)
class DivergenceLoss:
    """A divergence from a teacher as a loss of a student's logits; a `closed_form.RowLoss`."""

    divergence: Divergence
    log_p: Spread

    def plain(self, logits: Tensor) -> Tensor:
        """The divergences [R] of softmax(logits), [R, C], for autograd."""
        return self.divergence.measure(Pair(self.log_p, logits))[0]

    def closed(self, logits: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """The divergences [R] of softmax(logits / tau), and their gradient [R, C]."""
        gradient, parts = torch.empty_like(logits), []
        for rows in pieces(logits):
            pair = Pair(self.log_p[rows], tempered(logits[rows], tau))
            values, h = self.divergence.measure(pair)
            torch.addcmul(h, pair.q, h.sum(dim=-1, keepdim=True), value=-1.0, out=gradient[rows])
            parts.append(values)
        return torch.cat(parts), gradient
