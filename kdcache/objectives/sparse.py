"""KL is computed from top-k soft labels without a [B, C] target: the head by its classes, the tail by one or two sums.

Shape letters: B any leading axes, K kept classes, C classes, H heavy classes, R draws.
"""

from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from kdcache.labels.soft_labels import SoftLabels, Tail

LOG_ZERO = -1e5  # stands for log 0, see `targets.FLOOR`
HEAVY = 64


def sparse_kl(teacher: SoftLabels, log_q: Tensor, temperature: float | Tensor, tail: Tail) -> Tensor:
    """KL(p_T || q) [B] of top-k soft labels to a student's log_q [B, C].

    It is the sum over the head of p (log p - log q) plus the tail's part, which depends on its shape. Equal to the
    dense form with the same tail. A ghost tail gives the KL of K + 1 outcomes, a lower bound of the full one.
    """
    answer = Answer.of(teacher, temperature, tail)
    return answer.divergence(*answer.look(log_q))


def drawn_cross_entropy(teacher: SoftLabels, log_q: Tensor, temperature: float | Tensor) -> Tensor:
    """-1/R sum of log q [B] over a teacher's R draws: unbiased for its cross-entropy at the draw temperature."""
    teacher.require_temperature(temperature)
    return -log_q.gather(-1, teacher.draws).mean(dim=-1)


@dataclass(frozen=True)
class Answer:
    """The teacher's answer at one temperature: top-k soft labels in the form that KL to a student's log q [B, C] needs.

    classes, log_p [B, K]: the head. log_m [B]: log of the tail's mass, None without a tail. shares: the weights that
    spread a class-mean tail. KL takes two steps: `look` reduces all classes of a student to a few numbers a row, and
    `divergence` needs only those. So rows of log q may come in pieces.
    """

    classes: Tensor
    log_p: Tensor
    log_m: Tensor | None
    tail: Tail
    num_classes: int
    masked: tuple[int, ...]
    shares: "Shares | Tensor | None"

    @staticmethod
    def of(teacher: SoftLabels, temperature: float | Tensor, tail: Tail) -> "Answer":
        """The answer at a temperature, or at one for each row, [B]."""
        teacher.require_temperature(temperature, tail=tail)
        column = temperature[..., None] if isinstance(temperature, Tensor) and temperature.ndim else temperature
        logits: Tensor = teacher.logits / column
        norm, log_m, shares = logits.logsumexp(dim=-1), None, None
        if tail != "none" and teacher.tail_classes:
            mass = teacher.tail_log_mass(temperature)
            norm = torch.logaddexp(norm, mass)
            log_m = mass - norm
            if tail == "class-mean":
                log_w: Tensor = teacher.tail_shares(temperature)
                shares = log_w if log_w.ndim > 1 else Shares.of(log_w)
        log_p = logits - norm[..., None]
        return Answer(teacher.classes, log_p, log_m, tail, teacher.num_classes, teacher.masked, shares)

    @property
    def tail_classes(self) -> int:
        return self.num_classes - len(self.masked) - self.classes.shape[-1]

    def piece(self, rows: slice) -> "Answer":
        """The answer for some rows; the rows lie along one axis."""
        shares = self.shares[rows] if isinstance(self.shares, Tensor) else self.shares
        log_m = None if self.log_m is None else self.log_m[rows]
        return replace(self, classes=self.classes[rows], log_p=self.log_p[rows], log_m=log_m, shares=shares)

    def look(self, log_q: Tensor) -> tuple[Tensor, ...]:
        """The student's log q [B, K] of the head, and the few numbers a row that the tail's shape needs of the rest."""
        log_q_head = log_q.gather(-1, self.classes)
        if self.log_m is None:
            return (log_q_head,)
        if self.tail == "ghost":
            return log_q_head, log_rest(self.classes, self.masked, log_q)
        if self.tail == "uniform":
            return log_q_head, self._tail_sum(log_q, log_q_head)
        if isinstance(self.shares, Tensor):
            return log_q_head, self._by_row_shares(log_q, self.shares)
        assert self.shares is not None
        with torch.autocast(log_q.device.type, enabled=False):
            return log_q_head, log_q @ self.shares.light, log_q[..., self.shares.heavy]

    def divergence(self, log_q_head: Tensor, *rest: Tensor) -> Tensor:
        """KL [B] from the numbers that `look` returns."""
        head: Tensor = (self.log_p.exp() * (self.log_p - log_q_head)).sum(dim=-1)
        if self.log_m is None:
            return head
        if self.tail == "ghost":
            return head + self.log_m.exp() * (self.log_m - rest[0])
        if self.tail == "uniform":
            return head + self.log_m.exp() * (self.log_m - log(self.tail_classes) - rest[0] / self.tail_classes)
        if isinstance(self.shares, Tensor):
            return head + self.log_m.exp() * (self.log_m + rest[0])
        assert self.shares is not None
        return head + self.log_m.exp() * (self.log_m + self.shares.divergence(self.classes, log_q_head, *rest))

    def _tail_sum(self, log_q: Tensor, log_q_head: Tensor) -> Tensor:
        """[B] sum of log q over the tail's classes."""
        if self.classes.shape[-1] * 4 < self.num_classes:
            total = log_q.sum(dim=-1) - log_q_head.sum(dim=-1)
        else:  # a small difference of large sums: leave the head out instead
            total = log_q.scatter(-1, self.classes, 0.0).sum(dim=-1)
        return total - log_q[..., list(self.masked)].sum(dim=-1) if self.masked else total

    def _by_row_shares(self, log_q: Tensor, log_w: Tensor) -> Tensor:
        """[B] sum over the tail of w (log w - log q) / W, where every row has its own w, [B, C]."""
        log_w = log_w.scatter(-1, self.classes, -torch.inf)
        log_w = log_w - log_w.logsumexp(dim=-1, keepdim=True)
        ratio = torch.where(log_w.isfinite(), log_w, 0.0) - log_q
        return (log_w.exp() * ratio).sum(dim=-1)


@dataclass(frozen=True)
class Shares:
    """Shares w = exp(class mean / T), up to a factor, spread the tail's mass over its classes.

    Sums over the tail are sums over all classes less those over the head, so w stays [C]. In such a difference a class
    of great weight, nearly always in the head, would drown the rest: so the HEAVY largest are summed up one by one.

    log_w [C]: log w of all classes. light [C]: w, 0 for the heavy classes. heavy [H]: the ids of the heavy classes.
    """

    log_w: Tensor
    light: Tensor
    heavy: Tensor

    @staticmethod
    def of(log_w: Tensor) -> "Shares":
        heavy = log_w.topk(min(HEAVY, len(log_w))).indices
        light = log_w.index_fill(0, heavy, -torch.inf)
        scale = torch.maximum(light.max(), log_w.max() - 60.0)  # e^60 is far below the largest f32
        return Shares((log_w - scale).clamp_min(LOG_ZERO), (light - scale).exp(), heavy)

    def in_tail(self, classes: Tensor) -> Tensor:
        """[B, H] w of the heavy classes where they lie in the tail, else 0."""
        is_in_tail = (classes[..., None] != self.heavy).all(dim=-2)
        return torch.where(is_in_tail, self.log_w[self.heavy].exp(), 0.0)

    def total(self, classes: Tensor) -> Tensor:
        """[B] W, the sum of w over the tail."""
        total = self.light.sum() - self.light[classes].sum(dim=-1) + self.in_tail(classes).sum(dim=-1)
        return total.clamp_min(torch.finfo(total.dtype).tiny)

    def divergence(self, classes: Tensor, log_q_head: Tensor, dot: Tensor, log_q_heavy: Tensor) -> Tensor:
        """[B] sum over the tail of w (log w - log q) / W, less log W; `dot` [B] is log_q @ light."""
        products, w_head, w_heavy = self.light * self.log_w, self.light[classes], self.in_tail(classes)
        total = self.total(classes)
        entropy = products.sum() - products[classes].sum(dim=-1) + (w_heavy * self.log_w[self.heavy]).sum(dim=-1)
        cross = dot - (w_head * log_q_head).sum(dim=-1) + (w_heavy * log_q_heavy).sum(dim=-1)
        return (entropy - cross) / total - total.log()


def ghost_pair(teacher: SoftLabels, log_q: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, K + 1] of teacher (at T) and student: the kept classes, then all others as one outcome.

    Masked classes are one outcome more, [B, K + 2]; the teacher gives it probability 0.
    """
    log_p = [teacher.log_probs(temperature), teacher.tail_log_prob(temperature)[..., None]]
    pair_q = [log_q.gather(-1, teacher.classes), log_rest(teacher.classes, teacher.masked, log_q)[..., None]]
    if teacher.masked:
        log_p.append(torch.full_like(log_p[-1], LOG_ZERO))
        pair_q.append(log_q[..., list(teacher.masked)].logsumexp(dim=-1, keepdim=True))
    return torch.cat(log_p, dim=-1), torch.cat(pair_q, dim=-1)


def log_rest(classes: Tensor, masked: tuple[int, ...], log_q: Tensor) -> Tensor:
    """[B] log of the student's probability outside the head; masked classes are not in it."""
    log_tail = log_q.scatter(-1, classes, -torch.inf)
    if masked:
        log_tail[..., list(masked)] = -torch.inf
    return log_tail.logsumexp(dim=-1)
