"""`kdcache objectives` lists the losses that a student can be trained with."""

import inspect
from typing import Annotated

import typer

from kdcache.cli.console import print_json, print_line, print_record, print_table
from kdcache.cli.flags import Json


def command(
    name: Annotated[str | None, typer.Argument(help="one of them: its formula, source and settings")] = None,
    as_json: Json = False,
) -> None:
    from kdcache.objectives.catalogue import TERMS, describe, term_class

    if name is None:
        records = [describe(term) for term in TERMS]
        if as_json:
            print_json(records)
        else:
            columns = ["objective", "needs", "on top-k", "under mixing"]
            rows = [[record[column] for column in columns] for record in records]
            print_table(columns, rows, title="All are exact on full stores. More: kdcache objectives NAME")
        return
    record, text = describe(name), inspect.cleandoc(term_class(name).__doc__)
    if as_json:
        print_json({**record, "text": text})
        return
    print_line(text + "\n")
    print_record(record, as_json=False)
