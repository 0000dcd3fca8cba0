"""All studies by name, in the order of the papers. A study's file is imported when it is asked for."""

import importlib
from typing import cast

from kdcache.errors import InvalidInputError
from kdcache.pipelines.studies.study import Study

STUDIES = (
    "stanton",
    "ojha",
    "cho",
    "guo",
    "tung",
    "lukasik",
    "pham",
    "chen",
    "han",
    "wang_selection",
    "wang_verses",
    "yang",
    "mishra",
    "menon",
    "ganta",
    "liu",
    "wang_checkpoints",
    "gao",
    "nagarajan",
    "tang",
    "mueller",
    "livanos",
)


def load_study(name: str) -> Study:
    """The study of a name. Raises InvalidInputError, listing the names, for another."""
    if name not in STUDIES:
        raise InvalidInputError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    return cast("Study", importlib.import_module(f"kdcache.pipelines.studies.{name}").STUDY)
