"""Rows of several parts of a data set, one after another: their soft labels, taps and negatives as those of one store.

Shape letters: B rows of a part's batch, M negatives of a part, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.objectives.batch import Batch, Negatives


def joined_labels(parts: Sequence[SoftLabels]) -> SoftLabels:
    """The soft labels of all rows, part after part. Raises InvalidInputError where they are of different forms."""
    first = parts[0]
    for part in parts[1:]:
        same = type(part) is type(first) and part.k == first.k and part.num_classes == first.num_classes
        if not same or part.masked != first.masked:
            raise InvalidInputError("the stores' soft labels are of different forms; extract with one encoding for all")
    fields: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in first.BY_ROW}
    return replace(first, **fields)


def joined_taps(parts: Sequence[tuple[Mapping[str, Tensor], ...]]) -> tuple[dict[str, Tensor], ...]:
    """The taps [B, ...] of all rows, by name, of the one teacher; empty where none are asked for."""
    return tuple(
        {name: torch.cat([taps[name] for taps in same]) for name in same[0]} for same in zip(*parts, strict=True)
    )


def joined_negatives(batches: Sequence[Batch], starts: Sequence[int]) -> Negatives | None:
    """The negatives of all parts, whose positions count from `starts`; None where the batches have none."""
    parts = [
        (batch.negatives, start) for batch, start in zip(batches, starts, strict=True) if batch.negatives is not None
    ]
    if not parts:
        return None
    return Negatives(
        torch.cat([negatives.positions + start for negatives, start in parts]),
        torch.cat([negatives.y for negatives, _ in parts]),
        (torch.cat([negatives.features[0] for negatives, _ in parts]),),
    )


def cat(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The tensors that are there as one; None without any."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None
