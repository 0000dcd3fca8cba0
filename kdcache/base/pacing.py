"""The pace at which a training takes up its rows: EPOCHS:START, as people write it."""

from dataclasses import dataclass
from typing import Self

from kdcache.base.ranges import EPOCHS_MAX
from kdcache.errors import InvalidInputError

START = 0.2  # of the rows, where none is written


@dataclass(frozen=True)
class Pacing:
    """A share of rows that grows linearly from `start` at epoch 0 to 1 at epoch `epochs`."""

    epochs: int
    start: float = START

    @classmethod
    def parse(cls, text: str) -> Self:
        """A pace as people write it: "10" is ten epochs from a share of .2, "10:0.5" from a half. Raises
        InvalidInputError for any other text."""
        head, colon, tail = text.partition(":")
        try:
            epochs, start = int(head), float(tail) if colon else START
        except ValueError:
            epochs, start = 0, 0.0
        if not (1 <= epochs <= EPOCHS_MAX and 0 < start <= 1):
            raise InvalidInputError(
                f"{text!r} is no EPOCHS or EPOCHS:START, of epochs from 1 to {EPOCHS_MAX} and a share above 0 and at "
                "most 1; write 10:0.2"
            )
        return cls(epochs, start)

    def share(self, epoch: int) -> float:
        """The share at an epoch, counted from 0."""
        return min(1.0, self.start + (1.0 - self.start) * epoch / self.epochs)
