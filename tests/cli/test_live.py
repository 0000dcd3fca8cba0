"""The board of a sweep, as a terminal shows it."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from kdcache.cli import live
from kdcache.cli.live import LINES, live_table
from kdcache.pipelines.sweep.result_table import SweepState
from kdcache.pipelines.sweep.results import Result


def result(number: int, status: Any, accuracy: float | None) -> Result:
    return Result(
        point=f"lr=0.{number},seed=[1]-{number:08x}",
        status=status,
        swept={},
        epochs=number,
        accuracy=accuracy,
        seconds=1.5,
    )


STATUSES = {7: "running", 9: "failed"}
RESULTS = tuple(
    result(number, STATUSES.get(number, "done"), None if number == 9 else number / 20) for number in range(15)
)


def shown(monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    """The drawing of a check and of a sweep that is 40 % done."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(live, "terminal", lambda: console)
    with live_table(quiet=False) as (report, progress):
        progress("checking points", 3, 15)
        report(SweepState(RESULTS, 0.4, 10.0, 15.0))
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


@pytest.mark.parametrize("width", [80, 160])
def test_points_in_training_come_first_then_failed_ones_then_the_best(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    board = shown(monkeypatch, width).rpartition("\u250f")[2]  # the last table
    names = [line.split("\u2502")[1].strip() for line in board.splitlines() if line.startswith("\u2502")]
    order = [7, 9, 14, 13, 12, 11, 10, 8, 6, 5, 4, 3]
    assert names == [*(RESULTS[number].point for number in order), f"and {len(RESULTS) - LINES} more"]
    assert "13 done, 1 running, 1 failed" in board
    assert "40%" in board
    assert "ETA" in board
    assert max(map(len, board.splitlines())) <= width


def test_the_check_of_points_is_shown_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "checking points 3 of 15" in shown(monkeypatch, 100)


def test_a_log_has_the_steps_of_the_stream_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    seconds = iter(float(number) for number in range(1000))
    monkeypatch.setattr(live, "print_note", notes.append)
    report = live._lines(clock=lambda: next(seconds))
    running = tuple(item.model_copy(update={"status": "running"}) for item in RESULTS[:2])
    for step in range(40):
        report(SweepState(running, step / 100, 1.0, 240.0, step, 100))
    assert notes[0] == "sweep: 2 running (4 of 100 steps), 4 % of all training, ETA 4.0 min"
    assert 1 < len(notes) < 5
    report(SweepState(RESULTS[:2], 0.5, 1.0, None))
    assert notes[-1].startswith("2 of 2: ")
