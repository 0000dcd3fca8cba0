"""The house: imports run one way, the store side needs no torch, and what is installed is what was promised."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdcache.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("kdcache", "kdcache.pipelines", "kdcache.cli")
STORE_SIDE = (
    "errors", "canonical", "plan", "manifest", "layout", "reduction", "encoding", "softlabels", "tail",
    "shards", "commits", "segment", "seals", "store", "inspection", "specs", "progress", "calibration",
    "fidelity", "plots", "lineage", "limits", "chunks", "wholes", "doctor", "rows", "reading", "deal",
    "windows", "packing", "row_bytes", "sweep_plots", "processes.cluster", "processes.local_cluster",
    "processes.launch", "processes.shares",
)  # fmt: skip
STORE_SIDE_FOLDERS = ("places", "sharing", "whole_store")
LINKS = {"kdcache/cli", "kdcache/pipelines"}
LIMIT = 300
FLOOR_NAMES = {"pipelines", "cli"}


def sources(*folders: str) -> Iterator[Path]:
    """Python files of the top folders; the two symlinks inside kdcache/ lead to the same files."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not LINKS & {"/".join(path.relative_to(ROOT).parts[:2])}:
                yield path


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file; `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def floor(module: str) -> int:
    """0 for the library, 1 for pipelines, 2 for the command line; -1 for what is not ours."""
    if module.partition(".")[0] != "kdcache":
        return -1
    return max(index for index, name in enumerate(FLOORS) if f"{module}.".startswith(f"{name}."))


@pytest.mark.parametrize(("folder", "highest"), [("kdcache", 0), ("pipelines", 1), ("cli", 2)])
def test_imports_run_one_way(folder: str, highest: int) -> None:
    files = list(sources(folder))
    assert len(files) > 5
    entry = ROOT / "kdcache/__main__.py"  # `python -m kdcache` is the command line
    upward = [(path.name, name) for path in files for name in imports(path) if floor(name) > highest and path != entry]
    assert upward == []


def test_nobody_imports_the_bare_names() -> None:
    files = [*sources("kdcache", "pipelines", "cli", "tests")]
    assert [(path.name, name) for path in files for name in imports(path) if name.split(".")[0] in FLOOR_NAMES] == []


def test_the_terminal_is_the_command_line_s_alone() -> None:
    files = list(sources("kdcache", "pipelines"))
    tools = {"typer", "rich", "click"}
    assert [(path.name, name) for path in files for name in imports(path) if name.split(".")[0] in tools] == []


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


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running some code."""
    line = f"import sys\n{code}\nsys.stdout.write('\\n' + ' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_store_side_needs_no_torch() -> None:
    folders = [
        f"{path.parent.name}.{path.stem}"
        for each in STORE_SIDE_FOLDERS
        for path in (ROOT / "kdcache" / each).glob("*.py")
    ]
    found = loaded("\n".join(f"import kdcache.{name}" for name in (*STORE_SIDE, *folders)))
    assert {"kdcache", "zarr", "numpy"} <= found
    assert not {"torch", "torchvision", "typer", "rich"} & found


@pytest.mark.parametrize("given", [["--help"], ["extract", "--help"], ["train", "--help"]], ids=str)
def test_help_imports_neither_torch_nor_zarr(given: list[str]) -> None:
    found = loaded(f"from kdcache.cli.app import main\ntry:\n    main({given!r})\nexcept SystemExit:\n    pass")
    assert "typer" in found
    assert not {"torch", "zarr", "torchvision"} & found


def test_the_command_line_runs_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_text("raise SystemExit('the user has a module called cli')\n")
    (tmp_path / "pipelines.py").write_text("raise SystemExit('the user has a module called pipelines')\n")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    line = [sys.executable, "-m", "kdcache", "--version"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, version, "")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_module_and_is_documented(command: str) -> None:
    assert callable(importlib.import_module(f"kdcache.cli.{command}").command)
    assert f"`kdcache {command}" in (ROOT / "README.md").read_text()


def test_every_module_of_the_command_line_is_a_command() -> None:
    helpers = {"__init__", "app", "console", "flags", "live"}
    assert {path.stem for path in sources("cli")} - helpers == set(COMMANDS)


def test_every_package_is_listed_for_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in sources("kdcache")}
    inside = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(listed) == inside | {"kdcache.cli", "kdcache.pipelines"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel that setuptools builds from a copy of what it needs, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("kdcache", "cli", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    code = "import sys; from setuptools import build_meta; sys.stdout.write('\\n' + build_meta.build_wheel('out'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / "out" / done.stdout.splitlines()[-1]) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_and_owns_one_name(wheel: set[str]) -> None:
    expected = {f"kdcache/{path.relative_to(ROOT)}" for path in sources("cli", "pipelines")}
    expected |= {path.relative_to(ROOT).as_posix() for path in sources("kdcache")}
    assert expected <= wheel
    assert "kdcache/py.typed" in wheel
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kdcache"}
    assert any(name.endswith("entry_points.txt") for name in wheel)


def test_every_public_name_is_there() -> None:
    import kdcache

    assert sorted(kdcache.__all__) == sorted(set(kdcache.__all__))
    for name in kdcache.__all__:
        assert getattr(kdcache, name).__doc__ or name == "SoftLabels"
    with pytest.raises(AttributeError, match="no attribute 'Stroe'"):
        kdcache.Stroe  # noqa: B018
