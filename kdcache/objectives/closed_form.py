"""Losses of rows are computed together with their gradient, so that the backward pass is one product.

Shape letters: R rows, C classes.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from kdcache.objectives.pieces import tempered


class RowLoss(Protocol):
    """A loss of each row of logits that knows its gradient."""

    def plain(self, logits: Tensor) -> Tensor:
        """The losses [R] of logits [R, C], for autograd."""
        ...

    def closed(self, logits: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """The losses [R] of logits / tau, logits [R, C], and their gradient by logits / tau, [R, C], in new memory."""
        ...


def row_losses(loss: RowLoss, logits: Tensor, tau: float = 1.0) -> Tensor:
    """The losses [R] of logits [R, C] over tau. Only where `fused.fits`."""
    losses: Tensor = _RowLosses.apply(logits, loss, tau)[0]
    return losses


class _RowLosses(torch.autograd.Function):
    @staticmethod
    def forward(logits: Tensor, loss: RowLoss, tau: float) -> tuple[Tensor, Tensor]:
        return loss.closed(logits, tau)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        logits, ctx.loss, ctx.tau = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # zeros [R, C] for the gradient's own, which nobody asks for
        ctx.save_for_backward(logits, output[1])

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
        if grad_rows is None:
            return None, None, None
        logits, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for: leave it to autograd
            rows = ctx.loss.plain(logits / ctx.tau)
            (slope,) = torch.autograd.grad(rows, logits, grad_rows, create_graph=True)
            return slope, None, None
        return gradient * tempered(grad_rows, ctx.tau)[:, None], None, None
