"""`kdcache doctor` looks at versions and the device, at a folder for stores, or at every sample of a data set."""

from typing import Annotated, Any

import typer

from kdcache.base.progress import stop_on_signals
from kdcache.base.ranges import PROCESSES_MAX
from kdcache.base.specs import parse_arguments
from kdcache.cli.console import print_json, print_line, print_record, print_table
from kdcache.cli.flags import Json
from kdcache.cli.progress import progress_bar
from kdcache.errors import CheckFailedError, InvalidInputError
from kdcache.places.doctor import probe_device, probe_folder, probe_versions

EXAMPLES = (
    "kdcache doctor",
    "kdcache doctor /mnt/stores",
    "kdcache doctor --data folder:/data/train",
)
SHOWN = 50  # bad samples that are printed; --json has all of them

DataSpec = Annotated[
    str, typer.Option("--data", metavar="TEXT", help="Read every sample of this data set, see train's --data.")
]
DataSet = Annotated[
    list[str],
    typer.Option("--data-set", metavar="KEY=VALUE", help="For the data set, for example split=train [may be repeated]"),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", metavar="N", min=0, max=PROCESSES_MAX, help="Processes that read samples; 0 reads in this one."
    ),
]
Stores = Annotated[
    list[str], typer.Option("--store", metavar="TEXT", help="Compare the data set with this store's [may be repeated]")
]
WriteNew = Annotated[
    str,
    typer.Option(
        "--write-new", metavar="FILE", help="Write the ids of samples that no --store has to a new file, for rows=FILE."
    ),
]


def command(
    path: Annotated[
        str | None, typer.Argument(help="folder in which stores are to lie; without one, the device")
    ] = None,
    data: DataSpec = "",
    data_set: DataSet = [],  # noqa: B006  typer's
    workers: Workers = 2,
    store: Stores = [],  # noqa: B006
    write_new: WriteNew = "",
    as_json: Json = False,
) -> None:
    if data and path is not None:
        raise InvalidInputError(f"{path} and --data {data} were given: look at a folder or at a data set")
    if data:
        _look_at_data(data, parse_arguments(data_set, "--data-set"), workers, store, write_new, as_json)
        return
    if data_set or store or write_new:
        raise InvalidInputError("--data-set, --store and --write-new are of a data set: give --data too")
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


def _look_at_data(
    spec: str, arguments: dict[str, Any], workers: int, stores: list[str], write_new: str, as_json: bool
) -> None:
    from kdcache.store.store import Store
    from kdcache.views.data_parts import write_ids
    from kdcache.views.other_data import data_words, new_samples
    from kdcache.views.scan import open_readable, scan_samples

    if write_new and not stores:
        raise InvalidInputError("--write-new lists the samples that a store has not: give --store too")
    record: dict[str, Any] = {}
    with stop_on_signals() as stop, progress_bar(quiet=as_json) as report:

        def progress(label: str, done: int, total: int) -> None:
            stop.check("nothing was written")
            report(label, done, total)

        data, indices = open_readable(spec, arguments, progress), None
        if stores:
            words = data_words(spec, arguments)
            indices = new_samples(data, [Store.open(url) for url in stores], words, progress)
            record = {"samples_of_stores": len(data) - len(indices), "new_samples": len(indices), "written": None}
        if write_new:
            assert indices is not None
            write_ids(write_new, [data.ids[index] for index in indices.tolist()])
            record["written"] = write_new
        scan = scan_samples(data, workers, progress, indices)
    record |= scan.model_dump()
    if as_json:
        print_json(record)
    else:
        _print(record, f"data {spec}")
    if scan.bad:
        first = scan.bad[0]
        problem = (
            f"{len(scan.bad)} of {scan.rows} samples cannot be read, the first is sample {first.index} ({first.id})"
        )
        raise CheckFailedError(
            f"{problem}: {first.reason}; mend or restore them, or extract with --on-bad-sample strike, which leaves "
            "them without an answer. Without them it is another data set for a store that was begun with them"
        )


def _print(record: dict[str, Any], title: str) -> None:
    bad = record["bad"]
    print_record(record | {"bad": len(bad)}, as_json=False, title=title)
    if bad:
        rows = [[sample["index"], sample["id"], sample["reason"]] for sample in bad[:SHOWN]]
        print_table(["index", "id", "reason"], rows, title="samples that cannot be read")
    if len(bad) > SHOWN:
        print_line(f"and {len(bad) - SHOWN} more; --json lists all")
