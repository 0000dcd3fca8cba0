"""Progress is shown on stderr: bars on a terminal; in a log a line from time to time, the later the rarer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from kdcache.base.progress import Activity, silent
from kdcache.base.progress import Progress as Report
from kdcache.base.units import bytes_text, seconds_text
from kdcache.base.visible import visible
from kdcache.cli.console import print_note, terminal

FIRST = 5.0  # seconds before the first line of a work: shorter ones leave none
LEAST, MOST = 30.0, 600.0  # seconds between two lines
SHARE = 0.1  # of the seconds that have passed: between these bounds, the time between two lines
NARROW = 100  # columns, below which there is no bar beside the figures


@dataclass
class Work:
    """One work in progress: when and where it began, and the last count that was reported."""

    clock: Callable[[], float] = time.monotonic
    start_time: float = field(default=0.0)
    start: int = 0
    count: int = 0
    next_line: float = 0.0
    has_lines: bool = False

    @classmethod
    def begin(cls, count: int, clock: Callable[[], float] = time.monotonic) -> "Work":
        now = clock()
        return cls(clock, now, count, count, now + FIRST)

    @property
    def seconds(self) -> float:
        return self.clock() - self.start_time

    def pace(self, activity: str, count: int, total: int) -> str:
        """Rate and remaining time: `340 rows/s, ETA 12 s`; at the end the time that it took."""
        unit, done = _unit(activity), count + _under_way(activity)
        rate = (done - self.start) / max(self.seconds, 1e-9)
        if rate <= 0:
            return ""
        text = bytes_text(rate) if unit == "bytes" else f"{_figure(rate)} {unit}".rstrip()
        end = f"in {seconds_text(self.seconds)}" if count >= total else f"ETA {seconds_text((total - done) / rate)}"
        return f"{text}/s, {end}"

    def is_due(self, *, at_end: bool) -> bool:
        """True where a line is to be written now; the next one then comes later."""
        now = self.clock()
        if now < self.next_line and not (at_end and self.has_lines):
            return False
        self.has_lines = not at_end
        self.next_line = inf if at_end else now + min(max(LEAST, SHARE * self.seconds), MOST)
        return True


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Report]:
    """A callback for progress on stderr, with units, rate and ETA."""
    if quiet:
        yield silent
    elif not terminal().is_terminal:
        yield line_report()
    else:
        with _bars() as report:
            yield report


def line_report(clock: Callable[[], float] = time.monotonic) -> Report:
    """A callback that writes a line from time to time, and at once what is not counted."""
    works: dict[str, Work] = {}

    def report(activity: str, count: int, total: int) -> None:
        if not total:
            print_note(f"{activity} ...")
            return
        work = works.get(activity)
        if work is None or count < work.count:  # it began anew
            work = works[activity] = Work.begin(count + _under_way(activity), clock)
        work.count = count
        if work.is_due(at_end=count >= total):
            parts = [f"{activity}: {amount(activity, count, total)}", work.pace(activity, count, total)]
            print_note(", ".join(filter(None, parts)))

    return report


@contextmanager
def _bars() -> Iterator[Report]:
    """A callback that moves a bar for each work, and shows what is not counted as long as nothing else begins."""
    console = terminal()
    is_narrow = console.width < NARROW
    bar: tuple[ProgressColumn, ...] = () if is_narrow else (BarColumn(bar_width=20),)
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), *bar, TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[pace]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=False) as bars:
        tasks: dict[str, TaskID] = {}
        works: dict[str, Work] = {}
        uncounted = bars.add_task("", total=None, visible=False, amount="", pace="")

        def report(activity: str, count: int, total: int) -> None:
            text = escape(visible(activity))
            bars.update(uncounted, visible=not total, description=f"{text} ...")
            if not total:
                bars.reset(uncounted)
                return
            work = works.get(activity)
            if work is None or count < work.count:
                work = works[activity] = Work.begin(count + _under_way(activity))
            if activity not in tasks:
                tasks[activity] = bars.add_task(text, total=total, amount="", pace="")
            work.count = count
            pace = work.pace(activity, count, total)
            size = amount(_without_under_way(activity) if is_narrow else activity, count, total)
            bars.update(tasks[activity], completed=count, total=total, amount=size, pace=pace)

        try:
            yield report
        finally:
            bars.update(uncounted, visible=False)


def amount(activity: str, count: int, total: int) -> str:
    """The count of a work with its unit: `1,024 of 2,876 rows, 384 under way`, `3.4 MB of 1.2 GB`."""
    unit = _unit(activity)
    if unit == "bytes":
        return f"{bytes_text(count)} of {bytes_text(total)}"
    under_way = f", {_under_way(activity):,} under way" if _under_way(activity) else ""
    return f"{count:,} of {total:,} {unit}".rstrip() + under_way


def _without_under_way(activity: str) -> Activity:
    return Activity(activity, _unit(activity))


def _unit(activity: str) -> str:
    return activity.unit if isinstance(activity, Activity) else ""


def _under_way(activity: str) -> int:
    return activity.under_way if isinstance(activity, Activity) else 0


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
