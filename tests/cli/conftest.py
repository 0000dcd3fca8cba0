"""A log's progress with a clock of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from kdcache.cli import progress


@dataclass
class Lines:
    """The lines that a report has written, and the seconds of its clock."""

    now: float = 0.0
    written: list[str] = field(default_factory=list)
    report: Callable[[str, int, int], None] = lambda activity, count, total: None

    def taken(self) -> list[str]:
        """The lines since the last call."""
        written, self.written = self.written, []
        return written


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    lines = Lines()
    monkeypatch.setattr(progress, "print_note", lambda text: lines.written.append(text))
    lines.report = progress.line_report(clock=lambda: lines.now)
    return lines
