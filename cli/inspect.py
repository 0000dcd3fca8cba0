"""`kdcache inspect` shows a store, and some of its rows."""

from typing import Annotated, Any

import typer

from kdcache.cli.console import print_json, print_record, print_table
from kdcache.cli.flags import Json
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.lineage import chain_of
from kdcache.store.lineage_text import render
from kdcache.store.store import Store

EXAMPLES = (
    "kdcache inspect digits.kd --rows 5",
    "kdcache inspect s3://team/digits.kd@9f86d081884c7d659a2feaa0c55ad015",
)

Rows = Annotated[int, typer.Option("--rows", metavar="N", min=0, help="Show the first N positions with class names.")]
View = Annotated[int | None, typer.Option("--view", metavar="N", help="Which view's rows; the first by default.")]


def command(
    store: Annotated[str, typer.Argument(help="folder, zip file or address of the store, STORE@ID for a pinned seal")],
    rows: Rows = 0,
    view: View = None,
    as_json: Json = False,
) -> None:
    opened_store = Store.open(store)
    record: dict[str, Any] = describe_store(opened_store)
    row_records = describe_rows(opened_store, rows, view) if rows or view is not None else []
    if as_json:
        print_json({**record, "rows_shown": row_records} if rows else record)
        return
    print_record({**record, "parents": [render(link) for link in chain_of(opened_store)]}, as_json=False)
    if row_records:
        print_table(list(row_records[0]), [list(row.values()) for row in row_records])
