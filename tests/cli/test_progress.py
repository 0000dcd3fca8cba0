"""Progress in a log: nothing of what is short, then by time, with units, rate and ETA."""

from itertools import pairwise

from kdcache.base.progress import Activity
from kdcache.cli.progress import MOST, amount
from tests.cli.conftest import Lines

EXTRACTING = Activity("extracting", "rows")


def after(lines: Lines, seconds: float, activity: str, count: int, total: int) -> list[str]:
    """The lines that a report writes so many seconds after the last."""
    lines.now += seconds
    lines.report(activity, count, total)
    return lines.taken()


def test_short_work_leaves_no_line(lines: Lines) -> None:
    assert [after(lines, 0.4, EXTRACTING, count, 10) for count in range(11)] == [[]] * 11


def test_lines_come_by_time_and_later_ones_are_rarer(lines: Lines) -> None:
    times = []
    for second in range(6 * 3600):
        if after(lines, 1.0, EXTRACTING, second, 10**6):
            times.append(second)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 5
    assert gaps[0] == 30
    assert gaps == sorted(gaps)
    assert gaps[-1] == MOST


def test_a_line_has_units_rate_and_remaining_time(lines: Lines) -> None:
    after(lines, 0.0, EXTRACTING, 0, 4096)
    assert after(lines, 8.0, Activity("extracting", "rows", under_way=200), 1000, 4096) == [
        "extracting: 1,000 of 4,096 rows, 200 under way, 150 rows/s, ETA 19 s"
    ]
    assert after(lines, 2.0, EXTRACTING, 4096, 4096) == ["extracting: 4,096 of 4,096 rows, 410 rows/s, in 10 s"]
    assert after(lines, 60.0, EXTRACTING, 4096, 4096) == []


def test_bytes_are_shown_as_megabytes(lines: Lines) -> None:
    pushing = Activity("pushing", "bytes")
    after(lines, 0.0, pushing, 0, 3_000_000_000)
    assert after(lines, 300.0, pushing, 1_500_000_000, 3_000_000_000) == [
        "pushing: 1.5 GB of 3 GB, 5 MB/s, ETA 5.0 min"
    ]
    assert amount("points", 3, 4) == "3 of 4"


def test_what_is_not_counted_is_said_at_once(lines: Lines) -> None:
    assert after(lines, 0.0, "checking that views replay", 0, 0) == ["checking that views replay ..."]


def test_a_work_that_begins_anew_has_a_pace_of_its_own(lines: Lines) -> None:
    after(lines, 0.0, EXTRACTING, 0, 100)
    after(lines, 20.0, EXTRACTING, 100, 100)
    assert after(lines, 1.0, EXTRACTING, 0, 100) == []
    assert after(lines, 10.0, EXTRACTING, 50, 100) == ["extracting: 50 of 100 rows, 5 rows/s, ETA 10 s"]
