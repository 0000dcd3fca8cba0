"""`kdcache stats` prints statistics over a whole store."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcache.base.engine_settings import EngineSettings
from kdcache.base.figures import check_picture
from kdcache.cli.console import print_json, print_record, print_table
from kdcache.cli.flags import Json, with_settings_flags
from kdcache.cli.progress import progress_bar
from kdcache.store.store import Store
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.stats import StoreStats, ViewStats, store_stats
from kdcache.whole_store.stats_plot import plot_stats

EXAMPLES = ("kdcache stats digits.kd --plot digits.png",)

Place = Annotated[str, typer.Argument(help="folder, zip file or address of the store, STORE@ID for a pinned seal")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw them: FILE.png.")]


@with_settings_flags
def command(
    store: Place,
    *,
    plot: Plot = None,
    engine: EngineSettings,
    as_json: Json = False,
) -> None:
    if plot is not None:
        check_picture(plot)
    with progress_bar(quiet=as_json) as progress, open_engine(engine) as block_engine:
        stats = store_stats(Store.open(seen_by(engine, store)), engine=block_engine, progress=progress)
    if plot is not None:
        plot_stats(stats, plot)
    if as_json:
        print_json(stats.model_dump())
    else:
        _print(stats)


def _print(stats: StoreStats) -> None:
    record: dict[str, Any] = {
        "content id": (stats.content_id or "not sealed")[:24],
        "soft labels": stats.soft_labels,
        "classes": stats.classes,
        "rows": stats.rows,
        "struck rows": stats.struck,
        "blocks": f"{stats.blocks - stats.missing} of {stats.blocks}",
        "bytes a row": stats.bytes_a_row,
        "accuracy": stats.accuracy,
        "agreement of views": stats.agreement,
        "all views agree": stats.unanimous,
        "NLL, nats": stats.nll,
        "ECE": stats.ece,
        "without a label": stats.unlabelled,
        "clamped rows": stats.clamped,
        "classes in use": stats.classes_in_use,
        "classes never on top": stats.classes_never_top,
    }
    if stats.without:
        record["without taps"] = stats.without
    print_record(record, as_json=False, title=f"stats {stats.store}")
    spreads = {"confidence": stats.confidence, "entropy, nats": stats.entropy}
    if stats.kept is not None:
        spreads |= {f"kept mass, T = {t}": spread for t, spread in zip((1, 2, 4), stats.kept, strict=False)}
    columns = ["mean", "min", "p5", "median", "p95", "max"]
    rows = [[name, *(f"{getattr(spread, column):.3f}" for column in columns)] for name, spread in spreads.items()]
    print_table(["over rows", *columns], rows)
    print_table(["array", "bytes", "a row"], [[array.name, array.bytes, array.a_row] for array in stats.arrays])
    if stats.outputs:
        columns = ["output", "shape", "mean", "std", "zeros", "largest"]
        cells = [
            [o.name, " x ".join(map(str, o.shape)), o.mean, o.std, f"{o.zeros:.3f}", o.largest] for o in stats.outputs
        ]
        print_table(columns, cells, title="features and taps: zeros as a share, the largest absolute number")
    columns = ["view", "rows", "top-1", "agree", "conf.", "nats", "kept at T 1, 2, 4", "NLL"]
    print_table(
        columns, [_row(view) for view in stats.views], title="by view: accuracy, agreement, confidence, entropy"
    )


def _row(view: ViewStats) -> list[Any]:
    shares = [view.accuracy, view.agreement, view.confidence, view.entropy]
    kept_mass = " ".join(f"{mass:.3f}" for mass in view.kept or ())
    return [view.view, view.rows, *map(_short, shares), kept_mass, _short(view.nll)]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
