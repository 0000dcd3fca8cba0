"""The answer of a teacher to a batch. Shape letters: B rows, C classes, D width of the features."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """A teacher's answer to a batch: logits [B, C] f32, pooled features [B, D] f32 (None without a linear head), and
    the taps [B, ...] that it watches, by name, in the dtype in which the network computes or f32."""

    logits: Tensor
    features: Tensor | None = None
    taps: dict[str, Tensor] = field(default_factory=dict)
