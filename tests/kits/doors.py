"""Commands as a user gives them, in a folder of their own, and the situations that users meet.

A test marked `situation` is a part of docs/troubleshooting.md, see `guide`.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kdcache.cli.app import main
from kdcache.store.store import Store
from tests.kits.stages import wait_for

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/troubleshooting.md"


@dataclass(frozen=True)
class Outcome:
    """The end of a command: its exit code, and what it printed."""

    exit_code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one line of JSON that a command with --json prints on stdout."""
        record = json.loads(self.out)
        assert isinstance(record, dict)
        return record


@dataclass
class Door:
    """A folder in which commands run as a user gives them. `files` are those before the last command, by their sha256.
    `target` is the last command's first argument: its store or run. `printed` is what all commands printed."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    outcome: Outcome | None = None
    target: Path = Path()
    files: dict[str, str] = field(default_factory=dict)
    printed: str = ""

    def write(self, name: str, text: str) -> Path:
        """A text file of the user's in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, *words: object) -> Outcome:
        """`kdcache WORDS` in this process."""
        self._before(words)
        self.capture.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        assert isinstance(left.value.code, int)
        return self._ended(left.value.code, *self.capture.readouterr())

    def run_apart(self, *words: object, timeout: float = 120, **environment: str) -> Outcome:
        """`kdcache WORDS` in a process of its own. Fails where it does not end within `timeout` seconds."""
        self._before(words)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
        process = subprocess.run(
            [sys.executable, "-m", "kdcache", *map(str, words)],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        return self._ended(process.returncode, process.stdout, process.stderr)

    def terminated(self, here: Path, *words: object) -> Outcome:
        """`kdcache WORDS` in a process of its own, which gets SIGTERM once `here` exists. Fails where it lives on."""
        self._before(words)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "kdcache", *map(str, words)]
        with subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                wait_for(lambda: here.exists() or process.poll() is not None)
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        return self._ended(process.returncode, out, err)

    def refused(self, *words: object) -> str:
        """The message of a command that ends with exit code 2 and prints nothing on stdout."""
        outcome = self.run(*words)
        assert (outcome.exit_code, outcome.out) == (2, ""), outcome
        assert "Traceback" not in outcome.err
        return " ".join(outcome.err.split())

    def done(self, *words: object) -> dict[str, Any]:
        """The record of a command that ends with exit code 0, as --json prints it."""
        outcome = self.run(*words, "--json")
        assert outcome.exit_code == 0, outcome
        return outcome.record

    def _ended(self, exit_code: int, out: str, err: str) -> Outcome:
        self.outcome = Outcome(exit_code, out, err)
        self.printed += f"{out}\n{err}\n"
        return self.outcome

    def _before(self, words: tuple[object, ...]) -> None:
        self.files = self.contents()
        self.target = self.folder / str(words[1]) if len(words) > 1 else self.folder

    def contents(self) -> dict[str, str]:
        """The sha256 of every file in the folder, but for what Python compiles."""
        files = (path for path in sorted(self.folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _require_nothing_new(door: Door) -> None:
    assert door.contents() == door.files


def _require_whole_store(door: Door) -> None:
    store = Store.open(door.target)
    assert all(len(segment.commits()) == segment.layout.blocks for segment in store.segments)


def _require_blocks(door: Door) -> None:
    store = Store.open_for_writing(door.target)
    assert sum(len(segment.commits()) for segment in store.segments)
    assert not list(door.target.glob("kdcache/seals/*"))


def _require_run(door: Door) -> None:
    assert (door.target / "weights/last.safetensors").is_file()


def _require_whole_files(door: Door) -> None:
    """The test itself compares them."""


def _require_no_weights(door: Door) -> None:
    assert (door.target / "settings.json").is_file()
    assert not list(door.target.rglob("*.safetensors"))
    assert not list(door.target.rglob("state.pt"))


def _require_checkpoint(door: Door) -> None:
    assert (door.target / "checkpoints/state.pt").is_file()


LEFT: dict[str, Callable[[Door], None]] = {
    "nothing new": _require_nothing_new,
    "a whole store": _require_whole_store,
    "whole blocks; the same command goes on": _require_blocks,
    "a run with its weights": _require_run,
    "files that are whole or as they were": _require_whole_files,
    "a run without weights": _require_no_weights,
    "a checkpoint; the same command goes on": _require_checkpoint,
}


@dataclass(frozen=True)
class Situation:
    """A user's situation, what the user sees, the exit code, and the files afterwards (`left`, a
    key of LEFT)."""

    situation: str
    sees: str
    exit_code: int
    left: str


def situation_of(marks: Iterator[pytest.Mark]) -> Situation | None:
    """The situation that a test's marks name, None where none does."""
    mark = next((mark for mark in marks if mark.name == "situation"), None)
    return None if mark is None else Situation(*mark.args, **mark.kwargs)
