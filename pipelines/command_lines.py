"""Settings as the command line that says the same, so that whatever is made can be made by hand."""

import json
import shlex
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from kdcache.base.specs import parse_arguments
from kdcache.base.view_span import ViewSpan


def command_line(command: str, positional: str, settings: BaseModel) -> str:
    """`kdcache COMMAND` with the value of `positional`, and a flag for each setting that is not at its default."""
    words = ["kdcache", command, *_texts(getattr(settings, positional))]
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name == positional or (field.default is not PydanticUndefined and value == field.default):
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [word for text in _texts(value) for word in (flag, text)]
    return shlex.join(words)


def _texts(value: Any) -> list[str]:
    """The texts that a flag is given, one for each time that it is repeated."""
    if isinstance(value, dict):
        return [f"{key}={_argument(key, entry)}" for key, entry in value.items()]
    if isinstance(value, tuple):
        return [_text(entry) for entry in value]
    return [_text(value)]


def _argument(key: str, value: Any) -> str:
    """The text of one entry of key=value; a text that would be read as a number or a list stands in quotes."""
    text = _text(value)
    is_text = isinstance(value, str) and parse_arguments([f"{key}={text}"], key)[key] == value
    return text if is_text or not isinstance(value, str) else json.dumps(value)


def _text(value: Any) -> str:
    if isinstance(value, ViewSpan):
        return str(value.stop if value.is_count else value)
    if isinstance(value, list | tuple | bool):
        return json.dumps(value)
    return value.as_posix() if isinstance(value, Path) else str(value)
