"""Specs: `package.module:callable`, `file.py:callable` and `key=value`, as users write them on a command line."""

import inspect
import os
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kdcache.base.process_state import kept_state
from kdcache.base.user_code import is_user_file
from kdcache.base.user_files import load_file, load_module, without_folders
from kdcache.errors import InvalidInputError

KEY = re.compile(r"(?:[\w-]+\.)?[^\W\d]\w*")  # `temperature`, or of one term of several: `hint.w_kd`


def parse_arguments(pairs: Sequence[str], flag: str) -> dict[str, Any]:
    """Pairs such as `["size=224", "scale=[0.5, 1.0]", "weights=V2"]` as a dict. A value that is no TOML literal is a
    string. Raises InvalidInputError."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not KEY.fullmatch(key):
            raise InvalidInputError(f"{flag} {pair!r} is not key=value; write for example {flag} size=224")
        if key in arguments:
            raise InvalidInputError(f"{flag} gives {key} twice: {arguments[key]!r} and {text!r}; give it once")
        arguments[key] = parse_value(text)
    return arguments


def parse_value(text: str) -> Any:
    """A TOML literal (number, true, "text", [list]) or else the text itself."""
    if "\n" in text:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str | list | dict) else text  # a date stays text


_HOME = re.compile(r"(?:^|(?<=[:=,]))~[^/:=,@]*(?=/|$)")


def at_home(value: Any) -> Any:
    """A value whose texts have `~` expanded where a path begins: at their start, and after a colon, `=` or comma.
    Lists and dicts are gone through."""
    if isinstance(value, str):
        return _HOME.sub(lambda match: os.path.expanduser(match[0]), value)
    if isinstance(value, list):
        return [at_home(item) for item in value]
    return {key: at_home(item) for key, item in value.items()} if isinstance(value, dict) else value


def read_toml(path: str | Path, noun: str) -> dict[str, Any]:
    """The content of a TOML file in UTF-8, with or without a byte order mark, `~` expanded. Raises InvalidInputError,
    which names the line."""
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{noun} {path} cannot be read: {error}") from error
    try:
        values: dict[str, Any] = at_home(tomllib.loads(data.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInputError(
            f"{noun} {path} cannot be read: byte 0x{data[error.start]:02x} in line {line} is not of UTF-8; save it as "
            "UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{noun} {path} cannot be read: {error}") from error
    return values


def load_callable(spec: str, noun: str) -> Callable[..., Any]:
    """The callable that a spec names, split at the last colon. Raises InvalidInputError, naming what is missing.

    `noun` names the callable in the message.
    """
    location, colon, name = spec.rpartition(":")
    if not colon or not location or not name:
        raise InvalidInputError(f"{noun} {spec!r} is neither package.module:callable nor file.py:callable")
    with kept_state():
        module = load_file(location, noun) if location.endswith(".py") else load_module(location, noun)
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise InvalidInputError(f"{noun} {spec!r}: {location} has no {name}; it has {_callables(module)}")
        value = getattr(value, part)
    if not callable(value):
        raise InvalidInputError(f"{noun} {spec!r} is a {type(value).__name__}, not a callable")
    return value


def _callables(module: ModuleType) -> str:
    """Names of a module's callables, which a spec may end in, for a message."""
    public = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return ", ".join(sorted(name for name in public if callable(getattr(module, name, None)))[:20]) or "none"


def call(function: Callable[..., Any], arguments: dict[str, Any], noun: str) -> Any:
    """Call a function with a user's arguments. Raises InvalidInputError for wrong names before the call, and lists the
    function's own."""
    try:
        signature = inspect.signature(function)
        signature.bind(**arguments)
    except TypeError as error:
        names = ", ".join(inspect.signature(function).parameters) or "none"
        raise InvalidInputError(
            f"{noun} takes other arguments than {sorted(arguments)}: {error}; it has {names}"
        ) from error
    except ValueError:  # builtins without a signature
        pass
    with kept_state():
        return function(**arguments)


_LIBRARIES = sys.stdlib_module_names | {"torch", "torchvision", "timm", "kdcache"}


def is_packaged(code: Any) -> bool:
    """True for a function or class of an installed package that is none of these libraries."""
    module = getattr(code, "__module__", None) or ""
    file = getattr(sys.modules.get(module), "__file__", None)
    return bool(file) and module.partition(".")[0] not in _LIBRARIES and not is_user_file(str(file), module)


def own_source(code: Any) -> str:
    """The source of a user's own function or class; "" for a library's, which its name identifies."""
    if (getattr(code, "__module__", None) or "").partition(".")[0] in _LIBRARIES:
        return ""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return without_folders(f"{code.__module__}.{code.__qualname__}")


def portable_name(spec: str) -> str:
    """A spec without the folders of this machine: `/home/me/net.py:net` is `net.py:net`."""
    location, colon, name = spec.rpartition(":")
    return f"{Path(location).name}:{name}" if colon and location.endswith(".py") else spec
