"""The live table of a sweep: counts, what is training, the best so far, and the time that is left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from kdcache.base.progress import Progress, silent
from kdcache.cli.console import print_note, shown, terminal, visible
from kdcache.pipelines.sweep.board import Report, Standing, unwatched
from kdcache.pipelines.sweep.results import Result

LINES = 12  # of points in the table, those that train first
EVERY = 0.25  # seconds between two pictures


@contextmanager
def live_table(quiet: bool) -> Iterator[tuple[Report, Progress]]:
    """What shows a sweep's standing on stderr, a table that is redrawn or on a pipe a line for each point that ends,
    and what shows how the look at all points goes on."""
    console = terminal()
    if quiet:
        yield unwatched, silent
    elif not console.is_terminal:
        yield _lines(), silent
    else:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            drawn = [0.0]

            def show(shown: RenderableType) -> None:
                if time.monotonic() - drawn[0] > EVERY:
                    drawn[0] = time.monotonic()
                    live.update(shown, refresh=True)

            yield (
                lambda standing: show(picture(standing)),
                lambda what, done, total: show(escape(f"{visible(what)}: {done} of {total}")),
            )


def picture(standing: Standing) -> RenderableType:
    """The table of one moment."""
    table = Table(title=_headline(standing), title_justify="left")
    for column in ("point", "status", "epoch", "accuracy", "seconds"):
        table.add_column(column, justify="left" if column in ("point", "status") else "right", no_wrap=True)
    ranked = sorted(standing.results, key=_rank)
    for result in ranked[:LINES]:
        accuracy = "-" if result.accuracy is None else f"{result.accuracy:.4f}"
        table.add_row(
            escape(visible(result.point)), result.status, str(result.epochs), accuracy, f"{result.seconds:.1f}"
        )
    if len(ranked) > LINES:
        table.add_row(f"and {len(ranked) - LINES} more", "", "", "", "")
    return Group(table, ProgressBar(total=1.0, completed=standing.share, width=60))


def _headline(standing: Standing) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in _counts(standing.results).items())
    eta = "" if standing.eta is None else f", ETA {standing.eta:,.0f} s"
    return f"{counts}; {standing.seconds:,.0f} s{eta}"


def _counts(results: tuple[Result, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for result in results:
        found[result.status] = found.get(result.status, 0) + 1
    return found


def _rank(result: Result) -> tuple[int, float]:
    """Those that train, then those that failed, then the best."""
    order = {"running": 0, "failed": 1, "done": 2, "stopped": 3, "waiting": 4}
    return order[result.status], -(result.accuracy or 0.0)


def _lines() -> Report:
    ended: set[str] = set()

    def report(standing: Standing) -> None:
        for result in standing.results:
            if result.status in ("done", "failed") and result.point not in ended:
                ended.add(result.point)
                eta = "" if standing.eta is None else f", ETA {standing.eta:,.0f} s"
                measured = result.error or f"accuracy {shown(result.accuracy)}, loss {shown(result.loss)}"
                count = f"{len(ended)} of {len(standing.results)}"
                print_note(f"{count}: {result.point} {result.status}, {measured}{eta}")

    return report
