"""The end of an epoch, as a record and as a line for people."""

from collections.abc import Callable
from typing import Any

from kdcache.base.records import Record


class EpochEnd(Record):
    """The end of an epoch: its line in metrics.jsonl, how many epochs there are, and the best accuracy so far."""

    line: dict[str, Any]
    epochs: int
    best_accuracy: float | None

    @property
    def text(self) -> str:
        """Epoch (from 1), loss, learning rate of its last step, what was validated, and seconds."""
        line = self.line
        parts = [f"loss {line['loss']:.4g}", f"lr {line['lr']:.3g}"]
        if "accuracy" in line:
            parts.append(f"val accuracy {100 * line['accuracy']:.2f} %")
        if self.best_accuracy is not None:
            parts.append(f"best {100 * self.best_accuracy:.2f} %")
        if "agreement" in line:
            parts.append(f"agreement {100 * line['agreement']:.2f} %")
        return f"epoch {line['epoch'] + 1} of {self.epochs}: {', '.join(parts)}, {line['seconds']:.1f} s"


Announce = Callable[[EpochEnd], None]
"""Told of each epoch that ends."""


def unannounced(end: EpochEnd) -> None:
    """Tell nobody."""
