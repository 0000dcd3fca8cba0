"""CPU seconds of each test, its own processes and fixtures included: `--cpu-times` lists the slowest.

Nothing fails by them: the same test takes twice as many on a machine whose cores are shared.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from typing import Any

import psutil
import pytest

LISTED = 20
WHOLE = "cpu seconds"


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
    """The plugin: measures where tests run, lists where their reports are gathered. It is hashable, as pytest wants it
    where a folder has a conftest of its own."""

    whole: dict[str, float] = field(default_factory=dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._began = cpu_seconds()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            return (yield)
        finally:
            item.user_properties.append((WHOLE, cpu_seconds() - self._began))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.whole[report.nodeid] = dict(report.user_properties).get(WHOLE, 0.0)  # type: ignore[assignment]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section(f"slowest {LISTED} by CPU, fixtures and processes included")
        for name in sorted(self.whole, key=self.whole.__getitem__, reverse=True)[:LISTED]:
            terminalreporter.line(f"{self.whole[name]:7.1f} s  {name}")
