"""The rows of all processes on each of them, with gradients, for objectives in which the rows of a batch meet.

Shape letters: B rows of the whole batch, R of this process, C classes.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.outputs import Outputs
from kdcache.training.ranks import Ranks


def whole_batch(outputs: Outputs, batch: Batch, ranks: Ranks) -> tuple[Outputs, Batch]:
    """Outputs (logits [B, C], ...) and the batch of all processes' rows, by rank, from this one's outputs (logits
    [R, C], ...) and batch. The images stay those of this process.

    Every process then computes the same loss. Its gradient reaches this process's outputs times the number of
    processes. DistributedDataParallel takes the mean of the parameters' gradients over processes, which then is the
    gradient of the loss.
    """

    def whole(rows: Tensor) -> Tensor:
        gathered: Tensor = _Whole.apply(rows, batch.shares, ranks)
        return gathered

    whole_outputs = Outputs(
        whole(outputs.logits),
        None if outputs.features is None else whole(outputs.features),
        {name: whole(tap) for name, tap in sorted(outputs.taps.items())},  # collectives run in one order everywhere
    )
    tensors = _rows_of_all(_tensors(batch), batch.shares, ranks)
    return whole_outputs, _with_tensors(batch, tensors)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: tuple[int, ...], ranks: Ranks) -> Tensor:
        ctx.begin, ctx.rows, ctx.factor = sum(shares[: ranks.rank]), shares[ranks.rank], ranks.world_size
        return _cut(ranks.gather_rows(_padded(rows, max(shares))), shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.begin : ctx.begin + ctx.rows] * ctx.factor, None, None


def _rows_of_all(tensors: Sequence[Tensor], shares: tuple[int, ...], ranks: Ranks) -> list[Tensor]:
    """Tensors [B, ...] from [R, ...], in one exchange of bytes."""
    columns = [_bytes_of(tensor) for tensor in tensors]
    whole = _cut(ranks.gather_rows(_padded(torch.cat(columns, dim=1), max(shares))), shares)
    pieces = torch.split(whole, [column.shape[1] for column in columns], dim=1)
    return [
        piece.contiguous().view(like.dtype).reshape(len(whole), *like.shape[1:])
        for piece, like in zip(pieces, tensors, strict=True)
    ]


def _bytes_of(values: Tensor) -> Tensor:
    """Values [R, ...] as their bytes [R, bytes of a row]."""
    return values.reshape(len(values), prod(values.shape[1:])).contiguous().view(torch.uint8)


def _padded(rows: Tensor, count: int) -> Tensor:
    """The rows and zeros after them, [count, ...] together: collectives take equal shapes."""
    buffer = rows.new_zeros(count, *rows.shape[1:])
    buffer[: len(rows)] = rows
    return buffer


def _cut(tensors: list[Tensor], shares: tuple[int, ...]) -> Tensor:
    """The rows of all processes without their padding."""
    return torch.cat([rows[:count] for rows, count in zip(tensors, shares, strict=True)])


def _tensors(batch: Batch) -> list[Tensor]:
    tensors = [batch.positions.to(batch.y.device), batch.y]
    tensors += [values for values in (batch.y2, batch.lam, batch.weight, batch.mask) if values is not None]
    tensors += [getattr(teacher, name) for teacher in batch.teachers for name in teacher.BY_ROW]
    taps = [taps[name] for taps in batch.taps for name in sorted(taps)]
    return [*tensors, *batch.features, *taps]


def _with_tensors(batch: Batch, tensors: list[Tensor]) -> Batch:
    """The batch with the tensors that `_tensors` lists replaced."""
    rest = iter(tensors)
    positions, y = next(rest), next(rest)
    y2 = None if batch.y2 is None else next(rest)
    lam = None if batch.lam is None else next(rest)
    weight = None if batch.weight is None else next(rest)
    mask = None if batch.mask is None else next(rest)
    teachers = tuple(teacher.map(lambda _: next(rest)) for teacher in batch.teachers)
    features = tuple(next(rest) for _ in batch.features)
    taps = tuple({name: next(rest) for name in sorted(taps)} for taps in batch.taps)
    batch = replace(batch, positions=positions, y=y, y2=y2, lam=lam, weight=weight, mask=mask)
    return replace(batch, teachers=teachers, features=features, taps=taps, shares=())
