"""Help pages: flags in groups, lists that say how they repeat, examples that parse, readable in 80 columns."""

import os
import shlex
import subprocess
import sys

import pytest
import typer

from kdcache.cli.app import COMMANDS, _Lazy, app
from kdcache.pipelines.setting_groups import GROUPS, group_of
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from tests.cli.test_cli import Capture, kdcache

ENVIRONMENT = {**os.environ, "COLUMNS": "80"}


def page(capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str, columns: int) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    capsys.readouterr()
    assert kdcache(command, "-h") == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_page_fits_its_columns_and_ends_in_examples(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    text = page(capsys, monkeypatch, command, columns)
    assert max(map(len, text.splitlines())) <= min(columns, 100)
    examples = text.partition("Examples:\n")[2]
    assert f"  kdcache {command}" in examples
    assert "\n\n" not in examples.strip()


def test_flags_of_a_stage_stand_in_groups(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page(capsys, monkeypatch, "train", 80)
    titles = [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    groups = [group for group in GROUPS if group != "Teacher"]
    assert titles == ["Arguments", *groups, "Output", "Examples"]
    sections = dict(zip(titles, text.split("\n\n")[2:], strict=True))
    assert "--lr X" in sections["Optimiser"]
    assert "--weights TEXT" in sections["Student"]
    assert "--json" in sections["Output"]


@pytest.mark.parametrize(("model", "positional"), [(ExtractSettings, "store"), (TrainSettings, "run")])
def test_every_setting_of_a_stage_is_in_a_group(
    model: type[ExtractSettings] | type[TrainSettings], positional: str
) -> None:
    names = model.model_fields.keys() - {positional}
    assert [name for name in names if group_of(name) is None] == []  # add it in pipelines/setting_groups.py


def test_lists_say_how_they_repeat(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = " ".join(page(capsys, monkeypatch, "train", 160).split())
    assert "--mean X,... input mean by channel; default: a teacher's own, else ImageNet's or 0.5 [joined by" in flat
    assert "--student-set KEY=VALUE key=value for the student [may be repeated]" in flat
    assert "[required, here or in --config]" in flat


@pytest.mark.parametrize("command", list(COMMANDS))
def test_examples_parse(command: str) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, _Lazy)
    parsed = root.get_command(None, command)
    for line in parsed.epilog.replace("\\\n", " ").splitlines():
        program, name, *words = shlex.split(line, comments=True)
        assert (program, name) == ("kdcache", command)
        with parsed.make_context(name, words):
            pass


def test_help_is_there_without_torch_or_zarr() -> None:
    code = (
        "import sys\nfrom kdcache.cli.app import main\ntry:\n    main(['train', '-h'])\n"
        "except SystemExit:\n    sys.stderr.write(repr({'torch', 'zarr', 'pandas', 'numcodecs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stderr == "set()"
