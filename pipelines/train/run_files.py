"""The files that a run writes at the end of an epoch: weights, and metrics for programs and for TensorBoard."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from kdcache.training.ranks import Ranks
from kdcache.training.run_folder import append_metrics, keep_metrics, read_metrics, save_weights


@dataclass(frozen=True)
class RunFiles:
    """A run's folder, the `metadata` of its weights files, and a line of `metrics` for each epoch that is done."""

    folder: Path
    metadata: dict[str, str] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, metadata: dict[str, str], ranks: Ranks, *, epochs: int) -> "RunFiles":
        """The files after `epochs` epochs, read by the first process for all; a killed run's later lines go."""

        def epoch_lines() -> list[dict[str, Any]]:
            if ranks.first:
                keep_metrics(folder, epochs)
            return read_metrics(folder) if ranks.first else []

        text = json.dumps(ranks.together(epoch_lines))
        return cls(folder, metadata, json.loads(ranks.from_first(text.encode())))

    def write_epoch(self, line: dict[str, Any], network: nn.Module, *, is_best: bool) -> None:
        """Write an epoch's weights and its line of metrics."""
        for name in ("last", "best") if is_best else ("last",):
            save_weights(self.folder / f"weights/{name}.safetensors", network, metadata=self.metadata)
        append_metrics(self.folder, line)
        _to_tensorboard(self.folder, line)


def _to_tensorboard(folder: Path, line: dict[str, Any]) -> None:
    """Write the epoch's numbers for TensorBoard, where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(folder / "tensorboard") as writer:
        for name, value in line.items():
            if name != "epoch":
                writer.add_scalar(name, value, line["epoch"])
