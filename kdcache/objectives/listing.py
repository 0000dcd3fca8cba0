"""The listing of the objectives is kept as data, so that it can be shown without importing torch.

It is what `catalogue.describe` and the classes' docstrings say; a test holds one against the other. Write it anew by
`python -m kdcache.objectives.listing`.
"""

import inspect
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

NAME = "listing.json"


@cache
def listing() -> dict[str, dict[str, Any]]:
    """Objective : its record, as `catalogue.describe` gives it, and its docstring under `text`; in their order."""
    records = json.loads(files("kdcache.objectives").joinpath(NAME).read_text("utf-8"))
    return {record["objective"]: record for record in records}


def records_of_classes() -> list[dict[str, Any]]:
    """The same records from the classes themselves, which imports torch."""
    from kdcache.objectives.catalogue import TERMS, describe, term_class

    return [{**describe(name), "text": text_of(term_class(name))} for name in TERMS]


def text_of(term: object) -> str:
    """The docstring of a term's class or factory, without the examples at its end."""
    return (inspect.getdoc(term) or "").partition("\n\nExamples:")[0]


def written(records: list[dict[str, Any]]) -> str:
    """The text of the file of records: one a line, so that a change is seen where it is."""
    return "[\n" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n]\n"


if __name__ == "__main__":
    Path(__file__).with_name(NAME).write_text(written(records_of_classes()), encoding="utf-8")
