"""KL is computed from a student's logits in one step: rows in pieces that fit the cache, the gradient in closed form.

With q = softmax(z / tau), the gradient of KL(p || q) by z is (q - p) / tau. So the backward pass needs no [B, C] tensor
but the logits, which the network keeps alive anyway, and allocates none but the gradient itself.

Shape letters: R rows, K kept classes, C classes.
"""

from typing import Any

import torch
from torch import Tensor

from kdcache.labels.soft_labels import SoftLabels, Tail
from kdcache.objectives.pieces import pieces, tempered
from kdcache.objectives.sparse import LOG_ZERO, Answer, Shares


def fits(teacher: SoftLabels, logits: Tensor, temperature: float | Tensor) -> bool:
    """True where the closed form covers the case: gradients reach the logits alone, and no compiler is at work, since
    one fuses the plain form itself."""
    constants = [value for value in (*vars(teacher).values(), temperature) if isinstance(value, Tensor)]
    plain = logits.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()
    return plain and not any(constant.requires_grad for constant in constants)


def kl_of_logits(teacher: SoftLabels, logits: Tensor, *, tau: float, temperature: float | Tensor, tail: Tail) -> Tensor:
    """KL(p_T || softmax(logits / tau)) [B] in nats, logits [B, C]; see `sparse.sparse_kl`; of draws the
    cross-entropy. Only where `fits`."""
    rows: Tensor = _KL.apply(logits.reshape(-1, logits.shape[-1]), _target(teacher, temperature, tail), tau)
    return rows.reshape(logits.shape[:-1])


class _KL(torch.autograd.Function):
    @staticmethod
    def forward(logits: Tensor, target: "_Sparse | _Dense | _Drawn", tau: float) -> Tensor:
        return target.divergence(logits, tau)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, ctx.target, ctx.tau = inputs
        ctx.save_for_backward(logits)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor | None, None, None]:
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for: leave it to autograd
            rows = ctx.target.plain(torch.log_softmax(logits / ctx.tau, dim=-1))
            (gradient,) = torch.autograd.grad(rows, logits, grad_rows, create_graph=True)
            return gradient, None, None
        return ctx.target.gradient(logits, ctx.tau, (grad_rows / ctx.tau)[:, None]), None, None


class _Sparse:
    """A target of top-k soft labels: a head and a tail."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def plain(self, log_q: Tensor) -> Tensor:
        """KL [R] for autograd."""
        return self.answer.divergence(*self.answer.look(log_q))

    def divergence(self, logits: Tensor, tau: float) -> Tensor:
        slices = list(pieces(logits))
        sums = [
            (self.answer if len(slices) == 1 else self.answer.piece(rows)).look(
                torch.log_softmax(tempered(logits[rows], tau), dim=-1)
            )
            for rows in slices
        ]
        columns = sums[0] if len(slices) == 1 else [torch.cat(parts) for parts in zip(*sums, strict=True)]
        return self.answer.divergence(*columns)

    def gradient(self, logits: Tensor, tau: float, scale: Tensor) -> Tensor:
        """scale [R, 1] times (mass q - p), [R, C]. The mass is the sum of p: 1 but for rounding."""
        answer, gradient = self.answer, torch.empty_like(logits)
        p = answer.log_p.exp()
        mass, m = p.sum(dim=-1, keepdim=True), None
        if answer.log_m is not None:
            m = answer.log_m.exp()[:, None]
            mass, m = mass + m, m * scale
        factor = mass * scale
        share = m / answer.tail_classes if m is not None and answer.tail == "uniform" else None
        offset = None if share is None else -share
        for rows in pieces(logits):
            z, piece = tempered(logits[rows], tau), gradient[rows]
            torch.softmax(z, dim=-1, out=piece)
            if offset is not None:
                piece.mul_(factor[rows]).add_(offset[rows])  # addcmul broadcasts three times slower
            else:
                piece.mul_(factor[rows])
                if m is not None:
                    _subtract_tail(piece, z, answer.piece(rows), m[rows])
        head = gradient.gather(-1, answer.classes).addcmul_(p, scale, value=-1.0)
        if share is not None:
            head.add_(share)
            if answer.masked:
                gradient[:, list(answer.masked)] += share
        return gradient.scatter_(-1, answer.classes, head)


def _subtract_tail(q: Tensor, z: Tensor, answer: Answer, m: Tensor) -> None:
    """Take m [R, 1] from q [R, C] outside the head, spread by the class means; for a ghost tail by the student z."""
    if isinstance(answer.shares, Shares):  # no second [R, C]: the head is put back afterwards
        head, w = q.gather(-1, answer.classes), answer.shares.log_w.exp()
        q.addcmul_(m / answer.shares.total(answer.classes)[:, None], w, value=-1.0)
        q.scatter_(-1, answer.classes, head)
        return
    tail = (z if answer.shares is None else answer.shares).scatter(-1, answer.classes, -torch.inf)
    if answer.masked:
        tail[:, list(answer.masked)] = -torch.inf
    q.sub_(torch.softmax(tail, dim=-1).mul_(m))


class _Dense:
    """A target of full soft labels: all logits of a teacher."""

    def __init__(self, logits: Tensor, temperature: float | Tensor) -> None:
        self.logits, self.temperature = logits, temperature

    def plain(self, log_q: Tensor) -> Tensor:
        """KL [R] for autograd."""
        return self._rows(slice(None), log_q)

    def divergence(self, logits: Tensor, tau: float) -> Tensor:
        parts = [self._rows(rows, torch.log_softmax(tempered(logits[rows], tau), dim=-1)) for rows in pieces(logits)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def gradient(self, logits: Tensor, tau: float, scale: Tensor) -> Tensor:
        """scale [R, 1] times (q - p), [R, C]."""
        gradient = torch.empty_like(logits)
        for rows in pieces(logits):
            piece = gradient[rows]
            torch.softmax(tempered(logits[rows], tau), dim=-1, out=piece)
            piece.sub_(torch.softmax(self._tempered(rows), dim=-1)).mul_(scale[rows])
        return gradient

    def _rows(self, rows: slice, log_q: Tensor) -> Tensor:
        log_p = torch.log_softmax(self._tempered(rows), dim=-1).clamp_min(LOG_ZERO)
        return (log_p.exp() * (log_p - log_q)).sum(dim=-1)

    def _tempered(self, rows: slice) -> Tensor:
        temperature = self.temperature
        if isinstance(temperature, Tensor):
            return self.logits[rows] / (temperature[rows, None] if temperature.ndim else temperature)
        return tempered(self.logits[rows], temperature)


class _Drawn:
    """A target of draws [R, n]."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = draws

    def plain(self, log_q: Tensor) -> Tensor:
        """Cross-entropy [R] for autograd."""
        return -log_q.gather(-1, self.draws).mean(dim=-1)

    def divergence(self, logits: Tensor, tau: float) -> Tensor:
        """The draws' mean logit less the normaliser: no log-probability of other classes is made."""
        parts = []
        for rows in pieces(logits):
            z = tempered(logits[rows], tau)
            parts.append(z.logsumexp(dim=-1) - z.gather(-1, self.draws[rows]).mean(dim=-1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def gradient(self, logits: Tensor, tau: float, scale: Tensor) -> Tensor:
        """scale [R, 1] times (q - share of the draws), [R, C]. A repeat takes its share once more."""
        gradient = torch.empty_like(logits)
        for rows in pieces(logits):
            piece = gradient[rows]
            torch.softmax(tempered(logits[rows], tau), dim=-1, out=piece)
            piece.mul_(scale[rows])
        return gradient.scatter_add_(-1, self.draws, (scale / -self.draws.shape[-1]).expand_as(self.draws))


def _target(teacher: SoftLabels, temperature: float | Tensor, tail: Tail) -> _Sparse | _Dense | _Drawn:
    if isinstance(temperature, Tensor) and temperature.ndim:
        temperature = temperature.reshape(-1)
    if teacher.COMPLETE:
        teacher.require_temperature(temperature)
        return _Dense(teacher.logits.reshape(-1, teacher.num_classes), temperature)
    if teacher.DRAWN:
        teacher.require_temperature(temperature)
        return _Drawn(teacher.draws.reshape(-1, teacher.draws.shape[-1]))
    return _Sparse(Answer.of(teacher.flat(), temperature, tail))
