"""`kdcache sweep` trains many students from one file."""

from typing import Annotated, Any

import typer

from kdcache.base.engine_settings import EngineSettings, wants_dask
from kdcache.cli.console import print_error, print_json, print_record, print_table, stopping
from kdcache.cli.flags import Json, with_settings_flags

File = Annotated[str, typer.Argument(help="TOML file: [base], and [grid], [random] or [study]; see docs/sweeps.md")]
Folder = Annotated[str, typer.Option("--folder", help="Folder of the sweep; the file's own by default.")]
Together = Annotated[int, typer.Option("--together", min=1, max=64, help="Students that share a stream of batches.")]
MEASURES = ("accuracy", "agreement", "loss", "seconds", "bytes_a_row")


@with_settings_flags
def command(
    file: File,
    *,
    folder: Folder = "",
    together: Together = 1,
    engine: EngineSettings,
    as_json: Json = False,
) -> int:
    from kdcache.cli.live import live_table
    from kdcache.pipelines.sweep.stage import SweepSummary, sweep

    wants_dask(engine)  # refuses Dask's settings without it before torch is imported
    with stopping(as_json) as stop, live_table(quiet=as_json) as (report, progress):
        summary: SweepSummary = sweep(
            file, folder=folder, together=together, engine=engine, report=report, progress=progress, stop=stop
        )
    if as_json:
        print_json(summary.model_dump())
    else:
        _print(summary)
    return 1 if summary.failed else 0


def _print(summary: Any) -> None:
    rows = sorted(summary.rows, key=lambda row: -(row.accuracy or 0.0))
    swept = [name for name in rows[0].swept if len({repr(row.swept.get(name)) for row in rows}) > 1]
    measures = [name for name in MEASURES if any(getattr(row, name) is not None for row in rows)]
    print_table(
        [*swept, "status", *(name.replace("_", " ") for name in measures)],
        [
            [*(row.swept.get(name) for name in swept), row.status, *(getattr(row, name) for name in measures)]
            for row in rows
        ],
    )
    print_record(summary.model_dump(exclude={"rows"}), as_json=False, title="swept")
    for row in rows:
        if row.error is not None:
            print_error(f"{row.point}: {row.error}", as_json=False, exit_code=1)
