"""The benchmark harness: arms take turns, intervals decide verdicts, and every benchmark runs at toy size."""

import importlib
import time
from pathlib import Path
from typing import get_args

import pytest

from tests.benchmarks import report
from tests.benchmarks.__main__ import BENCHMARKS, main
from tests.benchmarks.harness import Bench, Clock, Figure, Times, alternate, exact, interval, timed_rate, timed_ratio

ROOT = Path(__file__).resolve().parents[2]


def test_arms_take_turns_and_the_order_turns_round() -> None:
    seen: list[str] = []
    times = alternate({"one": lambda: seen.append("one"), "two": lambda: seen.append("two")}, 3, warm=1)
    assert seen == ["one", "two", "two", "one", "one", "two", "two", "one"]
    assert {name: len(each) for name, each in times.seconds.items()} == {"one": 3, "two": 3}


def test_cpu_time_leaves_waiting_out() -> None:
    wall, cpu = (
        alternate({"waits": lambda: time.sleep(0.05)}, 3, clock=clock, warm=0).median("waits")
        for clock in get_args(Clock)
    )
    assert cpu < 0.5 * wall


@pytest.mark.parametrize(
    ("low", "high", "target", "better", "verdict"),
    [
        (1.00, 1.03, 1.02, "lower", "met"),
        (1.03, 1.05, 1.02, "lower", "MISSED"),
        (6.0, 6.9, 7.0, "higher", "MISSED"),
        (6.0, 7.1, 7.0, "higher", "met"),
        (1.0, 9.0, None, "lower", "reported"),
    ],
)
def test_a_target_is_missed_where_the_whole_interval_lies_beyond_it(
    low: float, high: float, target: float | None, better: str, verdict: str
) -> None:
    record = {"name": "n", "unit": "u", "measured": (low + high) / 2, "low": low, "high": high, "trials": 5}
    figure = Figure.model_validate({**record, "target": target, "better": better})
    assert figure.verdict == verdict


def test_a_ratio_is_taken_within_rounds() -> None:
    times = Times({"ours": [2.0, 20.0, 200.0], "bare": [1.0, 10.0, 100.0]})  # a machine that slows down tenfold
    figure = timed_ratio("a ratio", times, "ours", "bare", target=2.0)
    assert (figure.measured, figure.low, figure.high, figure.verdict) == (2.0, 2.0, 2.0, "met")
    assert timed_rate("a rate", times, "bare", 100, "rows/s").measured == 10.0


def test_the_interval_holds_the_median_and_narrows_with_n() -> None:
    few, many = [1.0, 2.0, 3.0], [1.0, 2.0, 3.0] * 50
    middle, low, high = interval(few)
    assert low <= middle <= high
    assert interval(many)[2] - interval(many)[1] < high - low


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Mine\n\n{report.BEGIN}\nold\n{report.END}\n\nwhy it was missed\n")
    groups = {"sizes": [exact("bytes a row", 23.4, "bytes", target=24), exact("bytes", 50.0, "bytes", target=40)]}
    conditions = {"device": "a CPU", "versions": {"torch": "2"}, "command": "make bench", "minutes": 1.0}
    report.write(groups, conditions, page)
    text = page.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\n\nwhy it was missed\n")
    assert "old" not in text
    assert "| bytes a row |  | ≤ 24 | 23.4 bytes |  | 1 | met |" in text
    assert "| 50 bytes |  | 1 | MISSED |" in text
    assert (tmp_path / "figures/performance.png").stat().st_size > 5_000
    assert (tmp_path / "figures/performance.json").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs_at_toy_size(name: str, shared: Path, tmp_path: Path) -> None:
    measure = importlib.import_module(f"tests.benchmarks.{name}").measure
    figures = list(measure(Bench(scratch=tmp_path, shared=shared, quick=True, trials=1)))
    assert len(figures) > 2
    assert all(figure.verdict in ("met", "MISSED", "reported") for figure in figures)
    assert all(figure.low <= figure.measured <= figure.high for figure in figures)


def test_a_benchmark_is_a_process_whose_figures_are_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And one that fails takes no other's figures along."""
    monkeypatch.setitem(BENCHMARKS, "broken", "Not known in a process of its own")
    page = tmp_path / "page.md"
    assert main(["broken", "reading", "--quick", "--trials", "1", "--out", str(page)]) == 1
    lines = [line for line in capfd.readouterr().out.splitlines() if not line.startswith(" ")]
    assert len(lines) > 3
    assert "no GPU; python 3" in lines[-3]
    assert lines[-1] == "broken failed, see the messages above; no page was written"
    assert all(line.split()[0] in ("met", "MISSED", "reported") for line in lines[:-3])
    assert not page.exists()


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(SystemExit) as told:
        main(["no-such-benchmark"])
    assert told.value.code == 2
