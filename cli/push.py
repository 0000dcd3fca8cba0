"""`kdcache push` copies a sealed store to an object store or a folder."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from kdcache.cli.console import stopping
from kdcache.cli.flags import Jobs, Json, Verbose, Without
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import copy_lines, print_summary

EXAMPLES = (
    "kdcache push digits.kd s3://team/digits.kd",
    "kdcache push digits.kd hf://datasets/team/digits/digits.kd",
)


def command(
    store: Annotated[
        str, typer.Argument(help="a sealed store: folder, zip file or address, STORE@ID for one of its seals")
    ],
    url: Annotated[str, typer.Argument(help="where to: s3://, gs://, az:// or hf:// address, or a folder")],
    without: Without = None,
    jobs: Jobs = 8,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    from kdcache.sharing.push_pull import push

    with stopping(as_json) as stop, progress_bar(quiet=as_json) as progress:
        copy = push(store, url, without=without or (), jobs=jobs, progress=progress, stop=stop)
    print_summary(
        "pushed",
        copy,
        lines=copy_lines(copy),
        next_commands=[shlex.join(["kdcache", "pull", copy.pin, Path(store.rstrip("/")).name.partition("@")[0]])],
        as_json=as_json,
        verbose=verbose,
    )
