"""The files that a run writes at the end of an epoch: weights, and metrics for programs and for TensorBoard."""

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from kdcache.base.folder_lock import Hold
from kdcache.base.whole_files import write_whole
from kdcache.training.ranks import Ranks
from kdcache.training.run_folder import append_metrics, file_digest, is_whole, keep_metrics, read_metrics, save_weights
from kdcache.training.saved_networks import kept_weights


@dataclass
class RunFiles:
    """A run's folder, the `metadata` of its weights files, and a line of `metrics` for each epoch that is done.

    `hold`: of the folder, on the process that writes. `digests`: the sha256 of the weights files, by "best" and "last",
    as they were written; a checkpoint keeps them.
    """

    folder: Path
    metadata: dict[str, str] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    hold: Hold | None = None
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder: Path, metadata: dict[str, str], ranks: Ranks, *, epochs: int, hold: Hold | None = None
    ) -> "RunFiles":
        """The files after `epochs` epochs, read by the first process for all; a killed run's later lines go."""

        def epoch_lines() -> list[dict[str, Any]]:
            if ranks.first:
                keep_metrics(folder, epochs)
            return read_metrics(folder) if ranks.first else []

        text = json.dumps(ranks.together(epoch_lines))
        return cls(folder, metadata, json.loads(ranks.from_first(text.encode())), hold)

    def weights(self, name: str) -> Path:
        """The weights file "best", "last", or that of a kept epoch."""
        return self.folder / f"weights/{name}.safetensors"

    def require_held(self) -> None:
        """Raises InvalidInputError where another process has taken the folder, before anything is replaced in it."""
        if self.hold is not None:
            self.hold.require()

    def write_epoch(self, line: dict[str, Any], network: nn.Module, *, is_best: bool, is_kept: bool = False) -> None:
        """Write an epoch's weights and its line of metrics; `is_kept`: under a name of the epoch too."""
        self.require_held()
        for name in ("last", "best") if is_best else ("last",):
            self.write_weights(name, network)
        if is_kept:
            save_weights(self.weights(kept_weights(line["epoch"] + 1)), network, metadata=self.metadata)
        append_metrics(self.folder, line)
        _to_tensorboard(self.folder, line)

    def write_weights(self, name: str, network: nn.Module) -> None:
        save_weights(self.weights(name), network, metadata=self.metadata)
        self.digests[name] = file_digest(self.weights(name))

    def lost_epochs(self, epochs: Sequence[int]) -> list[str]:
        """Notes on weights of past epochs that are to be kept and are not there: those epochs do not run again."""
        return [
            f"{path} is {_fault(path)}, and epoch {epoch} is past: its weights cannot be kept any more"
            for epoch in sorted(epochs)
            if epoch <= len(self.metrics) and _fault(path := self.weights(kept_weights(epoch)))
        ]

    def mend(self, network: nn.Module, best: float, *, at_epoch_end: bool, is_measured: bool) -> tuple[list[str], bool]:
        """Look at the weights files of a run that goes on, and write again what `network` still holds: of an epoch that
        has just ended the last weights, and the best ones where they are the same. `is_measured`: the last epoch was
        validated, or none is.

        Returns notes on files that were lost, and true where the best weights are: then those of a later epoch take
        their place.
        """
        if not self.metrics:
            return [], False
        accuracies = [line["accuracy"] for line in self.metrics if "accuracy" in line]
        is_last_best = is_measured and (
            not accuracies or (best >= 0 and accuracies.index(max(accuracies)) == len(accuracies) - 1)
        )
        notes = []
        for name in ("last", "best") if is_last_best and (at_epoch_end or not accuracies) else ("last",):
            fault, path = _fault(self.weights(name)), self.weights(name)
            if at_epoch_end and (fault or self.digests.get(name) != file_digest(path)):
                self.write_weights(name, network)
            if fault:
                notes.append(
                    f"{path} was {fault}, and is written again{'' if at_epoch_end else ' when the epoch ends'}"
                )
        is_lost = not (is_last_best and at_epoch_end) and bool(accuracies) and self._lacks_best(best)
        if is_lost:
            self.weights("best").unlink(missing_ok=True)
            self.digests.pop("best", None)
            notes.append(
                f"{self.weights('best')}, of accuracy {max(accuracies):.4g}, is lost, as after a power failure: the "
                "best weights are those of the epochs that are trained from here on"
            )
        return notes, is_lost

    def _lacks_best(self, best: float) -> bool:
        path = self.weights("best")
        return best < 0 or bool(_fault(path)) or self.digests.get("best", "") not in ("", file_digest(path))


def _fault(path: Path) -> str:
    """The fault of a weights file, empty where there is none."""
    if is_whole(path):
        return ""
    return "damaged" if path.is_file() else "missing"


def _to_tensorboard(folder: Path, line: dict[str, Any]) -> None:
    """Write the epoch's numbers for TensorBoard, where it is installed: a file an epoch, which is whole or absent. Its
    own writer works on a thread, whose errors reach nobody."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
        from torch.utils.tensorboard.summary import scalar
    except ImportError:
        return
    data = io.BytesIO()
    writer = RecordWriter(data)
    writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    for name, value in line.items():
        if name != "epoch":
            summary = scalar(name, value)  # type: ignore[no-untyped-call]
            writer.write(Event(wall_time=time.time(), step=line["epoch"], summary=summary).SerializeToString())
    write_whole(folder / f"tensorboard/events.out.tfevents.{line['epoch']:010d}.kdcache", data.getvalue())
