"""--json: one line, keys of one style, on every command; what user code prints is not in it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdcache.cli.app import COMMANDS
from tests.cli.test_cli import Capture, kdcache
from tests.kits import stages
from tests.kits.captured import known_rows, write_plain
from tests.kits.house import ROOT
from tests.kits.stages import Stage, arguments, student

stage = stages.stage
KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")  # a setting of a setting has a dot, as in TOML
PLACES = {"taken"}  # records whose keys are places and names of the user
PAGE = (ROOT / "docs/json.md").read_text()


def keys(value: Any, name: str = "") -> Iterator[str]:
    """All keys of a record, and of those in it."""
    if isinstance(value, dict) and name not in PLACES:
        for key, item in value.items():
            yield key
            yield from keys(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from keys(item, name)


def lines_of(stage: Stage, folder: Path) -> dict[str, list[str]]:
    """Command : words that run it on small things; in this order."""
    store, run = stage.store, str(folder / "run")
    sweep = folder / "sweep.toml"
    base = student(folder / "x", store=(store,), epochs=1).model_dump(mode="json", exclude={"run"}, exclude_unset=True)
    sweep.write_text(
        f'folder = "{folder / "sweep"}"\n[grid]\nlr = [0.1]\n[base]\n'
        + "".join(f"{name} = {_toml(value)}\n" for name, value in base.items())
    )
    return {
        "extract": arguments(stage.asked(store)),
        "train": arguments(student(run, store=(store,), epochs=1)),
        "sweep": ["sweep", str(sweep)],
        "compare": ["compare", store, "--store", store],
        "study": ["study", "--folder", str(folder / "studies")],
        "taps": ["taps", "kdcache.networks:convnet", "--data", "digits"],
        "objectives": ["objectives", "kd+hint"],
        "inspect": ["inspect", store, "--rows", "2"],
        "verify": ["verify", store],
        "stats": ["stats", store],
        "calibrate": ["calibrate", store],
        "seal": ["seal", store],
        "push": ["push", store, str(folder / "bucket.kd")],
        "pull": ["pull", str(folder / "bucket.kd"), str(folder / "pulled.kd")],
        "export": ["export", store, str(folder / "digits.zip")],
        "cache": ["cache"],
        "diff": ["diff", store, str(folder / "pulled.kd")],
        "merge": ["merge", store, str(folder / "pulled.kd"), str(folder / "merged.kd")],
        "recode": ["recode", store, str(folder / "small.kd"), "--top-k", "2"],
        "import": [
            "import",
            str(write_plain(folder / "rows.parquet", known_rows())),
            "--from",
            "distillkit",
            "--store",
            str(folder / "imported.kd"),
            "--teacher",
            "x",
            "--classes",
            "97",
        ],
        "card": ["card", store, "--out", str(folder)],
        "doctor": ["doctor", str(folder)],
    }


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def test_every_command_answers_in_snake_case_as_its_page_says(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    lines = lines_of(stage, tmp_path)
    assert lines.keys() == COMMANDS.keys() - {"demo"}  # which takes a minute
    for command, words in lines.items():
        capsys.readouterr()
        code = kdcache(*words, "--json")
        out, err = capsys.readouterr()
        assert (code, out.count("\n"), err) == (0, 1, ""), command
        answer = json.loads(out)
        assert [key for key in keys(answer) if not KEY.fullmatch(key)] == [], command
        first = answer[0] if isinstance(answer, list) else answer
        section = PAGE.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
        assert section, f"docs/json.md lacks {command}"
        assert [key for key in first if f"`{key}`" not in section] == [], command


CHATTY = """
import os, sys

print("printed at import")
def teacher(num_classes=10):
    from kdcache.networks import convnet
    print("printed by Python", flush=True)
    os.system("echo printed by a child")
    os.write(1, b"printed by C\\n")
    return convnet(num_classes=num_classes)
def data():
    from kdcache.views.sources import open_data
    print("printed by the data set")
    return open_data("digits", {"limit": 64}).samples
"""


@pytest.mark.parametrize(
    "words",
    [
        ("extract", "x.kd", "--teacher", "chatty.py:teacher", "--data", "chatty.py:data", "--min-accuracy", "0",
         "--dry-run"),
        ("train", "run", "--student", "chatty.py:teacher", "--data", "chatty.py:data", "--epochs", "1"),
        ("taps", "chatty.py:teacher", "--data", "chatty.py:data"),
        ("doctor", "--data", "chatty.py:data"),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_user_code_prints_to_stderr(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    workers = ["--workers", "0"] if words[0] != "taps" else []
    line = [sys.executable, "-m", "kdcache", *words, "--json", *workers]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert "printed" not in done.stdout
    assert "printed by the data set" in done.stderr
