"""The benchmark harness: arms take turns, intervals decide verdicts, and every benchmark runs at toy size."""

import importlib
import time
from pathlib import Path
from typing import get_args

import pytest

from tests.benchmarks import __main__, report
from tests.benchmarks.__main__ import BENCHMARKS, main
from tests.benchmarks.harness import (
    Bench,
    Clock,
    Figure,
    Times,
    Verdict,
    alternate,
    exact,
    interval,
    timed_rate,
    timed_ratio,
)
from tests.benchmarks.reasons import REASONS, reason_of
from tests.benchmarks.report import line_of
from tests.benchmarks.targets_picture import STYLES, plot

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


def judged(low: float, high: float, target: float | None = None, better: str = "lower", name: str = "n") -> Figure:
    record = {"name": name, "unit": "u", "measured": (low + high) / 2, "low": low, "high": high, "trials": 5}
    return Figure.model_validate({**record, "target": target, "better": better})


@pytest.mark.parametrize(
    ("low", "high", "target", "better", "verdict"),
    [
        (1.00, 1.02, 1.02, "lower", "met"),
        (1.00, 1.03, 1.02, "lower", "open"),
        (1.02, 1.03, 1.02, "lower", "open"),
        (1.03, 1.05, 1.02, "lower", "missed"),
        (7.0, 7.1, 7.0, "higher", "met"),
        (6.0, 7.1, 7.0, "higher", "open"),
        (6.0, 7.0, 7.0, "higher", "open"),
        (6.0, 6.9, 7.0, "higher", "missed"),
        (1.0, 9.0, None, "lower", "reported"),
    ],
)
def test_a_verdict_is_of_the_whole_interval(
    low: float, high: float, target: float | None, better: str, verdict: str
) -> None:
    assert judged(low, high, target, better).verdict == verdict


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


RUN = {"device": "a CPU", "versions": {"torch": "2"}, "command": "make bench", "minutes": 1.0}


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    blocks = "\n\n".join(f"{begin}\nold\n{end}" for begin, end in report.BLOCKS.values())
    page.write_text(f"# Mine\n\n{blocks}\n\nmy words\n")
    groups = {"Losses": [exact("bytes a row", 23.4, "bytes", target=24), exact("bytes", 50.0, "bytes", target=40)]}
    report.write(groups, {"Losses": RUN}, page)
    text, tables = page.read_text(), (tmp_path / "performance/losses.md").read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\n\nmy words\n")
    assert "old" not in text
    assert "\n2 targets: 1 met, 0 open, 1 missed.\n" in text
    assert "| missed | bytes | ≤ 40 | 50 bytes | The reason is not known. |" in text
    assert "| bytes a row |  | ≤ 24 | 23.4 bytes |  | 1 | met |" in tables
    assert "| 50 bytes |  | 1 | missed |" in tables
    assert (tmp_path / "figures/performance.png").stat().st_size > 5_000
    assert report.read(page) == (groups, {"Losses": RUN})
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks the marks"):
        report.write(groups, {"Losses": RUN}, page)


def test_a_group_has_the_conditions_of_its_own_run(tmp_path: Path) -> None:
    groups = {name: [exact("bytes", 50.0, "bytes")] for name in ("one", "two", "three")}
    conditions = {"one": RUN, "two": {**RUN, "device": "another"}, "three": RUN}
    report.write(groups, conditions, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "\n- one; three: a CPU; torch 2. By `make bench`, 1 minutes.\n- two: another; torch 2." in text
    assert (tmp_path / "page/two.md").read_text().endswith("\nanother; torch 2. By `make bench`, 1 minutes.\n")
    assert report.read(tmp_path / "page.md") == (groups, conditions)


def test_verdicts_differ_in_colour_and_in_marker(tmp_path: Path) -> None:
    assert len({colour for colour, _ in STYLES.values()}) == 3
    assert len({marker for _, marker in STYLES.values()}) == 3
    figures = [judged(low, high, 1.02) for low, high in ((1.0, 1.01), (1.0, 1.03), (1.03, 1.04))]
    assert [figure.verdict for figure in figures] == list(STYLES)
    drawings = []
    for number, figure in enumerate(figures):
        plot({"one": [figure]}, tmp_path / f"{number}.png")
        drawings.append((tmp_path / f"{number}.png").read_bytes())
    assert len(set(drawings)) == 3


def test_every_published_target_that_is_not_met_has_a_reason() -> None:
    groups, _ = report.read(ROOT / "docs/performance.md")
    figures = [figure for each in groups.values() for figure in each if figure.verdict in ("open", "missed")]
    assert [line_of(figure) for figure in figures if reason_of(figure) is None] == []
    assert not any(reason_of(figure) for each in groups.values() for figure in each if figure not in figures)
    settings = {(figure.name, figure.setting) for each in groups.values() for figure in each}
    assert all(any(each.figure == name and each.setting in setting for name, setting in settings) for each in REASONS)


@pytest.mark.parametrize(("low", "code"), [(1.0, 0), (1.05, 1)])
def test_only_a_missed_target_fails_a_strict_run(low: float, code: int, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    report.write({"Losses": [judged(low, 1.1, 1.02)]}, {"Losses": RUN}, page)
    assert main(["--rewrite", "--strict", "--out", str(page)]) == code
    assert main(["--rewrite", "--out", str(page)]) == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of mosaicml-streaming, where it is installed
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs_at_toy_size(name: str, shared: Path, tmp_path: Path) -> None:
    measure = importlib.import_module(f"tests.benchmarks.{name}").measure
    figures = list(measure(Bench(scratch=tmp_path, shared=shared, quick=True, trials=1)))
    assert len(figures) > 2
    assert all(figure.verdict in get_args(Verdict) for figure in figures)
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
    assert lines[-2].startswith("8 targets: ")
    assert lines[-1] == "broken failed, see the messages above; no page was written"
    assert all(line.split()[0] in get_args(Verdict) for line in lines[:-3])
    assert not page.exists()


def test_a_named_benchmark_replaces_its_own_group_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page, measured = tmp_path / "page.md", [judged(2.0, 2.1)]
    before = {"Losses": [judged(1.0, 1.1)], "Reading soft labels": [judged(1.0, 1.1)]}
    report.write(before, dict.fromkeys(before, RUN), page)
    monkeypatch.setattr(__main__, "_in_a_process", lambda name, given, folder: (measured, 0))
    assert main(["reading", "--out", str(page)]) == 0
    groups, conditions = report.read(page)
    assert list(groups) == ["Reading soft labels", "Losses"]  # as they stand in BENCHMARKS
    assert groups == {"Reading soft labels": measured, "Losses": before["Losses"]}
    assert conditions["Losses"] == RUN
    assert "benchmarks reading" in conditions["Reading soft labels"]["command"]


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(SystemExit) as told:
        main(["no-such-benchmark"])
    assert told.value.code == 2
    with pytest.raises(SystemExit):
        main(["--rewrite", "reading", "--out", "page.md"])
    with pytest.raises(SystemExit):
        main(["--rewrite"])
