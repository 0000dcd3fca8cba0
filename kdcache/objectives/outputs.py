"""Outputs are all that a student answers to a batch: logits, and the features and taps that an objective asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Outputs of a student for B rows, on the batch's device.

    logits: [B, C]. features: [B, D], pooled, before the classifier, or None. taps: [B, ...] of each layer that is
    tapped, by the layer's name. Any leading axes may stand in place of B, as in `Batch`.
    """

    logits: Tensor
    features: Tensor | None = None
    taps: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: "Tensor | Outputs") -> "Outputs":
        """The outputs of a network that answers outputs, or plain logits [B, C]."""
        return answer if isinstance(answer, Outputs) else cls(answer)
