"""`kdcache demo` trains a teacher and two students on digits."""

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
)


def command(
    folder: Annotated[Path, typer.Argument(help="where teacher, store and students are put")] = Path("demo"),
    as_json: Json = False,
) -> None:
    from kdcache.pipelines.demo import demo

    with progress_bar(quiet=as_json) as progress:
        summary = demo(folder, progress=progress)
    if as_json:
        print_json(summary.model_dump())
        return
    rows = [[row.what, row.accuracy, row.agreement, round(row.seconds, 1)] for row in summary.rows]
    print_table(["digits", "accuracy", "agreement with the teacher", "seconds"], rows)
    print_line(f"the store lies in {summary.store}: {summary.bytes_a_row:.1f} bytes a row")
    print_line(f"content id {summary.content_id}")
    print_next([shlex.join(["kdcache", "inspect", summary.store, "--rows", "5"])])
