"""Outputs are all that a student answers to a batch: logits, and the features and taps that an objective asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from kdcache.base.tap_names import FEATURES
from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import class_logits
from kdcache.networks.answers import logits_of


@dataclass(frozen=True)
class Outputs:
    """Outputs hold the answer of a student to B rows, on the batch's device. Any leading axes may stand in place of B,
    as in `Batch`.

    Attributes:
        logits: [B, C].
        features: [B, D] pooled, before the classifier, or None.
        taps: [B, ...] of each layer that is tapped, by the layer's name.
        subclasses: The number of the C logits that stand for each class of the hard labels; an objective sets its own.

    Examples:
        >>> objective = Objective(KD(temperature=4.0))
        >>> bool(objective(Outputs(logits), batch) == objective(logits, batch))
        True
    """

    logits: Tensor
    features: Tensor | None = None
    taps: Mapping[str, Tensor] = field(default_factory=dict)
    subclasses: int = 1

    @classmethod
    def of(cls, answer: Any) -> "Outputs":
        """The outputs of a network that answers outputs, plain logits [B, C], or an object or a mapping that holds them
        as `logits`. Raises InvalidInputError for any other answer.

        Examples:
            >>> Outputs.of({"logits": logits}).logits.shape
            torch.Size([2, 3])
        """
        return answer if isinstance(answer, Outputs) else cls(logits_of(answer, "student"))

    @classmethod
    def tapped(cls, logits: Tensor, taps: Mapping[str, Tensor]) -> "Outputs":
        """Outputs in f32 of logits and the taps of a `Tapped` network, `features` among them."""
        values = {name: tap.float() for name, tap in taps.items()}
        return cls(logits.float(), values.pop(FEATURES, None), values)

    @property
    def class_logits(self) -> Tensor:
        """[B, C / S] logits of the classes that hard labels name, see `kdcache.class_logits`."""
        logits: Tensor = class_logits(self.logits, self.subclasses)
        return logits

    def tap(self, name: str) -> Tensor:
        """The tap [B, ...] of a name; `features` is one. Raises InvalidInputError for one that is not there.

        Examples:
            >>> outputs.tap("layer4").shape
            torch.Size([2, 2, 3, 3])
        """
        values = self.features if name == FEATURES else self.taps.get(name)
        if values is None:
            given = ", ".join([*([FEATURES] if self.features is not None else []), *self.taps]) or "none"
            raise InvalidInputError(
                f"the student's {name} is needed, and its outputs have {given}; call the objective with "
                "Outputs(logits, "
                f"features=..., taps={{...}}), or get them by `with kdcache.taps(student, [{name!r}]) as outputs`"
            )
        return values
