"""Specs: `package.module:callable`, `file.py:callable` and `key=value`, as users write them on a command line."""

import importlib
import importlib.util
import inspect
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kdcache.errors import InvalidInputError


def parse_arguments(pairs: Sequence[str], flag: str) -> dict[str, Any]:
    """`["size=224", "scale=[0.5, 1.0]", "weights=V2"]` as a dict; a value that is not a TOML literal is a string."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
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


def load_callable(spec: str, what: str) -> Callable[..., Any]:
    """The callable that a spec names, split at the last colon. Raises InvalidInputError with what is missing."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise InvalidInputError(f"{what} {spec!r} is neither package.module:callable nor file.py:callable")
    module = _load_file(place, what) if place.endswith(".py") else _load_module(place, what)
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise InvalidInputError(f"{what} {spec!r}: {place} has no {name}; it has {_callables(module)}")
        found = getattr(found, part)
    if not callable(found):
        raise InvalidInputError(f"{what} {spec!r} is a {type(found).__name__}, not a callable")
    return found


def _callables(module: ModuleType) -> str:
    """Names of a module that a spec may end in, for a message."""
    public = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return ", ".join(sorted(name for name in public if callable(getattr(module, name, None)))[:20]) or "none"


def call(function: Callable[..., Any], arguments: dict[str, Any], what: str) -> Any:
    """Call with a user's arguments; wrong names are refused before the call, with the names there are."""
    try:
        signature = inspect.signature(function)
        signature.bind(**arguments)
    except TypeError as error:
        known = ", ".join(inspect.signature(function).parameters) or "none"
        raise InvalidInputError(
            f"{what} takes other arguments than {sorted(arguments)}: {error}; it has {known}"
        ) from error
    except ValueError:  # builtins without a signature
        pass
    return function(**arguments)


_LIBRARIES = sys.stdlib_module_names | {"torch", "torchvision", "timm", "kdcache"}


def own_source(code: Any) -> str:
    """The source of a function or class of the user's own; "" for a library's, whose name says what it does."""
    if (getattr(code, "__module__", None) or "").partition(".")[0] in _LIBRARIES:
        return ""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return f"{code.__module__}.{code.__qualname__}"


def portable_name(spec: str) -> str:
    """A spec without the folders of this machine: `/home/me/net.py:net` is `net.py:net`."""
    place, colon, name = spec.rpartition(":")
    return f"{Path(place).name}:{name}" if colon and place.endswith(".py") else spec


def _load_module(place: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            advice = "install it, or name a file: path/to/file.py:callable"
            raise InvalidInputError(f"{what}: there is no module {error.name!r}; {advice}") from error
        raise


def _load_file(place: str, what: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise InvalidInputError(f"{what}: there is no file {path}")
    name = f"kdcache_user_{path.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
