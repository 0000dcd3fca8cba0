"""KL from a student's logits in one step: rows in pieces that stay in the cache, the gradient in closed form.

With q = softmax(z / tau), the gradient of KL(p || q) by z is (q - p) / tau. So nothing of size [B, C] is kept for the
backward pass but the logits, which the network keeps alive as it is, and nothing but the gradient itself is allocated.

Shape letters: R rows, K kept classes, C classes.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kdcache.labels.soft_labels import FullLabels, SoftLabels, Tail, TopKLabels, check_temperature
from kdcache.objectives.sparse import LOG_ZERO, Answer, Shares

PIECE = 2**17  # numbers that a core's cache holds a few times
PIECE_ELSEWHERE = 2**25  # an accelerator wants few launches


def fits(teacher: SoftLabels, logits: Tensor, temperature: float | Tensor) -> bool:
    """Whether the closed form covers the case: gradients reach the logits alone, and a compiler, which fuses the plain
    form itself, is not at work."""
    given = [each for each in (*vars(teacher).values(), temperature) if isinstance(each, Tensor)]
    plain = logits.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()
    return plain and not any(each.requires_grad for each in given)


def kl_of_logits(teacher: SoftLabels, logits: Tensor, *, tau: float, temperature: float | Tensor, tail: Tail) -> Tensor:
    """KL(p_T || softmax(logits / tau)) [B] in nats, logits [B, C]; see `sparse.topk_kl`. Only where `fits` says so."""
    rows: Tensor = _KL.apply(logits.reshape(-1, logits.shape[-1]), _target(teacher, temperature, tail), tau)
    return rows.reshape(logits.shape[:-1])


class _KL(torch.autograd.Function):
    @staticmethod
    def forward(logits: Tensor, target: "_Sparse | _Dense", tau: float) -> Tensor:
        return target.divergence(logits, tau)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, ctx.target, ctx.tau = inputs
        ctx.save_for_backward(logits)

    @staticmethod
    def backward(ctx: Any, by_row: Tensor) -> tuple[Tensor | None, None, None]:
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for: leave it to autograd
            rows = ctx.target.plain(torch.log_softmax(logits / ctx.tau, dim=-1))
            (gradient,) = torch.autograd.grad(rows, logits, by_row, create_graph=True)
            return gradient, None, None
        return ctx.target.gradient(logits, ctx.tau, (by_row / ctx.tau)[:, None]), None, None


class _Sparse:
    """A head and a tail."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def plain(self, log_q: Tensor) -> Tensor:
        """KL [R] for autograd."""
        return self.answer.divergence(*self.answer.look(log_q))

    def divergence(self, logits: Tensor, tau: float) -> Tensor:
        pieces = list(_pieces(logits))
        seen = [
            (self.answer if len(pieces) == 1 else self.answer.piece(rows)).look(
                torch.log_softmax(_tempered(logits[rows], tau), dim=-1)
            )
            for rows in pieces
        ]
        found = seen[0] if len(pieces) == 1 else [torch.cat(each) for each in zip(*seen, strict=True)]
        return self.answer.divergence(*found)

    def gradient(self, logits: Tensor, tau: float, scale: Tensor) -> Tensor:
        """scale [R, 1] times (mass q - p), [R, C]; mass is the sum of p, 1 but for rounding."""
        answer, gradient = self.answer, torch.empty_like(logits)
        p = answer.log_p.exp()
        mass, m = p.sum(dim=-1, keepdim=True), None
        if answer.log_m is not None:
            m = answer.log_m.exp()[:, None]
            mass, m = mass + m, m * scale
        by = mass * scale
        even = m / answer.tail_classes if m is not None and answer.tail == "uniform" else None
        minus = None if even is None else -even
        for rows in _pieces(logits):
            z, piece = _tempered(logits[rows], tau), gradient[rows]
            torch.softmax(z, dim=-1, out=piece)
            if minus is not None:
                piece.mul_(by[rows]).add_(minus[rows])  # addcmul broadcasts three times slower
            else:
                piece.mul_(by[rows])
                if m is not None:
                    _subtract_tail(piece, z, answer.piece(rows), m[rows])
        head = gradient.gather(-1, answer.classes).addcmul_(p, scale, value=-1.0)
        if even is not None:
            head.add_(even)
            if answer.masked:
                gradient[:, list(answer.masked)] += even
        return gradient.scatter_(-1, answer.classes, head)


def _subtract_tail(q: Tensor, z: Tensor, answer: Answer, m: Tensor) -> None:
    """Take m [R, 1] from q [R, C] outside the head, spread as class means, or for a ghost tail the student z, have
    it."""
    if isinstance(answer.shares, Shares):  # no second [R, C]: the head is put back afterwards
        head, w = q.gather(-1, answer.classes), answer.shares.log_w.exp()
        q.addcmul_(m / answer.shares.total(answer.classes)[:, None], w, value=-1.0)
        q.scatter_(-1, answer.classes, head)
        return
    outside = (z if answer.shares is None else answer.shares).scatter(-1, answer.classes, -torch.inf)
    if answer.masked:
        outside[:, list(answer.masked)] = -torch.inf
    q.sub_(torch.softmax(outside, dim=-1).mul_(m))


class _Dense:
    """All logits of a teacher."""

    def __init__(self, logits: Tensor, temperature: float | Tensor) -> None:
        self.logits, self.temperature = logits, temperature

    def plain(self, log_q: Tensor) -> Tensor:
        """KL [R] for autograd."""
        return self._rows(slice(None), log_q)

    def divergence(self, logits: Tensor, tau: float) -> Tensor:
        found = [self._rows(rows, torch.log_softmax(_tempered(logits[rows], tau), dim=-1)) for rows in _pieces(logits)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def gradient(self, logits: Tensor, tau: float, scale: Tensor) -> Tensor:
        """scale [R, 1] times (q - p), [R, C]."""
        gradient = torch.empty_like(logits)
        for rows in _pieces(logits):
            piece = gradient[rows]
            torch.softmax(_tempered(logits[rows], tau), dim=-1, out=piece)
            piece.sub_(torch.softmax(self._tempered(rows), dim=-1)).mul_(scale[rows])
        return gradient

    def _rows(self, rows: slice, log_q: Tensor) -> Tensor:
        log_p = torch.log_softmax(self._tempered(rows), dim=-1).clamp_min(LOG_ZERO)
        return (log_p.exp() * (log_p - log_q)).sum(dim=-1)

    def _tempered(self, rows: slice) -> Tensor:
        given = self.temperature
        if isinstance(given, Tensor):
            return self.logits[rows] / (given[rows, None] if given.ndim else given)
        return _tempered(self.logits[rows], given)


def _target(teacher: SoftLabels, temperature: float | Tensor, tail: Tail) -> _Sparse | _Dense:
    at = temperature.reshape(-1) if isinstance(temperature, Tensor) and temperature.ndim else temperature
    if isinstance(teacher, FullLabels):
        check_temperature(at, full=True)
        return _Dense(teacher.logits.reshape(-1, teacher.num_classes), at)
    return _Sparse(Answer.of(_flat(teacher), at, tail))


def _flat(teacher: TopKLabels) -> TopKLabels:
    """Rows along one axis; the label is not needed."""
    if teacher.classes.ndim == 2:
        return teacher
    classes, logits, tail = (each.flatten(0, -2) for each in (teacher.classes, teacher.logits, teacher.tail))
    return TopKLabels(classes, logits, tail, tail[:, 0], teacher.num_classes, teacher.masked, teacher.class_means)


def _tempered(values: Tensor, temperature: float) -> Tensor:
    return values if temperature == 1 else values / temperature


def _pieces(logits: Tensor) -> Iterator[slice]:
    rows, classes = logits.shape
    each = max(1, (PIECE if logits.device.type == "cpu" else PIECE_ELSEWHERE) // max(classes, 1))
    return (slice(start, start + each) for start in range(0, max(rows, 1), each))
