"""The answer of a teacher to a batch. Shape letters: B rows, C classes, D width of the features."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdcache.errors import InvalidInputError


@dataclass(frozen=True)
class Answer:
    """A teacher's answer to a batch: logits [B, C] f32, pooled features [B, D] f32 (None without a linear head), and
    the taps [B, ...] that it watches, by name, in the dtype in which the network computes or f32."""

    logits: Tensor
    features: Tensor | None = None
    taps: dict[str, Tensor] = field(default_factory=dict)


def joined(parts: Sequence[Answer], rows: int) -> Answer:
    """The first `rows` rows of several answers, one after another. Raises InvalidInputError where their shapes
    differ."""
    taps = {name: _joined(f"layer {name}", [part.taps[name] for part in parts], rows) for name in parts[0].taps}
    features = [part.features for part in parts if part.features is not None]
    return Answer(
        _joined("the answer", [part.logits for part in parts], rows),
        _joined("the features", features, rows) if len(features) == len(parts) else None,
        taps,
    )


def _joined(name: str, parts: Sequence[Tensor], rows: int) -> Tensor:
    shapes = list(dict.fromkeys(tuple(part.shape[1:]) for part in parts))
    if len(shapes) > 1:
        raise InvalidInputError(
            f"{name} of the teacher has shape {list(shapes[0])} for some rows and {list(shapes[1])} for others, and "
            "must not hang on the batch"
        )
    return parts[0][:rows] if len(parts) == 1 else torch.cat(list(parts))[:rows]
