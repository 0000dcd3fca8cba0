"""`kdcache objectives` lists the losses that a student can be trained with."""

from typing import Annotated, Any

import typer

from kdcache.cli.console import print_json, print_line, print_record, print_table
from kdcache.cli.flags import Json

EXAMPLES = (
    "kdcache objectives",
    "kdcache objectives dkd",
    "kdcache objectives kd+hint",
)


def command(
    name: Annotated[
        str | None, typer.Argument(help="one of them, or several as kd+hint: formula, source and settings")
    ] = None,
    as_json: Json = False,
) -> None:
    from kdcache.objectives.listing import listing

    if name is None:
        records = [{key: value for key, value in record.items() if key != "text"} for record in listing().values()]
        if as_json:
            print_json(records)
        else:
            columns = {name: name.replace("_", " ") for name in ("objective", "needs", "on_top_k", "under_mixing")}
            rows = [[record[name] for name in columns] for record in records]
            print_table(list(columns.values()), rows, title="All are exact on full stores. More: objectives NAME")
        return
    described = [dict(listing()[name])] if name in listing() else _described(name)
    if as_json:
        print_json(described if len(described) > 1 else described[0])
        return
    for record in described:
        print_line(record.pop("text") + "\n")
        print_record(record, as_json=False)


def _described(name: str) -> list[dict[str, Any]]:
    """The records of several objectives, and of the user's own: their code is imported."""
    from kdcache.objectives.catalogue import describe, names_in, term_class
    from kdcache.objectives.listing import text_of

    return [{**describe(part), "text": text_of(term_class(part))} for part in names_in(name)]
