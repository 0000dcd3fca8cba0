"""`kdcache diff` compares two stores. Exit 0: same identity and soft labels; 1: they differ; 2: not compared."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcache.base.engine_settings import EngineSettings
from kdcache.base.figures import check_picture
from kdcache.base.ranges import LARGE
from kdcache.cli.console import print_json, print_line, print_record, print_table
from kdcache.cli.flags import Json, Views, with_settings_flags
from kdcache.cli.progress import progress_bar
from kdcache.errors import difference_lines
from kdcache.store.store import Store
from kdcache.whole_store.diff import FieldDifference, StoreDifference, StoreSummary, diff_stores
from kdcache.whole_store.diff_plot import plot_difference
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.row_comparison import RowComparison, ViewAgreement
from kdcache.whole_store.tally import Spread

SHORT = 160  # signs of two values that stand in a table
EXAMPLES = ("kdcache diff a.kd b.kd --plot diff.png",)

Place = "folder or address of a store, STORE@ID for a pinned seal"
Temperature = Annotated[
    float, typer.Option("--temperature", metavar="X", min=0.0, max=LARGE, help="T at which soft labels are compared.")
]
Rows = Annotated[int, typer.Option("--rows", metavar="N", min=0, help="Rows a view that are compared; 0 for all.")]
OtherPictures = Annotated[bool, typer.Option("--other-pictures", help="Compare rows though the view plans differ.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw KL and agreement by view: FILE.png.")]


@with_settings_flags
def command(
    a: Annotated[str, typer.Argument(help=Place)],
    b: Annotated[str, typer.Argument(help=Place)],
    *,
    temperature: Temperature = 1.0,
    rows: Rows = 4096,
    views: Views = None,
    other_pictures: OtherPictures = False,
    plot: Plot = None,
    engine: EngineSettings,
    as_json: Json = False,
) -> None:
    if plot is not None:
        check_picture(plot)
    with progress_bar(quiet=as_json) as progress, open_engine(engine) as block_engine:
        diff = diff_stores(
            Store.open(seen_by(engine, a)),
            Store.open(seen_by(engine, b)),
            temperature=temperature,
            rows=rows,
            views=views,
            other_pictures=other_pictures,
            engine=block_engine,
            progress=progress,
        )
    if plot is not None:
        plot_difference(diff, plot)
    if as_json:
        print_json({"exit_code": 0 if diff.same else 1, **diff.model_dump()})
    else:
        _print(diff)
    if not diff.same:
        raise typer.Exit(1)


def _print(diff: StoreDifference) -> None:
    sides = {"A": _side(diff.a), "B": _side(diff.b)}
    print_table(["store", *sides], [[name, *(side[name] for side in sides.values())] for name in sides["A"]])
    for title, fields in (
        ("identity", diff.identity),
        ("content", diff.content),
        ("provenance", diff.provenance),
    ):
        _print_fields(title, fields, "not reached: identities differ" if title == "content" and diff.identity else "")
    if diff.note:
        print_line(f"note: {diff.note}")
    if diff.rows is not None:
        _print_rows(diff.rows)
    print_line(f"verdict: {'same' if diff.same else 'different'}")


def _side(side: StoreSummary) -> dict[str, Any]:
    spans = [
        f"{segment.views} ({segment.committed} of {segment.blocks} blocks"
        + (f", without taps {', '.join(segment.without)})" if segment.without else ")")
        for segment in side.segments
    ]
    return {
        "place": side.store,
        "content id": (side.content_id or "not sealed")[:24],
        "identity": side.identity[:24],
        "rows": side.rows,
        "classes": side.classes,
        "soft labels": side.soft_labels,
        "views": ", ".join(spans),
        "segment digests": ", ".join((segment.digest or "-")[:16] for segment in side.segments),
    }


def _print_fields(title: str, fields: tuple[FieldDifference, ...], empty_text: str) -> None:
    if fields:
        short = [field for field in fields if "\n" not in field.a + field.b and len(field.a + field.b) <= SHORT]
        if short:
            print_table([f"{title} differs", "A", "B"], [[field.field, field.a, field.b] for field in short])
        for field in fields:
            if field not in short:
                for line in difference_lines(field.field, field.a, field.b, ("A", "B")):
                    print_line(line.strip() if line.startswith(f"  {field.field}") else line)
    else:
        print_line(f"{title}: {empty_text or 'equal'}")


def _print_rows(rows: RowComparison) -> None:
    kl_name = "KL, nats" if rows.exact else "KL, nats, at least"
    record = {
        "rows": rows.rows,
        "T": rows.temperature,
        "agreement": rows.agreement,
        f"overlap of the top {rows.top_k}": rows.overlap,
        f"{kl_name}: A || B": _spread(rows.kl_ab),
        f"{kl_name}: B || A": _spread(rows.kl_ba),
        "mass of the tails": [rows.tail_a, rows.tail_b],
    }
    print_record(record, as_json=False, title="soft labels")
    columns = ["view", "rows", "agreement", "overlap", "equal pixels", "A || B", "B || A"]
    print_table(columns, [_view(view) for view in rows.views], title="KL: means")
    if rows.outputs:
        columns = ["output", "shape", "relative difference", "largest difference"]
        cells = [[o.name, " x ".join(map(str, o.shape)), o.relative, o.largest] for o in rows.outputs]
        print_table(columns, cells, title="features and taps: RMS of the differences over that of A")
    if rows.worst:
        columns = ["index", "view", "at A", "at B", "label", "top A", "top B", "A || B", "B || A"]
        print_table(columns, [_worst(row.model_dump()) for row in rows.worst], title="rows of largest KL")


def _spread(spread: Spread) -> dict[str, Any]:
    return spread.model_dump(exclude=set() if spread.infinite else {"infinite"})


def _view(view: ViewAgreement) -> list[Any]:
    pixels = "other orders" if view.pixels is None else view.pixels
    return [view.view, view.rows, view.agreement, view.overlap, pixels, view.kl_ab.mean, view.kl_ba.mean]


def _worst(row: dict[str, Any]) -> list[Any]:
    return ["infinite" if name.startswith("kl") and value is None else value for name, value in row.items()]
