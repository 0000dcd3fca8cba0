"""The house: rooms import one way, the store side needs no torch, files are short, commands are documented."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdcache.cli.app import COMMANDS
from kdcache.cli.app import module_of as module_of_command
from kdcache.labels.encodings import ENCODINGS
from kdcache.labels.soft_labels import SoftLabels
from tests.kits.house import ROOMS, ROOT, STORE_SIDE, imports, loaded, longest_chain, modules, room_of, sources

FLOORS = ("", "pipelines", "cli")  # kdcache's own rooms stand beneath both
LIMIT = 300  # lines of a file
CHAIN = 18  # modules, one importing the next
ASKED = ("encoding.k", "encoding.name")
TERMINAL = {"typer", "rich", "click"}
MAIN = ("extract", "train", "sweep", "compare", "verify", "inspect", "push", "pull")  # which the README must show
BARE = {"pipelines", "cli"}
STAGES = {"compare", "demos", "extract", "importing", "studies", "train", "verify", "sweep"}
TESTS = {
    "compare",
    "doors",
    "ecosystem",
    "kits",
    "faults",
    "processes",
    "real_data",
    "golden",
    "benchmarks",
    "torture",
    "pipelines",
    "cli",
}


def floor(module: str) -> int:
    """0 for a room of the library, 1 for pipelines, 2 for the command line."""
    return FLOORS.index(room) if (room := room_of(module)) in FLOORS[1:] else 0


def test_every_file_lies_in_a_room() -> None:
    at_the_top = {path.stem for path in (ROOT / "kdcache").glob("*.py")}
    assert at_the_top == {"__init__", "__main__", "errors"}
    folders = {path.parent for path in sources("kdcache")} - {ROOT / "kdcache"}
    assert {folder.relative_to(ROOT / "kdcache").as_posix() for folder in folders} == set(ROOMS) - {"errors"}
    assert {path.stem for path in (ROOT / "pipelines").glob("*.py")} == {
        "__init__",
        "settings",
        "setting_groups",
        "command_lines",
        "taps",
        "taps_settings",
    }
    assert {path.parent.name for path in (ROOT / "pipelines").glob("*/*.py")} == STAGES
    rooms = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == TESTS | set(ROOMS) - {"errors"}


def test_a_room_imports_only_from_rooms_above_it() -> None:
    """Wherever in the file: an import that is hidden in a function counts, and so does one for type checkers."""
    wrong = [
        (module, name)
        for module, names in modules().items()
        for name in names
        if room_of(module) in ROOMS
        and not (room_of(name) in ROOMS and ROOMS.index(room_of(name)) <= ROOMS.index(room_of(module)))
    ]
    assert wrong == []


def test_imports_run_one_way() -> None:
    upward = [
        (module, name)
        for module, names in modules().items()
        for name in names
        if floor(name) > floor(module) and module != "kdcache.__main__"  # `python -m kdcache` is the command line
    ]
    assert upward == []


def test_the_longest_chain_of_imports_is_short_and_no_circle() -> None:
    chain = longest_chain()
    assert len(chain) <= CHAIN, f"{len(chain)} modules, {CHAIN} are allowed: {' > '.join(chain)}"


def test_nobody_outside_labels_asks_which_encoding_it_is() -> None:
    """No isinstance of an encoding or of soft labels, no look at an encoding's own name or k: the object knows."""
    kinds = {kind.__name__ for kind in (*ENCODINGS.values(), *SoftLabels.__subclasses__())}
    assert {"TopKEncoding", "FullEncoding", "TopKLabels", "FullLabels"} <= kinds
    asked = []
    for path in sources("kdcache", "pipelines", "cli"):
        if path.parent == ROOT / "kdcache/labels":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "type"):
                words = {name.id for part in node.args for name in ast.walk(part) if isinstance(name, ast.Name)}
                asked += [(path.name, node.lineno)] if words & kinds else []
            elif isinstance(node, ast.Compare):
                values = [ast.unparse(value) for value in (node.left, *node.comparators)]
                asked += [(path.name, node.lineno) for value in values if value.endswith(ASKED)]
    assert asked == []


def test_a_room_s_own_file_holds_its_duty_alone() -> None:
    """Nothing is imported from a room but from the file that holds it; networks are named on command lines."""
    for path in sources("kdcache", "pipelines"):
        if path.name == "__init__.py" and path.parent.name not in ("kdcache", "networks"):
            assert len(ast.parse(path.read_text()).body) == 1, f"{path} holds more than its duty"


def test_nobody_imports_the_bare_names() -> None:
    files = [*sources("kdcache", "pipelines", "cli", "tests")]
    assert [(path.name, name) for path in files for name in imports(path) if name.split(".")[0] in BARE] == []


def test_the_terminal_is_the_command_line_s_alone() -> None:
    files = list(sources("kdcache", "pipelines"))
    assert [(path.name, name) for path in files for name in imports(path) if name.split(".")[0] in TERMINAL] == []


def test_only_the_console_prints() -> None:
    printing = [
        path.relative_to(ROOT).as_posix()
        for path in sources("kdcache", "pipelines", "cli")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(printing) <= {"cli/console.py"}


def test_files_are_short_and_start_with_their_duty() -> None:
    for path in sources("kdcache", "pipelines", "cli", "tests"):
        text = path.read_text()
        assert len(text.splitlines()) <= LIMIT, f"{path} has {len(text.splitlines())} lines; split it by idea"
        assert not text or ast.get_docstring(ast.parse(text)) or path.name == "__main__.py", f"{path} has no duty"


def test_the_store_side_needs_no_torch() -> None:
    names = [module for module in modules() if room_of(module) in STORE_SIDE]
    assert len(names) > 50
    needed = loaded("\n".join(f"import {name}" for name in names))
    assert {"kdcache", "zarr", "numpy"} <= needed
    assert not {"torch", "torchvision", "typer", "rich", "dask", "distributed"} & needed


WITHOUT_TORCH = [["--help"], ["extract", "--help"], ["train", "--help"], ["objectives"], ["objectives", "tvd"]]


@pytest.mark.parametrize("given", WITHOUT_TORCH, ids=str)
def test_help_and_lists_import_neither_torch_nor_zarr(given: list[str]) -> None:
    needed = loaded(f"from kdcache.cli.app import main\ntry:\n    main({given!r})\nexcept SystemExit:\n    pass")
    assert "typer" in needed
    assert not {"torch", "zarr", "torchvision", "dask", "distributed"} & needed


def test_dask_is_imported_where_it_is_used() -> None:
    """Inside functions, but for the module that workers of a cluster load."""
    at_the_head = {
        path.name
        for path in sources("kdcache", "pipelines", "cli")
        if re.search(r"^(import|from) (dask|distributed)\b", path.read_text(), re.MULTILINE)
    }
    assert at_the_head == {"dask_worker.py"}


def test_the_command_line_runs_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_text("raise SystemExit('the user has a module called cli')\n")
    (tmp_path / "pipelines.py").write_text("raise SystemExit('the user has a module called pipelines')\n")
    versions = {found.version for found in importlib.metadata.distributions(name="kdcache")}
    line = [sys.executable, "-m", "kdcache", "--version"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip() in versions, done.stderr) == (0, True, "")


def test_every_command_has_a_module_and_is_documented() -> None:
    """On the page of commands each has a row, in their order, and no row names another."""
    for command in COMMANDS:
        assert callable(importlib.import_module(module_of_command(command)).command)
    rows = re.findall(r"^\| \[`kdcache (\w+)`\]", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    assert rows == list(COMMANDS)
    readme = (ROOT / "README.md").read_text()
    assert [command for command in MAIN if not re.search(rf"(kdcache |`){command}\b", readme)] == []


def test_every_module_of_the_command_line_is_a_command() -> None:
    helpers = {"__init__", "app", "completion", "console", "flags", "help_pages", "live", "next_commands", "progress"}
    helpers |= {"summary"}
    commands = {module_of_command(command).rpartition(".")[2] for command in COMMANDS}
    assert {path.stem for path in sources("cli")} - helpers == commands


def test_every_public_name_is_there() -> None:
    import kdcache

    assert sorted(kdcache.__all__) == sorted(set(kdcache.__all__))
    assert set(kdcache.__all__) <= set(dir(kdcache))
    for name in kdcache.__all__:
        assert getattr(kdcache, name).__doc__ or name == "SoftLabels"
    with pytest.raises(AttributeError, match="no attribute 'Stroe'"):
        kdcache.Stroe  # noqa: B018


def test_the_package_is_imported_without_its_rooms() -> None:
    assert not {"numpy", "pydantic", "torch", "zarr"} & loaded("import kdcache; dir(kdcache)")
