"""`kdcache stats`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcache.base.engine_settings import engine_settings
from kdcache.base.figures import check_picture
from kdcache.cli.console import print_json, print_record, print_table, progress_bar
from kdcache.cli.flags import DaskWorkers, EngineName, Json, Scheduler
from kdcache.store.store import Store
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.stats import StoreStats, ViewStats, store_stats
from kdcache.whole_store.stats_plot import plot_stats

Place = Annotated[str, typer.Argument(help="folder, zip file or address of the store, STORE@ID for a pinned seal")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw them: FILE.png.")]


def command(
    store: Place,
    plot: Plot = None,
    engine: EngineName = "local",
    scheduler: Scheduler = "",
    dask_workers: DaskWorkers = 0,
    as_json: Json = False,
) -> None:
    if plot is not None:
        check_picture(plot)
    settings = engine_settings(engine, scheduler, dask_workers)
    with progress_bar(quiet=as_json) as progress, open_engine(settings) as chosen:
        found = store_stats(Store.open(seen_by(settings, store)), engine=chosen, progress=progress)
    if plot is not None:
        plot_stats(found, plot)
    if as_json:
        print_json(found.model_dump())
    else:
        _print(found)


def _print(found: StoreStats) -> None:
    record: dict[str, Any] = {
        "content id": (found.content_id or "not sealed")[:24],
        "soft labels": found.soft_labels,
        "classes": found.classes,
        "rows": found.rows,
        "blocks": f"{found.blocks - found.missing} of {found.blocks}",
        "bytes a row": found.bytes_a_row,
        "accuracy": found.accuracy,
        "agreement of views": found.agreement,
        "all views agree": found.unanimous,
        "NLL, nats": found.nll,
        "ECE": found.ece,
        "without a label": found.unlabelled,
        "clamped rows": found.clamped,
        "classes in use": found.classes_in_use,
        "classes never on top": found.classes_never_top,
    }
    print_record(record, as_json=False, title=f"stats {found.store}")
    spreads = {"confidence": found.confidence, "entropy, nats": found.entropy}
    if found.kept is not None:
        spreads |= {f"kept mass, T = {t}": each for t, each in zip((1, 2, 4), found.kept, strict=True)}
    columns = ["mean", "min", "p5", "median", "p95", "max"]
    rows = [[name, *(f"{getattr(each, column):.3f}" for column in columns)] for name, each in spreads.items()]
    print_table(["over rows", *columns], rows)
    print_table(["array", "bytes", "a row"], [[each.name, each.bytes, each.a_row] for each in found.arrays])
    columns = ["view", "rows", "top-1", "agree", "conf.", "nats", "kept at T 1, 2, 4", "NLL"]
    print_table(
        columns, [_row(each) for each in found.views], title="by view: accuracy, agreement, confidence, entropy"
    )


def _row(view: ViewStats) -> list[Any]:
    shares = [view.accuracy, view.agreement, view.confidence, view.entropy]
    kept = " ".join(f"{each:.3f}" for each in view.kept or ())
    return [view.view, view.rows, *map(_short, shares), kept, _short(view.nll)]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
