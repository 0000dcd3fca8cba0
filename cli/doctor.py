"""`kdcache doctor` looks at versions and the device, or at a folder for stores."""

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
            {"machine": [probe.model_dump() for probe in machine], "folder": [probe.model_dump() for probe in folder]}
        )
    else:
        print_table(["machine", "found"], [[probe.name, probe.detail] for probe in machine])
        if folder:
            verdicts = ["ok" if probe.passed else "FAILED" if probe.needed else "no" for probe in folder]
            rows = [[probe.name, verdict, probe.detail] for probe, verdict in zip(folder, verdicts, strict=True)]
            print_table(["folder", "verdict", "seen"], rows, title=str(path))
    if names := [probe.name for probe in folder if probe.needed and not probe.passed]:
        advice = "put stores in another folder, and copy whole ones here"
        raise CheckFailedError(f"{path} cannot hold a store that is being written: {', '.join(names)}; {advice}")
