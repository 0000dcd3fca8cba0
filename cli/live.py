"""The live table shows a sweep: counts, the points in training, the best so far, and the remaining time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from kdcache.base.progress import Progress, silent
from kdcache.base.visible import visible
from kdcache.cli.console import print_note, shown, terminal
from kdcache.pipelines.sweep.result_table import Report, SweepState, no_report
from kdcache.pipelines.sweep.results import Result

LINES = 12  # of points in the table at most; points in training come first
REDRAW_SECONDS = 0.25  # between two pictures


@contextmanager
def live_table(quiet: bool) -> Iterator[tuple[Report, Progress]]:
    """Two callbacks that write to stderr. The first shows a sweep's state: a table that is redrawn, or on a pipe a line
    for each point that ends. The second shows the progress of the check of all points."""
    console = terminal()
    if quiet:
        yield no_report, silent
    elif not console.is_terminal:
        yield _lines(), silent
    else:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            last_update = 0.0

            def show(content: RenderableType) -> None:
                nonlocal last_update
                if time.monotonic() - last_update > REDRAW_SECONDS:
                    last_update = time.monotonic()
                    live.update(content, refresh=True)

            yield (
                lambda state: show(picture(state)),
                lambda activity, count, total: show(escape(f"{visible(activity)}: {count} of {total}")),
            )


def picture(state: SweepState) -> RenderableType:
    """The table of a sweep's state."""
    table = Table(title=_headline(state), title_justify="left")
    for column in ("point", "status", "epoch", "accuracy", "seconds"):
        table.add_column(column, justify="left" if column in ("point", "status") else "right", no_wrap=True)
    ranked_results = sorted(state.results, key=_rank)
    for result in ranked_results[:LINES]:
        accuracy = "-" if result.accuracy is None else f"{result.accuracy:.4f}"
        table.add_row(
            escape(visible(result.point)), result.status, str(result.epochs), accuracy, f"{result.seconds:.1f}"
        )
    if len(ranked_results) > LINES:
        table.add_row(f"and {len(ranked_results) - LINES} more", "", "", "", "")
    return Group(table, ProgressBar(total=1.0, completed=state.share, width=60))


def _headline(state: SweepState) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in _counts(state.results).items())
    eta = "" if state.eta is None else f", ETA {state.eta:,.0f} s"
    return f"{counts}; {state.seconds:,.0f} s{eta}"


def _counts(results: tuple[Result, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return counts


def _rank(result: Result) -> tuple[int, float]:
    """The sort key: points in training, then failed ones, then the best."""
    order = {"running": 0, "failed": 1, "done": 2, "stopped": 3, "waiting": 4}
    return order[result.status], -(result.accuracy or 0.0)


def _lines() -> Report:
    ended_points: set[str] = set()

    def report(state: SweepState) -> None:
        for result in state.results:
            if result.status in ("done", "failed") and result.point not in ended_points:
                ended_points.add(result.point)
                eta = "" if state.eta is None else f", ETA {state.eta:,.0f} s"
                measures = result.error or f"accuracy {shown(result.accuracy)}, loss {shown(result.loss)}"
                count = f"{len(ended_points)} of {len(state.results)}"
                print_note(f"{count}: {result.point} {result.status}, {measures}{eta}")

    return report
