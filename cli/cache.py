"""`kdcache cache` shows or clears the cache of far stores."""

from dataclasses import asdict
from typing import Annotated

import typer

from kdcache.cli.console import print_record
from kdcache.cli.flags import Json

EXAMPLES = (
    "kdcache cache",
    "kdcache cache --clear",
)


def command(
    clear: Annotated[bool, typer.Option("--clear", help="Remove every file that it holds.")] = False,
    as_json: Json = False,
) -> None:
    from kdcache.places.cache import open_cache

    cache = open_cache()
    removal = cache.clear() if clear else None
    record = asdict(cache.usage())
    record["limit_bytes"] = record.pop("limit")
    if removal is not None:
        record |= {"removed_files": removal.files, "removed_bytes": removal.bytes}
    print_record(record, as_json=as_json)
