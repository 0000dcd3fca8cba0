"""The result table holds the results of a sweep's points while it goes on, for the live table and results.csv."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcache.pipelines.sweep.check import Checker
from kdcache.pipelines.sweep.results import Result, Status, result_of, write_results
from kdcache.pipelines.sweep.space import Point


@dataclass(frozen=True)
class SweepState:
    """The state of a sweep at one moment. `results` are in the order of points; `share` is the part of all training
    that is done. `seconds` have passed and `eta` seconds are left; `eta` is None before the first progress. `steps` of
    `steps_total` are those of the stream in training; 0 of 0 where it is another process's."""

    results: tuple[Result, ...]
    share: float
    seconds: float
    eta: float | None
    steps: int = 0
    steps_total: int = 0


Report = Callable[[SweepState], None]


def no_report(state: SweepState) -> None:
    """Report nothing."""


class ResultTable:
    """The results of a sweep by point, sent to `report` as they change and written to results.csv as points end."""

    def __init__(self, path: Path, swept: Sequence[str], checker: Checker, report: Report) -> None:
        self._path, self._swept, self._checker, self._report = path, swept, checker, report
        self._points: dict[str, Point] = {}
        self._results: dict[str, Result] = {}
        self._start_time, self._start_share = time.monotonic(), 0.0
        self._point_count = 0

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(self._results.values())

    def add(self, points: Sequence[Point], epochs_done: dict[str, int], point_count: int = 0) -> None:
        """Add points and, by name, the epochs that their folders hold. `point_count`: the points of the whole sweep."""
        for point in points:
            self._points[point.name] = point
            is_whole = epochs_done.get(point.name, 0) >= point.settings.epochs
            self._results[point.name] = self._result(point, "done" if is_whole else "waiting")
        self._point_count = max(point_count, len(self._results))
        self._start_share, self._start_time = self._share(), time.monotonic()
        self.write()

    def mark(self, points: Sequence[Point], status: Status, errors: dict[str, str] | None = None) -> None:
        """Give points a status, and read their measures anew."""
        for point in points:
            error = (errors or {}).get(point.name)
            self._results[point.name] = self._result(point, "failed" if error is not None else status, error)
        if status != "running":
            self.write()
        self.report_state()

    def refresh(self, points: Sequence[Point]) -> None:
        """Read the measures of running points anew."""
        self._read(points)
        self.report_state()

    def _read(self, points: Sequence[Point]) -> None:
        for point in points:  # on a cluster, points that no worker has begun have no folder yet
            has_folder = Path(point.settings.run).exists()
            self._results[point.name] = self._result(point, "running" if has_folder else "waiting")

    def step(self, points: Sequence[Point], steps: int, total: int) -> None:
        """Report points that run side by side, after `steps` of their `total` steps."""
        epochs, share = points[0].settings.epochs, steps / max(total, 1)
        if any(self._results[point.name].epochs != int(share * epochs) for point in points):
            self._read(points)
        extra = sum(max(share - self._results[point.name].epochs / epochs, 0.0) for point in points)
        self.report_state(extra, steps, total)

    def mark_stopped(self) -> None:
        """Mark running points as stopped; their folders keep what is done."""
        for name, result in self._results.items():
            if result.status == "running":
                self._results[name] = replace_status(result, "stopped")
        self.write()

    def write(self) -> None:
        write_results(self._path, self.results, self._swept)

    def report_state(self, extra: float = 0.0, steps: int = 0, steps_total: int = 0) -> None:
        """Report the sweep's state; `extra`: the part of running epochs that is done, in whole trainings."""
        share = min(self._share() + extra / max(self._point_count, 1), 1.0)
        seconds = time.monotonic() - self._start_time
        progress = share - self._start_share
        eta = seconds * (1.0 - share) / progress if progress > 0 else None
        self._report(SweepState(self.results, share, seconds, eta, steps, steps_total))

    def _share(self) -> float:
        points_done = 0.0
        for name, result in self._results.items():
            has_ended = result.status in ("done", "failed")
            points_done += 1.0 if has_ended else result.epochs / self._points[name].settings.epochs
        return points_done / max(self._point_count, 1)

    def _result(self, point: Point, status: Status, error: str | None = None) -> Result:
        settings = point.settings
        size, used_views = self._checker.bytes_a_row(settings), self._checker.used_views(settings)
        return result_of(point, status, bytes_a_row=size, used_views=used_views, error=error)


def replace_status(result: Result, status: Status) -> Result:
    """A copy of a result with another status."""
    return result.model_copy(update={"status": status})
