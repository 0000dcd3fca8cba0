"""The limit on fast tests: it counts a test's own processes, spares slow tests and fixtures, and fails the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.house import ROOT

CONFTEST = """
from tests.kits.cpu_time import CpuTimes

def pytest_configure(config):
    config.addinivalue_line("markers", "slow: spared")
    config.pluginmanager.register(CpuTimes(0.5))
"""
TESTS = """
import subprocess, sys, time
import pytest

BURN = "import time\\nwhile time.process_time() < 0.8: pass"

def burn():
    until = time.process_time() + 0.8
    while time.process_time() < until:
        pass

@pytest.fixture(scope="module")
def dear():
    burn()

def test_idle(dear):
    time.sleep(0.1)

@pytest.mark.slow
def test_spared():
    burn()

def test_burns():
    burn()

def test_has_it_burnt():
    subprocess.run([sys.executable, "-c", BURN], check=True)
"""


@pytest.mark.parametrize("chosen", ["idle or spared", "burns", "has_it_burnt"])
def test_a_fast_test_that_burns_cpu_fails_the_run(tmp_path: Path, chosen: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    fails = chosen != "idle or spared"
    assert done.returncode == (1 if fails else 0), done.stdout
    assert ("TOO SLOW: test_some.py::test_" in done.stdout) == fails
    assert "slowest 20 by CPU" in done.stdout
