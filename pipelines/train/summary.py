"""The summary of a training."""

from typing import ClassVar

from pydantic import Field

from kdcache.base.records import Record


class TrainSummary(Record):
    """The summary that `kdcache train` prints at its end. `validation` holds the measures of `metrics.Validation`.
    `peak_memory_bytes` is the largest resident size of the main process, loader workers not counted. `processes` is the
    number of processes that trained last. `selected`: the share of steps that each term was on, by term and epoch.
    `steps_before`: those of the steps that were taken before this call; all of them where nothing was left to do.
    `served`: the share of training's views that a cache gave, where one is named."""

    LATER: ClassVar[tuple[str, ...]] = ("selected", "served")

    run: str
    epochs: int
    steps: int
    steps_before: int
    loss: float
    validation: dict[str, float]
    best_accuracy: float | None
    seconds: float
    drift_levels: float | None
    weights: str
    peak_memory_bytes: int
    processes: int
    selected: dict[str, tuple[float, ...]] = Field(default={})
    served: float | None = None
    notes: tuple[str, ...] = ()
