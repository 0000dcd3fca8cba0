"""`kdcache pull` copies a sealed store to a folder."""

import shlex
from typing import Annotated

import typer

from kdcache.cli.console import stopping
from kdcache.cli.flags import Jobs, Json, Verbose, Views, Without
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import copy_lines, print_summary

EXAMPLES = (
    "kdcache pull s3://team/digits.kd digits.kd",
    "kdcache pull https://example.org/digits.kd digits.kd --views 0:10",
)


def command(
    url: Annotated[
        str,
        typer.Argument(
            help="s3://, gs://, az://, hf://, http(s):// address, zip file or folder; URL@ID for a pinned seal"
        ),
    ],
    store: Annotated[str, typer.Argument(help="folder to put the copy in")],
    views: Views = None,
    without: Without = None,
    jobs: Jobs = 8,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    from kdcache.sharing.push_pull import pull

    with stopping(as_json) as stop, progress_bar(quiet=as_json) as progress:
        copy = pull(url, store, views=views, without=without or (), jobs=jobs, progress=progress, stop=stop)
    print_summary(
        "pulled",
        copy,
        lines=copy_lines(copy),
        next_commands=[shlex.join(["kdcache", "inspect", copy.to, "--rows", "5"])],
        as_json=as_json,
        verbose=verbose,
    )
