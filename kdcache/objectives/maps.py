"""Maps and tokens of student and teacher: pooled to one size, flattened, and lists of vectors.

Shape letters: B rows, C channels, [H, W] of a map, T tokens, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional


def placed(values: Tensor) -> Tensor:
    """Maps [B, C, H, W] of a tap, which has them so whatever network it comes from; tokens [B, T, D] as [B, D, T, 1],
    vectors [B, D] as [B, D, 1, 1]."""
    if values.ndim == 4:
        return values
    if values.ndim == 3:
        return values.transpose(1, 2)[..., None]
    return values[..., None, None]


def of_one_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [B, C, H, W], [B, D, H', W'], each pooled adaptively to the smaller of both sizes by axis."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _pooled(student, size), _pooled(teacher, size)


def vectors(values: Tensor) -> Tensor:
    """Vectors [B, D] of a tap: maps and tokens by their mean over places, vectors as they are."""
    return values if values.ndim == 2 else placed(values).mean(dim=(2, 3))


def unit_rows(values: Tensor) -> Tensor:
    """Vectors [..., D] divided by their Euclidean length; those of length 0 stay 0, with a finite gradient."""
    lengths = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values / torch.where(lengths > 0, lengths, 1.0)


def _pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[2:]) == size else functional.adaptive_avg_pool2d(maps, size)
