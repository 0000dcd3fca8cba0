"""Files of Python that the user names: each is loaded once, and imports its neighbours from its own folder.

Installed packages come first, so no neighbour hides one from a library. Where two folders have neighbours of one name,
each file gets its own.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from kdcache.errors import InvalidInputError

_PREFIX = "kdcache_user_"  # of the names of their modules
_loaded: dict[str, ModuleType] = {}  # by path, in the order of loading


@dataclass(frozen=True)
class UserFiles:
    """Files that were loaded, in order: another process loads them too before it unpickles what they define."""

    paths: tuple[str, ...]

    @classmethod
    def loaded(cls) -> "UserFiles":
        return cls(tuple(path for path in _loaded if Path(path).is_file()))

    def load(self) -> None:
        for path in self.paths:
            load_file(path, "file")


def load_file(location: str, noun: str) -> ModuleType:
    """The module of a file. Raises InvalidInputError where there is none, or where it imports a name that is both a
    neighbour's and an installed package's, and whatever the file raises."""
    path = Path(location).expanduser().resolve()
    if not path.is_file():
        raise InvalidInputError(f"{noun}: there is no file {path}")
    if str(path) in _loaded:
        return _loaded[str(path)]
    name = _module_name(path)
    _require_clear_imports(path, noun)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _neighbours_of(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _loaded[str(path)] = module
    return module


def _module_name(path: Path) -> str:
    """The name of a file's module, the same in every process. Files of one stem have a name each: what they define is
    pickled by it."""
    return f"{_PREFIX}{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def without_folders(text: str) -> str:
    """A text that names modules, as records hold it: those of loaded files by the file's stem alone."""
    for path in map(Path, _loaded):
        text = text.replace(_module_name(path), _PREFIX + path.stem)
    return text


def without_file(text: str, spec: str) -> str:
    """A text that names modules, as records hold it, with the file of a spec nameless: equal for equal code in files of
    other names."""
    location = spec.rpartition(":")[0]
    return text.replace(_PREFIX + Path(location).stem, _PREFIX) if location.endswith(".py") else text


def load_module(location: str, noun: str) -> ModuleType:
    """A module by name: an installed one, or one of the current folder. Raises InvalidInputError where there is none,
    or both."""
    top, here = location.partition(".")[0], Path.cwd()
    installed, neighbour = _installed(top, here), _neighbour(here, top)
    if installed and neighbour and not _is_same(installed, neighbour):
        raise InvalidInputError(
            f"{noun}: {top} is a module that is installed ({installed}) and one of this folder ({neighbour}); name the "
            "file, as in path/to/file.py:callable, or rename it"
        )
    if installed is None:
        _append(str(here))
        importlib.invalidate_caches()
    try:
        return importlib.import_module(location)
    except ModuleNotFoundError as error:
        if error.name is not None and (location == error.name or location.startswith(f"{error.name}.")):
            advice = "install it, or name a file: path/to/file.py:callable"
            raise InvalidInputError(f"{noun}: there is no module {error.name!r}; {advice}") from None
        raise


@contextmanager
def _neighbours_of(folder: Path) -> Iterator[None]:
    """While open, imports find the neighbours of this folder alone; afterwards those of all loaded files, and a name
    that two folders have is refused."""
    folders = _folders() - {str(folder)}
    others = [entry for entry in sys.path if entry in folders]
    ambiguous = {name: _NAMES.pop(name) for name in list(_NAMES) if _neighbour(folder, name)}
    aside = {
        name: module
        for name, module in list(sys.modules.items())
        if "." not in name and _file_of(module) and str(Path(_file_of(module)).parent) in folders
        if not name.startswith(_PREFIX) and _neighbour(folder, name)
    }
    packages = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in aside}
    for name in packages:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if entry not in others]
    _append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for entry in others:
            _append(entry)
        for name, files in ambiguous.items():
            _Ambiguous.add(name, [*files, _file_of(sys.modules.pop(name, None)) or _neighbour(folder, name)])
        for name in aside:
            if name in sys.modules:  # each file has its own; an import from now on could mean either
                _Ambiguous.add(name, [_file_of(aside[name]), _file_of(sys.modules[name])])
                del sys.modules[name]
        sys.modules.update({name: module for name, module in packages.items() if name.partition(".")[0] not in _NAMES})


_NAMES: dict[str, list[str]] = {}  # of modules that two folders have: their files


class _Ambiguous:
    """Refuses late imports of a name that means another file to each of two files."""

    @staticmethod
    def add(name: str, files: list[str]) -> None:
        _NAMES[name] = files
        if _Ambiguous not in sys.meta_path:
            sys.meta_path.insert(0, _Ambiguous)

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in _NAMES:
            files = " and ".join(_NAMES[name])
            raise ImportError(f"{name} may be {files}: import it at the head of your file, or rename one", name=name)
        return None


def _folders() -> set[str]:
    return {str(Path(path).parent) for path in _loaded}


def _append(folder: str) -> None:
    if folder not in sys.path and not (folder == str(Path.cwd()) and "" in sys.path):
        sys.path.append(folder)


def _require_clear_imports(path: Path, noun: str) -> None:
    for name in _imports(path):
        neighbour, installed = _neighbour(path.parent, name), _installed(name, path.parent)
        if neighbour and installed and not _is_same(installed, neighbour):
            raise InvalidInputError(
                f"{noun}: {path} imports {name}, which is a file beside it ({neighbour}) and an installed module "
                f"({installed}); rename the file"
            )


def _imports(path: Path) -> set[str]:
    """The first parts of the modules that a file imports; none where it is no Python, which is said when it is run."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names} - {""}


def _neighbour(folder: Path, name: str) -> str:
    files = (folder / f"{name}.py", folder / name / "__init__.py")
    return next((str(file) for file in files if file.is_file()), "")


def _installed(name: str, folder: Path) -> str | None:
    """Where a module lies that is found without the user's folders; None where it is not."""
    if name in sys.builtin_module_names:
        return "built in"
    mine = {str(folder), "", *_folders()} | ({str(Path.cwd())} if folder != Path.cwd() else set())
    places = [entry for entry in sys.path if entry not in mine and entry != str(folder.resolve())]
    for finder in sys.meta_path:
        if finder is PathFinder or finder is _Ambiguous or not hasattr(finder, "find_spec"):
            continue
        if (spec := finder.find_spec(name, None)) is not None:  # editable installs have finders of their own
            return spec.origin or "built in"
    spec = PathFinder.find_spec(name, places)
    return None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ["?"]))


def _is_same(one: str, other: str) -> bool:
    return Path(one).exists() and Path(one).resolve() == Path(other).resolve()


def _file_of(module: Any) -> str:
    return str(getattr(module, "__file__", None) or "")
