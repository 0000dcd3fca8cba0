"""The end of an epoch, as a record and as a line for people."""

from collections.abc import Callable
from typing import Any

from kdcache.base.records import Record

COLUMNS = {"epoch", "loss", "lr", "seconds", "drift_levels"}  # of metrics.jsonl
SELECTED = "selected."  # begins those of the share of the epoch's steps in which a term was on


def selected_columns(shares: dict[str, float]) -> dict[str, float]:
    """Shares by term as columns of metrics.jsonl."""
    return {f"{SELECTED}{name}": share for name, share in shares.items()}


def selected_by_epoch(metrics: list[dict[str, Any]]) -> dict[str, tuple[float, ...]]:
    """Shares by epoch of each term that is switched on and off."""
    columns = [name for name in (metrics[-1] if metrics else {}) if name.startswith(SELECTED)]
    return {name.removeprefix(SELECTED): tuple(line[name] for line in metrics) for name in columns}


def is_validated(name: str) -> bool:
    """True for a column of metrics.jsonl that is a measure of the validation."""
    return name not in COLUMNS and not name.startswith(SELECTED)


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
        if "perplexity" in line:
            parts.append(f"val perplexity {line['perplexity']:.4g}")
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
