"""`kdcache export` writes a sealed store to one zip file."""

import shlex
from typing import Annotated, Any

import typer

from kdcache.cli.console import print_record
from kdcache.cli.flags import Json, Without
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import print_next
from kdcache.sharing.export import export_store

EXAMPLES = ("kdcache export digits.kd digits.zip",)


def command(
    store: Annotated[str, typer.Argument(help="the store: folder, zip file or address, STORE@ID for a pinned seal")],
    file: Annotated[str, typer.Argument(help="the file to write, FILE.zip; never over another")],
    without: Without = None,
    as_json: Json = False,
) -> None:
    with progress_bar(quiet=as_json) as progress:
        export = export_store(store, file, without=without or (), progress=progress)
    record: dict[str, Any] = {
        "file": file,
        "content_id": export.content_id,
        "files": export.files,
        "bytes": export.bytes,
        "sha256": export.sha256,
        "pin": f"{file}@{export.content_id[:32]}",
    }
    if export.without:
        record |= {"without": export.without, "without_bytes": export.without_bytes}
    print_record(record, as_json=as_json, title="exported")
    print_next([] if as_json else [shlex.join(["kdcache", "inspect", file, "--rows", "5"])])
