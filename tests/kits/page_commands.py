"""Pages whose examples run as they stand: files that begin with `# NAME.py`, and console blocks with their output.

In a console block a line `$ kdcache ...` is a command, which a backslash continues; the lines below it are what it
prints on stdout and stderr, where `...` stands for any text; `[exit 2]` ends one that fails.
"""

import re
import shlex
from dataclasses import dataclass

from tests.kits.doors import ROOT, Door

BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\S+\.py)\n")
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
EXIT = re.compile(r"\[exit (\d+)\]\s*\Z")


@dataclass(frozen=True)
class Written:
    """A file of a page."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a page, its exit code, and the pieces of text that it prints, in order."""

    line: str
    exit_code: int
    pieces: tuple[str, ...]


def steps(page: str) -> list[Written | Command]:
    """The files and commands of docs/PAGE, in order."""
    found: list[Written | Command] = []
    for kind, text in BLOCK.findall((ROOT / "docs" / page).read_text()):
        if kind == "python":
            if head := FILE.match(text):
                found.append(Written(head[1], text))
        else:
            found += [_command(line, printed) for line, printed in COMMAND.findall(text)]
    return found


def _command(line: str, printed: str) -> Command:
    ending = EXIT.search(printed)
    pieces = [" ".join(piece.split()) for piece in EXIT.sub("", printed).split("...")]
    return Command(line.replace("\\\n", " "), int(ending[1]) if ending else 0, tuple(filter(None, pieces)))


def run_page(door: Door, page: str) -> None:
    """Write each file of a page and run each command in `door`. Fails where one ends or prints otherwise."""
    for step in steps(page):
        if isinstance(step, Written):
            door.write(step.name, step.text)
            continue
        program, *words = shlex.split(step.line)
        assert program == "kdcache", step.line
        outcome = door.run(*words)
        printed = " ".join(f"{outcome.out}\n{outcome.err}".split())
        assert outcome.exit_code == step.exit_code, f"{step.line}\n{outcome.out}{outcome.err}"
        place = 0
        for piece in step.pieces:
            assert piece in printed[place:], f"{step.line}\ndoes not print\n{piece}\nbut\n{printed}"
            place = printed.index(piece, place) + len(piece)
