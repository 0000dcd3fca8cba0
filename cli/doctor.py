"""`kdcache doctor`."""

from typing import Annotated

import typer

from kdcache.cli.console import print_json, print_table
from kdcache.cli.flags import Json
from kdcache.errors import CheckFailedError
from kdcache.places.doctor import probe_device, probe_folder, probe_versions


def command(
    path: Annotated[
        str | None, typer.Argument(help="folder in which stores are to lie; without one, the device")
    ] = None,
    as_json: Json = False,
) -> None:
    machine = probe_versions() + ([probe_device()] if path is None else [])
    folder = [] if path is None else probe_folder(path)
    if as_json:
        print_json(
            {"machine": [each.model_dump() for each in machine], "folder": [each.model_dump() for each in folder]}
        )
    else:
        print_table(["machine", "found"], [[each.name, each.detail] for each in machine])
        if folder:
            verdicts = ["ok" if each.passed else "FAILED" if each.needed else "no" for each in folder]
            rows = [[each.name, verdict, each.detail] for each, verdict in zip(folder, verdicts, strict=True)]
            print_table(["folder", "verdict", "seen"], rows, title=str(path))
    if missing := [each.name for each in folder if each.needed and not each.passed]:
        advice = "put stores in another folder, and copy whole ones here"
        raise CheckFailedError(f"{path} cannot hold a store that is being written: {', '.join(missing)}; {advice}")
