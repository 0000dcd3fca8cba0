"""A summary ends a command: the lines that matter to a person, notes, and the next command; all of it for programs."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from kdcache.base.units import bytes_text, seconds_text
from kdcache.cli.console import print_json, print_line, print_note, print_record

if TYPE_CHECKING:
    from kdcache.sharing.push_pull import Shared

SHARES = ("accuracy", "agreement")
NOTES = ("note", "notes")  # keys of a record that hold notes


def print_summary(
    title: str,
    record: BaseModel,
    *,
    lines: Mapping[str, str] | None = None,
    next_commands: Iterable[str] = (),
    as_json: bool,
    verbose: bool = False,
) -> None:
    """Print a record: as JSON whole; for people its `lines`, by default all its fields, with its notes and the next
    commands. `verbose` adds all fields to the lines."""
    if as_json:
        print_json(record.model_dump())
        return
    fields = {name: getattr(record, name) for name in type(record).model_fields if name not in NOTES}
    print_record(fields if lines is None else lines, as_json=False, title=title)
    if verbose and lines is not None:
        print_record(fields, as_json=False, title="all figures")
    notes = [getattr(record, name) for name in NOTES if name in type(record).model_fields]
    for note in (text for part in notes for text in ([part] if isinstance(part, str) else part) if text):
        print_line(f"note: {note}")
    print_next(next_commands)


def print_next(commands: Iterable[str]) -> None:
    """Print the next commands as they can be pasted, on stderr beside the results of a command."""
    for command in commands:
        print_note(f"next: {command.replace('kdcache', program(), 1)}")


def program() -> str:
    """The words that start this program again: kdcache, its path where the PATH leads elsewhere, or python -m."""
    started = sys.argv[0]
    if Path(started).name != "kdcache":
        return f"{shlex.quote(sys.executable)} -m kdcache"
    installed = shutil.which("kdcache")
    if installed is not None and os.path.exists(started) and os.path.samefile(installed, started):
        return "kdcache"
    return shlex.quote(started)


def copy_lines(copy: "Shared") -> dict[str, str]:
    """The lines of a push or a pull."""
    return {
        "store": f"{copy.store}, views {copy.views}",
        "pin": copy.pin,
        "copied": f"{copy.copied_files:,} of {copy.files:,} files, {bytes_text(copy.copied_bytes)} of "
        f"{bytes_text(copy.bytes)}, in {seconds_text(copy.seconds)}",
        **({"without": f"{', '.join(copy.without)} ({bytes_text(copy.without_bytes)})"} if copy.without else {}),
    }


def measures_text(measures: Mapping[str, float], best_accuracy: float | None = None) -> str:
    """Measures of a validation: `accuracy 92.48 %, nll 0.973; best accuracy 92.48 %`."""
    texts = [
        f"{name} {100 * value:.2f} %" if name in SHARES else f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in measures.items()
    ]
    best = f"; best accuracy {100 * best_accuracy:.2f} %" if best_accuracy is not None else ""
    return (", ".join(texts) or "-") + best
