"""The board shows a sweep: the points in training and the best so far, and below rich's progress of all of them."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from kdcache.base import progress as progresses
from kdcache.base.units import seconds_text
from kdcache.base.visible import visible
from kdcache.cli.console import print_note, shown, terminal
from kdcache.cli.progress import Work, line_report
from kdcache.pipelines.sweep.result_table import Report, SweepState, no_report
from kdcache.pipelines.sweep.results import Result

LINES = 12  # of points in the table at most; points in training come first
COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("ETA"),
    TimeRemainingColumn(),
)  # fmt: skip
ESTIMATE_SECONDS = 600.0  # over which the remaining time is estimated


@contextmanager
def live_table(quiet: bool) -> Iterator[tuple[Report, progresses.Progress]]:
    """Two callbacks that write to stderr. The first shows a sweep's state: a board that is redrawn, or on a pipe a line
    for each point that ends. The second shows the progress of the check of all points."""
    console = terminal()
    if quiet:
        yield no_report, progresses.silent
    elif not console.is_terminal:
        yield _lines(), line_report()
    else:
        with Board(*COLUMNS, console=console, transient=True, speed_estimate_period=ESTIMATE_SECONDS) as board:
            yield board.show, board.show_check


class Board(Progress):
    """Rich's progress of one task, all points of a sweep or their check, below a table of points."""

    state: SweepState | None = None

    def show(self, state: SweepState) -> None:
        """Show a sweep's state."""
        self.state = state
        self._update(_counts_text(state), state.share, 1.0)

    def show_check(self, activity: str, count: int, total: int) -> None:
        """Show the check of all points before the first."""
        self._update(f"{visible(activity)} {count} of {total}", count, total)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The parts that rich draws: the table of points, where there is one, and the task."""
        if self.state is not None:
            yield table(self.state)
        yield self.make_tasks_table(self.tasks)

    def _update(self, text: str, done: float, total: float) -> None:
        number = self.task_ids[0] if self.task_ids else self.add_task("")
        if self.tasks[0].total != total:  # the check has ended, and its pace tells nothing
            self.reset(number, total=total, completed=done)  # type: ignore[arg-type]  # floats count as well
        self.update(number, description=escape(text), completed=done)


def table(state: SweepState) -> Table:
    """The table of some points: those in training, then failed ones, then the best."""
    points = Table()
    for column in ("point", "status", "epoch", "accuracy", "seconds"):
        points.add_column(column, justify="left" if column in ("point", "status") else "right", no_wrap=True)
    ranked_results = sorted(state.results, key=_rank)
    for result in ranked_results[:LINES]:
        accuracy = "-" if result.accuracy is None else f"{result.accuracy:.4f}"
        points.add_row(
            escape(visible(result.point)), result.status, str(result.epochs), accuracy, f"{result.seconds:.1f}"
        )
    if len(ranked_results) > LINES:
        points.add_row(f"and {len(ranked_results) - LINES} more", "", "", "", "")
    return points


def _counts(results: tuple[Result, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return counts


def _rank(result: Result) -> tuple[int, float]:
    """The sort key: points in training, then failed ones, then the best."""
    order = {"running": 0, "failed": 1, "done": 2, "stopped": 3, "waiting": 4}
    return order[result.status], -(result.accuracy or 0.0)


def _counts_text(state: SweepState) -> str:
    """Points by status, and the steps of the stream in training: `3 done, 5 running (140 of 400 steps)`."""
    steps = f" ({state.steps:,} of {state.steps_total:,} steps)" if state.steps_total else ""
    counts = _counts(state.results)
    return ", ".join(f"{count} {status}{steps * (status == 'running')}" for status, count in counts.items())


def _lines(clock: Callable[[], float] = time.monotonic) -> Report:
    ended_points: set[str] = set()
    work = Work.begin(0, clock)

    def report(state: SweepState) -> None:
        eta = "" if state.eta is None else f", ETA {seconds_text(state.eta)}"
        for result in state.results:
            if result.status in ("done", "failed") and result.point not in ended_points:
                ended_points.add(result.point)
                measures = result.error or f"accuracy {shown(result.accuracy)}, loss {shown(result.loss)}"
                count = f"{len(ended_points)} of {len(state.results)}"
                print_note(f"{count}: {result.point} {result.status}, {measures}{eta}")
        if work.is_due(at_end=False) and any(result.status == "running" for result in state.results):
            print_note(f"sweep: {_counts_text(state)}, {100 * state.share:.0f} % of all training{eta}")

    return report
