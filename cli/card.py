"""`kdcache card` writes a README and Croissant metadata for a sealed store."""

from typing import Annotated

import typer

from kdcache.cli.console import print_record
from kdcache.cli.flags import Json
from kdcache.sharing.cards import CROISSANT, README, card_facts, readme, write_card
from kdcache.sharing.croissant import croissant
from kdcache.store.store import Store

EXAMPLES = ("kdcache card digits.kd --out card",)

Out = Annotated[
    str | None, typer.Option("--out", metavar="FOLDER", help="Folder for the two files; the store's own by default.")
]
Published = Annotated[
    str | None, typer.Option("--published", metavar="TEXT", help="Date for the Croissant record: 2026-11-26.")
]


def command(
    store: Annotated[
        str, typer.Argument(help="folder or http(s) address of a sealed store, STORE@ID for a pinned seal")
    ],
    out: Out = None,
    published: Published = None,
    as_json: Json = False,
) -> None:
    opened_store = Store.open(store)
    facts = card_facts(opened_store)
    texts = {README: readme(opened_store), CROISSANT: croissant(opened_store, published)}
    files = write_card(opened_store, out, texts)
    record = {
        "content_id": facts.content_id,
        "name": facts.name,
        "license": facts.license,
        "bytes": facts.bytes,
        "files": files,
    }
    print_record(record, as_json=as_json, title="card")
