"""`kdcache push` copies a sealed store to an object store or a folder."""

from typing import Annotated

import typer

from kdcache.cli.console import print_record, progress_bar, stopping
from kdcache.cli.flags import Jobs, Json, Without


def command(
    store: Annotated[
        str, typer.Argument(help="a sealed store: folder, zip file or address, STORE@ID for one of its seals")
    ],
    url: Annotated[str, typer.Argument(help="where to: s3://, gs://, az:// or hf:// address, or a folder")],
    without: Without = None,
    jobs: Jobs = 8,
    as_json: Json = False,
) -> None:
    from kdcache.sharing.push_pull import push

    with stopping(as_json) as stop, progress_bar(quiet=as_json) as progress:
        copy = push(store, url, without=without or (), jobs=jobs, progress=progress, stop=stop)
    print_record(copy.model_dump(), as_json=as_json, title="pushed")
