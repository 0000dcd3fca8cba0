"""The console prints everything: results on stdout, progress and errors on stderr, JSON for programs."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as ProgressTask
from rich.table import Table
from rich.text import Text

_out = Console(soft_wrap=True, highlight=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)

Report = Callable[[str, int, int], None]


class _Rate(TextColumn):
    """Units a second since the task began."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: ProgressTask) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:,.0f}/s")


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Report]:
    """A callback for progress on stderr, with rate and ETA; on a pipe, a line each tenth of the way."""
    if quiet:
        yield lambda activity, count, total: None
    elif not _err.is_terminal:
        yield _lines()
    else:
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(),
            TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=_err, transient=False) as bars:
            tasks: dict[str, TaskID] = {}

            def report(activity: str, count: int, total: int) -> None:
                if activity not in tasks:
                    tasks[activity] = bars.add_task(escape(visible(activity)), total=total)
                bars.update(tasks[activity], completed=count, total=total)

            yield report


def _lines() -> Report:
    last_tenths: dict[str, int] = {}
    starts: dict[str, tuple[float, int]] = {}

    def report(activity: str, count: int, total: int) -> None:
        tenth = 10 * count // max(total, 1)
        start_time, start_count = starts.setdefault(activity, (time.monotonic(), count))
        if last_tenths.get(activity) != tenth:
            last_tenths[activity] = tenth
            rate = (count - start_count) / max(time.monotonic() - start_time, 1e-9)
            eta = f", {rate:,.0f}/s, ETA {(total - count) / rate:.0f} s" if rate > 0 else ""
            _err.print(escape(f"{visible(activity)}: {count:,} of {total:,}{eta}"))

    return report


def print_record(record: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print an aligned `key : value` block, underscores of keys as spaces, or one line of JSON."""
    if as_json:
        print_json(record)
        return
    if title:
        _out.print(f"[bold]{escape(visible(title))}[/bold]")
    width = max((len(key) for key in record), default=0)
    for key, value in record.items():
        _out.print(f"{escape(key.replace('_', ' ').ljust(width))} : {escape(shown(value))}")


def print_json(record: Any) -> None:
    """Print one line of JSON on stdout."""
    sys.stdout.write(_json_line(record))


def _json_line(record: Any) -> str:
    """JSON whose control, bidirectional and other characters without a shape are escaped: a terminal may see it too."""
    text = json.dumps(record, ensure_ascii=False)
    if text.isprintable():
        return text + "\n"
    return "".join(character if character.isprintable() else _escaped(character) for character in text) + "\n"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """Print a table; numbers align right."""
    table = Table(title=escape(visible(title)) if title else None, title_justify="left")
    for index, column in enumerate(columns):
        is_number = rows and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(escape(column), justify="right" if is_number else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(escape(shown(value)) for value in row))
    _out.print(table)


def print_line(text: str) -> None:
    """Print text on stdout, its newlines kept."""
    _out.print(escape(visible(text, keep="\n")))


def print_note(text: str) -> None:
    """Print a line on stderr, beside progress."""
    _err.print(escape(visible(text)))


def terminal() -> Console:
    """The console on which progress is drawn."""
    return _err


def print_error(text: str, *, as_json: bool, exit_code: int) -> None:
    """Print an error on stderr; as JSON where programs listen."""
    if as_json:
        sys.stderr.write(_json_line({"error": text, "exit_code": exit_code}))
    else:
        _err.print("[bold red]error:[/bold red] " + escape(visible(text, keep="\n")))


def visible(text: str, *, keep: str = "") -> str:
    """Text whose control characters are shown as \\x1b and the like, apart from those to keep."""
    return "".join(
        character if character.isprintable() or character in keep else f"\\x{ord(character):02x}" for character in text
    )


def shown(value: Any) -> str:
    """A value for people: thousands separated, floats to four digits, control characters made visible."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    return visible(str(value))
