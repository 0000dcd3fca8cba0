"""`kdcache demo` trains a teacher and two students, on digits or on a text."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from kdcache.cli.console import print_json, print_line, print_table
from kdcache.cli.flags import Json
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import print_next

EXAMPLES = (
    "kdcache demo",
    "kdcache demo /tmp/demo",
    "kdcache demo demo-text --text kjv.txt",
)


def command(
    folder: Annotated[Path, typer.Argument(help="where teacher, store and students are put")] = Path("demo"),
    text: Annotated[Path | None, typer.Option(help="file of text to learn from, in place of digits")] = None,
    as_json: Json = False,
) -> None:
    from kdcache.pipelines.demos.digits import DemoSummary, demo
    from kdcache.pipelines.demos.text import demo_text

    with progress_bar(quiet=as_json) as progress:
        summary = demo(folder, progress=progress) if text is None else demo_text(folder, text, progress=progress)
    if as_json:
        print_json(summary.model_dump())
        return
    if isinstance(summary, DemoSummary):
        rows = [[row.what, row.accuracy, row.agreement, round(row.seconds, 1)] for row in summary.rows]
        print_table(["digits", "accuracy", "agreement with the teacher", "seconds"], rows)
    else:
        lines = [[row.what, row.perplexity, row.bits_a_byte, round(row.seconds, 1)] for row in summary.rows]
        print_table(["text", "perplexity", "bits a byte", "seconds"], lines)
    print_line(f"the store lies in {summary.store}: {summary.bytes_a_row:.1f} bytes a row")
    print_line(f"content id {summary.content_id}")
    print_next([shlex.join(["kdcache", "inspect", summary.store, "--rows", "5"])])
