"""Summaries: five lines for people, all figures on request, notes, and a next command that works as it is printed."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from kdcache.base.units import bytes_text, seconds_text
from kdcache.cli import summary
from kdcache.pipelines.extract.report import ExtractSummary
from kdcache.pipelines.train.summary import TrainSummary
from kdcache.store.store import Store
from tests.cli.test_cli import Capture, kdcache
from tests.kits import stages
from tests.kits.stages import Stage, arguments, student

stage = stages.stage


def said(capsys: Capture, *words: str) -> tuple[list[str], list[str]]:
    """The lines of a summary, and the next commands, as a command prints them."""
    capsys.readouterr()
    assert kdcache(*words) == 0
    out, err = capsys.readouterr()
    return out.splitlines(), [line.removeprefix("next: ") for line in err.splitlines() if line.startswith("next: ")]


def test_a_store_s_next_commands_work_as_they_are_printed(
    stage: Stage, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines, commands = said(capsys, *arguments(stage.asked(stage.store)))
    assert lines[0] == "was done before: nothing was extracted"
    assert [line.split(" : ")[0].strip() for line in lines[1:6]] == ["store", "rows", "size", "time", "accuracy"]
    assert f"@{str(Store.open(stage.store).content_id)[:32]}" in lines[1]
    program = f"{shlex.quote(sys.executable)} -m kdcache "
    assert all(command.startswith(program) for command in commands)
    look, train = (shlex.split(command.removeprefix(program)) for command in commands)
    assert kdcache(*look) == 0
    trained, _ = said(capsys, *train, "--epochs", "1", "--workers", "0")
    assert trained[0] == "trained"
    again, _ = said(capsys, *train, "--epochs", "1", "--workers", "0")
    assert again[0] == "was done before: nothing was trained"


def test_verbose_shows_every_figure_and_json_has_them_whole(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    words = arguments(student(tmp_path / "run", store=(stage.store,), epochs=1))
    short, _ = said(capsys, *words)
    assert "peak memory bytes" not in "\n".join(short)
    full, _ = said(capsys, *words, "--verbose")
    names = {line.split(" : ")[0].strip().replace(" ", "_") for line in full if " : " in line}
    assert names >= TrainSummary.model_fields.keys() - {"notes"}
    extracted, _ = said(capsys, *arguments(stage.asked(stage.store)), "-v")
    assert any(line.startswith("memory peak") and line.endswith("B") for line in extracted)
    capsys.readouterr()
    kdcache(*arguments(stage.asked(stage.store)), "--json")
    assert json.loads(capsys.readouterr().out).keys() == ExtractSummary.model_fields.keys()


def test_the_program_is_named_as_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "kdcache"
    here.write_text("")
    here.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(here)])
    assert summary.program() == str(here)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert summary.program() == "kdcache"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.421, "0.42 s"), (48.2, "48 s"), (119, "119 s"), (130, "2.2 min"), (700, "12 min"), (3 * 3600, "3.0 h"),
     (86_400 * 30, "30 days")],
)  # fmt: skip
def test_seconds_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_bytes_are_in_the_unit_that_fits() -> None:
    assert [bytes_text(count) for count in (12, 1500, 993e6, 2.5e12)] == ["12 bytes", "1.5 kB", "993 MB", "2.5 TB"]
