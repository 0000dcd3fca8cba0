"""CPU seconds of each test, its own processes included: the slowest are listed, and a fast one may not take many.

`--cpu-limit 10` fails a run in which a test without the mark `slow` took more than that, fixtures not counted: those
that tests share are made by whichever of them comes first. Seconds of CPU depend less on a busy machine than seconds.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from typing import Any

import psutil
import pytest

LISTED = 20
CALL, WHOLE = "cpu seconds of the call", "cpu seconds"


def cpu_seconds() -> float:
    """CPU seconds so far of this process, of all below it that live, and of those of theirs that ended."""
    here, total = psutil.Process(), 0.0
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)  # its imports serve all tests that fork
    for process in (here, *here.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.children_user + times.children_system
        if process.pid != server:
            total += times.user + times.system
    return total


@dataclass(eq=False)
class CpuTimes:
    """The plugin: measures where tests run, lists and judges where their reports are gathered. It is hashable, as
    pytest wants it where a folder has a conftest of its own."""

    limit: float
    whole: dict[str, float] = field(default_factory=dict)
    over: dict[str, float] = field(default_factory=dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._began = cpu_seconds()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        began = cpu_seconds()
        try:
            return (yield)
        finally:
            item.user_properties.append((CALL, cpu_seconds() - began))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            return (yield)
        finally:
            item.user_properties.append((WHOLE, cpu_seconds() - self._began))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            properties: dict[str, Any] = dict(report.user_properties)
            self.whole[report.nodeid] = properties.get(WHOLE, 0.0)
            if properties.get(CALL, 0.0) > self.limit and "slow" not in report.keywords:
                self.over[report.nodeid] = properties[CALL]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.over and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section(f"slowest {LISTED} by CPU, fixtures and processes included")
        for name in sorted(self.whole, key=self.whole.__getitem__, reverse=True)[:LISTED]:
            terminalreporter.line(f"{self.whole[name]:7.1f} s  {name}")
        for name, seconds in self.over.items():
            advice = "make it faster, or move it to a folder of slow tests"
            terminalreporter.line(f"TOO SLOW: {name} took {seconds:.1f} s of CPU, {self.limit:g} are allowed; {advice}")
