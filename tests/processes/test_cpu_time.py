"""The list of the dearest tests counts a test's own processes, and it says which test took more."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.kits.house import ROOT

CONFTEST = """
from tests.kits.cpu_time import CpuTimes

def pytest_configure(config):
    config.pluginmanager.register(CpuTimes())
"""
TESTS = """
import subprocess, sys, time

BURN = "import time\\nwhile time.process_time() < 0.8: pass"

def test_idle():
    time.sleep(0.1)

def test_burns():
    exec(BURN.replace("0.8", str(time.process_time() + 0.8)))

def test_has_it_burnt():
    subprocess.run([sys.executable, "-c", BURN], check=True)
"""


def test_tests_are_listed_by_what_they_and_their_processes_took(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    seconds = {name: float(number) for number, name in re.findall(r"([\d.]+) s  test_some.py::test_(\w+)", done.stdout)}
    assert list(seconds)[-1] == "idle"
    assert min(seconds["burns"], seconds["has_it_burnt"]) >= 0.7
