"""Where a sweep's points stand while it goes on: what a live table shows and results.csv holds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcache.pipelines.sweep.check import Checker
from kdcache.pipelines.sweep.results import Result, Status, result_of, write_results
from kdcache.pipelines.sweep.space import Point


@dataclass(frozen=True)
class Standing:
    """A sweep at one moment: results in the order of points; `share` of all training that is done; `eta` in seconds,
    None until there is something to judge by."""

    results: tuple[Result, ...]
    share: float
    seconds: float
    eta: float | None


Report = Callable[[Standing], None]


def unwatched(standing: Standing) -> None:
    """Report nothing."""


class Board:
    """Results by point, told to `report` as they change and written to results.csv as points end."""

    def __init__(self, path: Path, swept: Sequence[str], checker: Checker, report: Report) -> None:
        self._path, self._swept, self._checker, self._report = path, swept, checker, report
        self._points: dict[str, Point] = {}
        self._results: dict[str, Result] = {}
        self._began, self._first = time.monotonic(), 0.0
        self._expected = 0

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(self._results.values())

    def add(self, points: Sequence[Point], done: dict[str, int], expected: int = 0) -> None:
        """Points that are known now, and how many epochs their folders hold; `expected`: how many there will be."""
        for point in points:
            self._points[point.name] = point
            whole = done.get(point.name, 0) >= point.settings.epochs
            self._results[point.name] = self._result(point, "done" if whole else "waiting")
        self._expected = max(expected, len(self._results))
        self._first, self._began = self._share(), time.monotonic()
        self.write()

    def mark(self, points: Sequence[Point], status: Status, errors: dict[str, str] | None = None) -> None:
        """Give points a status, their measures read anew."""
        for point in points:
            error = (errors or {}).get(point.name)
            self._results[point.name] = self._result(point, "failed" if error is not None else status, error)
        if status != "running":
            self.write()
        self.tell()

    def look(self, points: Sequence[Point]) -> None:
        """Read anew the measures of points that are running."""
        self._read(points)
        self.tell()

    def _read(self, points: Sequence[Point]) -> None:
        for point in points:  # on a cluster, those that nobody has begun have no folder yet
            begun = Path(point.settings.run).exists()
            self._results[point.name] = self._result(point, "running" if begun else "waiting")

    def step(self, points: Sequence[Point], steps: int, total: int) -> None:
        """Points that run side by side have taken so many of their steps."""
        epochs, done = points[0].settings.epochs, steps / max(total, 1)
        if any(self._results[point.name].epochs != int(done * epochs) for point in points):
            self._read(points)
        self.tell(extra=sum(max(done - self._results[point.name].epochs / epochs, 0.0) for point in points))

    def stopped(self) -> None:
        """What runs or waits is left as it stands."""
        for name, result in self._results.items():
            if result.status == "running":
                self._results[name] = replace_status(result, "stopped")
        self.write()

    def write(self) -> None:
        write_results(self._path, self.results, self._swept)

    def tell(self, extra: float = 0.0) -> None:
        share = min(self._share() + extra / max(self._expected, 1), 1.0)
        seconds = time.monotonic() - self._began
        gone = share - self._first
        eta = seconds * (1.0 - share) / gone if gone > 0 else None
        self._report(Standing(self.results, share, seconds, eta))

    def _share(self) -> float:
        done = 0.0
        for name, result in self._results.items():
            ended = result.status in ("done", "failed")
            done += 1.0 if ended else result.epochs / self._points[name].settings.epochs
        return done / max(self._expected, 1)

    def _result(self, point: Point, status: Status, error: str | None = None) -> Result:
        settings = point.settings
        size, used_views = self._checker.bytes_a_row(settings), self._checker.used_views(settings)
        return result_of(point, status, bytes_a_row=size, used_views=used_views, error=error)


def replace_status(result: Result, status: Status) -> Result:
    """The same result with another status."""
    return result.model_copy(update={"status": status})
