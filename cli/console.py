"""The console prints everything: results on stdout, progress and errors on stderr, JSON for programs."""

import ctypes
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdcache.base.progress import StopRequest, stop_on_signals
from kdcache.base.units import bytes_text, seconds_text
from kdcache.base.visible import visible
from kdcache.errors import InterruptedRunError


class ClosedOutputError(Exception):
    """Nobody reads the results any more, as in `kdcache inspect STORE | head`."""


class _Console(Console):
    """A console whose reader may go, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Let what is still to come go nowhere."""
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise ClosedOutputError from None


_out = _Console(soft_wrap=True, highlight=False)
_err = _Console(stderr=True, soft_wrap=True, highlight=False)


def print_record(record: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print an aligned `key : value` block, underscores of keys as spaces and values in units that people read, or one
    line of JSON."""
    if as_json:
        print_json(record)
        return
    if title:
        _print(f"[bold]{escape(visible(title))}[/bold]")
    width = max((len(key) for key in record), default=0)
    for key, value in record.items():
        _print(f"{escape(key.replace('_', ' ').ljust(width))} : {escape(_in_units(key, value))}")


def _in_units(key: str, value: Any) -> str:
    """A value for people: bytes and memory in MB, seconds in minutes."""
    words = key.split("_")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and "a" not in words:  # bytes_a_row is a figure of its own
        if {"bytes", "memory"} & set(words):
            return bytes_text(value)
        if {"seconds", "waited"} & set(words):
            return seconds_text(value)
    return shown(value)


def print_json(record: Any) -> None:
    """Print one line of JSON on stdout."""
    with _noticing_closed_output():
        _out.file.write(_json_line(record, _out.file))
        _out.file.flush()


def _json_line(record: Any, file: Any) -> str:
    """JSON whose control, bidirectional and other characters without a shape are escaped: a terminal may see it too.
    Escaped are also those that the file's encoding lacks."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(record)
    if text.isprintable():
        return text + "\n"
    return "".join(character if character.isprintable() else _escaped(character) for character in text) + "\n"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """Print a table; numbers align right. Where the terminal is too narrow for its longest words, each row is a block
    of lines `column : value`."""
    texts = [[shown(value) for value in row] for row in rows]
    widths = _column_widths([columns, *texts], _out.width - 3 * len(columns) - 1)
    if widths is None:
        if title:
            print_line(title)
        for row in rows:
            print_record(dict(zip(columns, row, strict=True)), as_json=False)
            print_line("")
        return
    table = Table(title=escape(visible(title)) if title else None, title_justify="left")
    for index, column in enumerate(columns):
        is_number = rows and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(escape(column), justify="right" if is_number else "left", width=widths[index])
    for row in texts:
        table.add_row(*map(escape, row))
    _print(table)


def _column_widths(lines: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """The widths of columns that take `room` cells at most; None where their longest words need more. Columns that lack
    least get first what is left. Figures such as 96.1 ± 0.2 stay on one line."""
    by_column = list(zip(*lines, strict=True))
    widths = [max(cell_len(part) for text in texts for part in _unbroken(text)) for texts in by_column]
    if sum(widths) > room:
        return None
    full = [max(map(cell_len, texts)) for texts in by_column]
    for index in sorted(range(len(widths)), key=lambda column: full[column] - widths[column]):
        widths[index] += min(full[index] - widths[index], room - sum(widths))
    return widths


def _unbroken(text: str) -> list[str]:
    """The parts of a cell that stay on one line: its words, or all of it where it is one figure."""
    return text.split() or [""] if any(map(str.isalpha, text)) or ", " in text else [text]


def print_line(text: str) -> None:
    """Print text on stdout, its newlines kept."""
    _print(escape(visible(text, keep="\n")))


def print_note(text: str) -> None:
    """Print a line on stderr, beside progress."""
    _err.print(escape(visible(text)))


def print_first_note(*, quiet: bool) -> None:
    """Say on stderr that torch is imported, which takes seconds, where it still has to be and someone listens."""
    if not quiet and "torch" not in sys.modules:
        print_note("importing torch ...")


@contextmanager
def stopping(as_json: bool) -> Iterator[StopRequest]:
    """While open, SIGTERM and Ctrl-C ask for a stop, see `stop_on_signals`."""
    text = "stopped as asked, though something no longer answered; what was done stays: run the same command again"
    code = InterruptedRunError.exit_code
    with stop_on_signals(lambda: print_error(text, as_json=as_json, exit_code=code)) as stop:
        yield stop


def terminal() -> Console:
    """The console on which progress is drawn."""
    return _err


def print_error(text: str, *, as_json: bool, exit_code: int) -> None:
    """Print an error on stderr; as JSON where programs listen."""
    if as_json:
        sys.stderr.write(_json_line({"error": text, "exit_code": exit_code}, sys.stderr))
    else:
        _err.print("[bold red]error:[/bold red] " + escape(visible(text, keep="\n")))


def print_traceback(text: str) -> None:
    """Print a traceback on stderr, its lines as Python prints them."""
    sys.stderr.write(visible(text, keep="\n\t") + "\n" * (not text.endswith("\n")))


def _print(content: Any) -> None:
    with _noticing_closed_output():
        _out.print(content)


@contextmanager
def _noticing_closed_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _out.file = open(os.devnull, "w")  # noqa: SIM115  what is buffered goes nowhere
        raise ClosedOutputError from None


def show_all_signs() -> None:
    """Let both streams show signs that their encoding lacks as \\u043a and the like, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def results_apart() -> Iterator[None]:
    """While open, stdout is the console's alone: other code that prints, in Python or in C, writes to stderr."""
    stdout = sys.stdout
    with ExitStack() as stack:
        _out.file = _own_stdout(stack) or stdout
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = stdout
            _out.file = None  # type: ignore[assignment]  # from here on whatever sys.stdout is


def _own_stdout(stack: ExitStack) -> IO[str] | None:
    """A stream to the process's stdout, whose number 1 leads to stderr until the stack closes. None where sys.stdout is
    another stream, or one of them is closed."""
    stdout: Any = sys.stdout
    try:
        if stdout.fileno() != 1:
            return None
        stdout.flush()
        number = os.dup(1)
        os.dup2(2, 1)
    except (AttributeError, OSError, ValueError):
        return None
    results = open(number, "w", encoding=stdout.encoding, errors="backslashreplace")  # noqa: SIM115

    def restore() -> None:
        _flush_c()
        with suppress(OSError):
            results.flush()
        os.dup2(number, 1)
        with suppress(OSError):
            results.close()

    stack.callback(restore)
    return results


def _flush_c() -> None:
    """Let C libraries write now what they have buffered."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)


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
