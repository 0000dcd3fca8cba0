"""The wheel: every module is in it, and it owns one name."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions

import pytest

from tests.kits.house import ROOT, imports, module_of, sources

OF_OTHERS = {
    "pydantic_core",
    "markupsafe",
    "botocore",  # boto3's
    "dask_cuda",
}  # brought by those whose parts they are, or not at all


def test_every_package_is_listed_for_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    files = [path for path in sources("kdcache", "pipelines", "cli") if path.name == "__init__.py"]
    assert set(listed) == {module_of(path) for path in files}
    assert {path.parent for path in sources("kdcache", "pipelines", "cli")} == {path.parent for path in files}


def test_what_is_imported_comes_along_and_nothing_else() -> None:
    """Base dependencies are imported by kdcache itself, and other imports are of an extra, which an error names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, extras = _names(project["dependencies"]), project["optional-dependencies"]
    optional = {
        name
        for extra, lines in extras.items()
        if extra not in ("test", "dev", "docs", "bench", "ecosystem")
        for name in _names(lines)
    }
    files = sources("kdcache", "pipelines", "cli")
    modules = {name.partition(".")[0] for path in files for name in imports(path)}
    modules -= sys.stdlib_module_names | OF_OTHERS | {"kdcache"}
    owners = packages_distributions()
    imported = {_name(owner) for module in modules for owner in set(owners.get(module, [module]))}  # or not installed
    assert base <= imported | {"scikit-learn"}  # of which a file is read
    assert imported - base == optional - {"bokeh", "boto3", "kdcache"}  # which Dask and obstore import
    assert {"dask", "distributed"} <= base


def _names(requirements: list[str]) -> set[str]:
    return {_name(re.split(r"[^A-Za-z0-9._-]", line)[0]) for line in requirements}


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


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
    assert {"kdcache/py.typed", "kdcache/networks/imagenet_synsets.txt", "kdcache/objectives/listing.json"} <= wheel
    assert {f"kdcache/pipelines/compare/page.{kind}" for kind in ("html", "css", "js")} <= wheel
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kdcache"}
    assert any(name.endswith("entry_points.txt") for name in wheel)
