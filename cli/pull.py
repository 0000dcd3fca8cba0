"""`kdcache pull` copies a sealed store to a folder."""

from typing import Annotated

import typer

from kdcache.cli.console import print_record, progress_bar, stopping
from kdcache.cli.flags import Jobs, Json, Views, Without


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
    as_json: Json = False,
) -> None:
    from kdcache.sharing.push_pull import pull

    with stopping(as_json) as stop, progress_bar(quiet=as_json) as progress:
        copy = pull(url, store, views=views, without=without or (), jobs=jobs, progress=progress, stop=stop)
    print_record(copy.model_dump(), as_json=as_json, title="pulled")
