"""Kinds of data sets as users write them on a command line. Nothing is imported to list them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALLABLES = "package.module:callable, file.py:callable"


def _nowhere(place: str, arguments: Mapping[str, Any]) -> Path | None:
    return None


def _of_split(place: str, arguments: Mapping[str, Any]) -> Path | None:
    return Path(place).expanduser() / str(arguments.get("split", ""))


def _of_root(place: str, arguments: Mapping[str, Any]) -> Path | None:
    is_folder = place in ("ImageFolder", "DatasetFolder")  # of torchvision, whose folders are classes
    return Path(str(arguments["root"])) if is_folder and arguments.get("root") else None


@dataclass(frozen=True)
class Form:
    """A kind of data set: the `text` that lists show, a `hint` on its arguments, and the folder in which every new
    picture or folder would become part of it, None where there is none."""

    text: str
    hint: str = ""
    folder: Callable[[str, Mapping[str, Any]], Path | None] = _nowhere


FORMS = {
    "digits": Form("digits"),
    "fashion-mnist": Form("fashion-mnist:FOLDER"),
    "folder": Form("folder:PATH", "folder:PATH with split=NAME is PATH/NAME", _of_split),
    "hf": Form("hf:FOLDER_OR_NAME"),
    "parquet": Form("parquet:FILE_OR_FOLDER"),
    "text": Form("text:PATH", "it takes tokenizer=FILE.json"),
    "webdataset": Form("webdataset:SHARDS"),
    "torchvision": Form("torchvision:NAME", folder=_of_root),
}
"""Every kind by the word before its colon."""

LIST = f"{', '.join(form.text for form in FORMS.values())}, {CALLABLES}"


def growing_folder(spec: str, arguments: Mapping[str, Any]) -> Path | None:
    """The folder in which a store or a run would become part of the data set of a spec."""
    kind, _, place = spec.partition(":")
    return FORMS[kind].folder(place, arguments) if kind in FORMS else None
