"""What a store says is shown as text: nothing that it holds reaches the terminal as a command."""

import json
import subprocess
import sys

import pytest

from kdcache.cli import console
from kdcache.cli.console import print_error, print_json, print_line, print_record, print_table

EVIL = {
    "escape": "\x1b[2J",
    "C1": "\x9b31m\x85",
    "delete": "\x7f",
    "bidirectional": "\u202efdp.exe\u2066\u2069\u200f",
    "invisible": "\u200b\ufeff\u2028",
    "beyond 16 bits": "\U000e0041",
    "half a pair": "\ud800",
}


@pytest.mark.parametrize("name", list(EVIL))
def test_text_without_a_shape_is_escaped(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = f"a{EVIL[name]}b"
    print_record({"notes": text}, as_json=False, title=text)
    print_table(["name"], [[text]], title=text)
    print_line(text)
    print_error(text, as_json=False, exit_code=2)
    shown = "".join(capsys.readouterr())
    assert not set(EVIL[name]) & set(shown.replace("[", "").replace("31m", "")) - set("[2Jfdp.exe31m")
    assert "a\\x" in shown


@pytest.mark.parametrize("name", list(EVIL))
def test_json_is_escaped_and_says_the_same(capsys: pytest.CaptureFixture[str], name: str) -> None:
    record = {"notes": f"naïve 数 {EVIL[name]}", EVIL[name]: [EVIL[name]]}
    print_json(record)
    print_error(EVIL[name], as_json=True, exit_code=2)
    out, err = capsys.readouterr()
    assert json.loads(out) == record
    assert json.loads(err)["error"] == EVIL[name]
    assert out.rstrip("\n").isprintable()
    assert err.rstrip("\n").isprintable()
    assert ("naïve 数" in out) == (name != "half a pair")  # of which no encoding has a sign: all are escaped then


NO_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("torch was asked for")

sys.meta_path.insert(0, NoTorch())
from kdcache.cli.app import main
main()
"""


@pytest.mark.parametrize(
    "words", ["train run --student a.b:c --data digits", "extract store --teacher a.b:c --data digits --views 1"]
)
def test_the_first_word_comes_before_the_import_of_torch_and_not_to_programs(words: str) -> None:
    for flags, first in (((), "importing torch ..."), (("--json",), "")):
        line = [sys.executable, "-c", NO_TORCH, *words.split(), *flags]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert "torch was asked for" in done.stderr
        assert done.stderr.startswith(first)
        assert ("importing" in done.stderr) == bool(first)
        assert not done.stdout


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_no_column_of_a_table_is_lost_in_a_narrow_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console._out, "_width", columns)
    rows = [["kd, stores 2ba6f985, training views 0:10", "96.66 ± 1.56", 3], ["plain, lr 0.1", "93.59 ± 2.85", 12]]
    print_table(["group", "accuracy %", "runs"], rows, title="held out")
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= max(columns, len("group      : ") + len(str(rows[0][0])))
    for text in ("held out", "group", "accuracy %", "runs", "96.66 ± 1.56", "93.59 ± 2.85", "12", "2ba6f985,"):
        assert text in printed
