"""`kdcache seal` lists a store's digests under one content id."""

import shlex
from typing import Annotated

import typer

from kdcache.base.view_span import shown_spans
from kdcache.cli.console import print_record
from kdcache.cli.flags import Json
from kdcache.cli.summary import print_next
from kdcache.store.store import Store

EXAMPLES = ('kdcache seal digits.kd --name "digits, 4 views" --license CC-BY-4.0',)


def command(
    store: Annotated[str, typer.Argument(help="folder of the store")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="TEXT", help="Write a name on the store's card.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", metavar="TEXT", help="Write a licence on the card.")
    ] = None,
    notes: Annotated[str | None, typer.Option("--notes", metavar="TEXT", help="Write notes on the card.")] = None,
    as_json: Json = False,
) -> None:
    opened_store = Store.open_for_writing(store)
    texts = {"name": name, "license": license_, "notes": notes}
    if changes := {field: text for field, text in texts.items() if text is not None}:
        opened_store.write_card(opened_store.card.model_copy(update=changes))
    seal = opened_store.seal()
    views = shown_spans(segment.views for segment in seal.segments)
    record = {"store": store, "content_id": seal.content_id, "views": views, "pin": f"{store}@{seal.content_id[:32]}"}
    print_record(record, as_json=as_json, title="sealed")
    print_next([] if as_json else [shlex.join(["kdcache", "verify", store])])
