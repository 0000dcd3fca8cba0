"""`kdcache sweep` trains many students from one file."""

import shlex
from typing import Annotated, Any

import typer

from kdcache.base.engine_settings import EngineSettings, wants_dask
from kdcache.base.units import seconds_text
from kdcache.cli.console import print_error, print_json, print_line, print_table, stopping
from kdcache.cli.flags import Json, with_settings_flags
from kdcache.cli.summary import print_summary

EXAMPLES = (
    "kdcache sweep sweep.toml",
    "kdcache sweep sweep.toml --together 8",
    "kdcache sweep sweep.toml --engine dask --dask-workers 4",
)

File = Annotated[str, typer.Argument(help="TOML file: [base], and [grid], [random] or [study]; see docs/sweeps.md")]
Folder = Annotated[
    str, typer.Option("--folder", metavar="FOLDER", help="Folder of the sweep; the file's own by default.")
]
Together = Annotated[
    int, typer.Option("--together", metavar="N", min=1, max=64, help="Students that share a stream of batches.")
]
MEASURES = ("accuracy", "perplexity", "agreement", "loss", "seconds", "bytes_a_row")


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
    were = f", {summary.present:,} of them before" if summary.present else ""
    failed = f", {summary.failed:,} failed" if summary.failed else ""
    lines = {
        "points": f"{summary.done:,} of {summary.points:,} are done{were}{failed}",
        "best": summary.best or "-",
        "time": seconds_text(summary.seconds),
        "results": summary.results,
    }
    report = ["kdcache", "compare", summary.folder, "--html", f"{summary.folder}/report.html"]
    is_comparable = bool(summary.best) and "perplexity" not in measures  # texts are not compared
    print_summary("swept", summary, lines=lines, next_commands=[shlex.join(report)] * is_comparable, as_json=False)
    if summary.done and summary.best is None:
        print_line("note: no point was validated, so none is best: give val_set or val_data in [base]")
    for row in rows:
        if row.error is not None:
            print_error(f"{row.point}: {row.error}", as_json=False, exit_code=1)
