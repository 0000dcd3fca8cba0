"""The wheel: every module is in it, and it owns one name."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.kits.house import ROOT, module_of, sources


def test_every_package_is_listed_for_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    files = [path for path in sources("kdcache", "pipelines", "cli") if path.name == "__init__.py"]
    assert set(listed) == {module_of(path) for path in files}
    assert {path.parent for path in sources("kdcache", "pipelines", "cli")} == {path.parent for path in files}


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
    assert {"kdcache/py.typed", "kdcache/networks/imagenet_synsets.txt"} <= wheel
    assert {f"kdcache/pipelines/compare/page.{kind}" for kind in ("html", "css", "js")} <= wheel
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kdcache"}
    assert any(name.endswith("entry_points.txt") for name in wheel)
