"""The rows of all processes on each of them, with gradients: what an objective needs in which rows of a batch meet.

Shape letters: B rows of the whole batch, R of this process, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from kdcache.labels.soft_labels import SoftLabels
from kdcache.objectives.batch import Batch
from kdcache.training.ranks import Ranks

BY_ROW = ("classes", "logits", "tail", "label")  # the fields of soft labels that have rows


def whole_batch(logits: Tensor, batch: Batch, ranks: Ranks) -> tuple[Tensor, Batch]:
    """Logits [B, C] and labels of all processes' rows, by rank, from this one's logits [R, C] and batch; the
    images stay its own.

    Every process then computes the same loss. The gradient that reaches this process's logits is the whole one of that
    loss times the number of processes, so that the mean over processes, which is what DistributedDataParallel takes of
    the parameters' gradients, is the gradient of the loss.
    """
    gathered: Tensor = _Whole.apply(logits, batch.shares, ranks)
    found = _rows_of_all(_tensors(batch), batch.shares, ranks)
    return gathered, _with_tensors(batch, found)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, shares: tuple[int, ...], ranks: Ranks) -> Tensor:
        ctx.begin, ctx.rows, ctx.factor = sum(shares[: ranks.rank]), shares[ranks.rank], ranks.world_size
        return _cut(ranks.gather_rows(_padded(logits, max(shares))), shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.begin : ctx.begin + ctx.rows] * ctx.factor, None, None


def _rows_of_all(tensors: Sequence[Tensor], shares: tuple[int, ...], ranks: Ranks) -> list[Tensor]:
    """Tensors [B, ...] from [R, ...], in one exchange of bytes."""
    flat = [_bytes_of(each) for each in tensors]
    whole = _cut(ranks.gather_rows(_padded(torch.cat(flat, dim=1), max(shares))), shares)
    pieces = torch.split(whole, [each.shape[1] for each in flat], dim=1)
    return [
        piece.contiguous().view(like.dtype).reshape(len(whole), *like.shape[1:])
        for piece, like in zip(pieces, tensors, strict=True)
    ]


def _bytes_of(values: Tensor) -> Tensor:
    """[R, bytes of a row]."""
    return values.reshape(len(values), prod(values.shape[1:])).contiguous().view(torch.uint8)


def _padded(rows: Tensor, count: int) -> Tensor:
    """[count, ...] whose further rows are zeros: collectives take equal shapes."""
    room = rows.new_zeros(count, *rows.shape[1:])
    room[: len(rows)] = rows
    return room


def _cut(each: list[Tensor], shares: tuple[int, ...]) -> Tensor:
    return torch.cat([rows[:count] for rows, count in zip(each, shares, strict=True)])


def _tensors(batch: Batch) -> list[Tensor]:
    own = [batch.positions.to(batch.y.device), batch.y]
    own += [each for each in (batch.y2, batch.lam) if each is not None]
    return own + [getattr(teacher, name) for teacher in batch.teachers for name in _fields(teacher)] + [*batch.features]


def _with_tensors(batch: Batch, found: list[Tensor]) -> Batch:
    """The batch with the tensors that `_tensors` lists replaced."""
    left = iter(found)
    positions, y = next(left), next(left)
    y2 = None if batch.y2 is None else next(left)
    lam = None if batch.lam is None else next(left)
    teachers = tuple(_with_fields(each, left) for each in batch.teachers)
    return replace(batch, positions=positions, y=y, y2=y2, lam=lam, teachers=teachers, features=tuple(left), shares=())


def _with_fields(teacher: SoftLabels, found: Iterator[Tensor]) -> SoftLabels:
    changes: dict[str, Any] = {name: next(found) for name in _fields(teacher)}
    return replace(teacher, **changes)


def _fields(teacher: SoftLabels) -> list[str]:
    return [name for name in BY_ROW if name in vars(teacher)]
