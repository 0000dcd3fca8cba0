"""The house as tests read it: its files, and which module imports which, wherever in the file."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKS = {"kdcache/cli", "kdcache/pipelines"}  # symlinks inside kdcache/ that lead to the top folders

ROOMS = (
    "errors", "base", "labels", "places", "store", "sharing", "whole_store",
    "views", "networks", "objectives", "measures", "training",
)  # fmt: skip
"""Rooms of kdcache/, each of which imports from itself and from those before it."""
STORE_SIDE = ROOMS[: ROOMS.index("whole_store") + 1]


def sources(*folders: str) -> Iterator[Path]:
    """Python files of the top folders, each once."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not LINKS & {"/".join(path.relative_to(ROOT).parts[:2])}:
                yield path


def module_of(path: Path) -> str:
    """The dotted name under which code imports a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "kdcache" else ("kdcache", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """`store` for kdcache.store.layout; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file; `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


@cache
def modules() -> dict[str, frozenset[str]]:
    """Every module of kdcache/, pipelines/ and cli/, and those of them that it imports: at its head, inside functions,
    and for type checkers only. `kdcache` itself names the others by string."""
    files = {module_of(path): path for path in sources("kdcache", "pipelines", "cli")}
    graph = {}
    for module, path in files.items():
        named = {name if name in files else name.rpartition(".")[0] for name in imports(path)}
        graph[module] = frozenset() if module == "kdcache" else frozenset(named & files.keys() - {"kdcache"})
    return graph


def longest_chain() -> list[str]:
    """The longest way from a module to one that imports nothing of ours. Raises AssertionError, showing it, for a
    circle."""
    graph, chains = modules(), dict[str, list[str]]()

    def chain(module: str, above: tuple[str, ...]) -> list[str]:
        assert module not in above, f"a circle: {' > '.join((*above[above.index(module) :], module))}"
        if module not in chains:
            below = [chain(imported, (*above, module)) for imported in sorted(graph[module])]
            chains[module] = [module, *max(below, key=len, default=[])]
        return chains[module]

    return max((chain(module, ()) for module in graph), key=len)


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running some code."""
    line = f"import sys\n{code}\nsys.stdout.write('\\n' + ' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())
