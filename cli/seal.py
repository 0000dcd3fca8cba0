"""`kdcache seal`."""

from typing import Annotated

import typer

from kdcache.cli.console import print_record
from kdcache.cli.flags import Json
from kdcache.store import Store


def command(store: Annotated[str, typer.Argument(help="folder of the store")], as_json: Json = False) -> None:
    opened = Store.open_for_writing(store)
    seal = opened.seal()
    views = ", ".join(f"{first}:{last}" for first, last in (segment.views for segment in seal.segments))
    record = {"store": store, "content_id": seal.content_id, "views": views, "pin": f"{store}@{seal.content_id[:32]}"}
    print_record(record, as_json=as_json, title="sealed")
