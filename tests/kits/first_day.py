"""Run the commands of the README and of the first pages, in the order that a newcomer reads; `--write` pastes output.

    python -m tests.kits.first_day --write

Each page begins in a folder with nothing but what `kdcache demo demo` left there, which the README begins with. A block
of TOML with a title is written to that file before. Lines that leave settings out (`...`) and `pip` are not run.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.kits.forks import with_all
from tests.kits.sharing_page import BLOCK, FILE, commands, forked

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(ROOT / name for name in ("README.md", "docs/index.md", "docs/concepts.md", "docs/extract.md"))
COLUMNS = "80"
NOT_RUN = re.compile(r"pip |.* \.\.\.", re.DOTALL)


class Day:
    """A folder for each page, and the environment of its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ, "COLUMNS": COLUMNS, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
            "KDCACHE_CACHE": str(folder / "cache"),
        }  # fmt: skip
        folder.mkdir(exist_ok=True)
        self.run("kdcache demo demo", folder)

    def begin(self, page: Path) -> Path:
        """The folder in which a page's commands run, with the demo and the files that the page shows."""
        folder = self.folder / page.stem
        shutil.copytree(self.folder / "demo", folder / "demo")
        for name, text in FILE.findall(page.read_text()):
            (folder / name).write_text(text)
        return folder

    def run(self, command: str, folder: Path) -> str:
        """The stdout of a kdcache command. Raises AssertionError where it fails."""
        out, err, code = forked(command.removeprefix("kdcache "), folder, self.env)
        assert code == 0, f"$ {command}\n{out}{err}[exit {code}]"
        return out.replace(str(folder), "/home/you")


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """The commands of a page that are run, and the output that it shows."""
    for block in BLOCK.findall(page.read_text()):
        yield from ((command, shown) for _, command, shown in commands(block) if not NOT_RUN.match(command))


def write(folder: Path) -> None:
    """Paste the output of the commands into the pages."""
    day = Day(folder)
    for page in PAGES:
        begun = day.begin(page)

        def pasted(block: re.Match[str], begun: Path = begun) -> str:
            lines = []
            for _, command, _ in commands(block[1]):
                lines.append(f"$ {command}\n{'' if NOT_RUN.match(command) else day.run(command, begun)}")
            return f"```console\n{''.join(lines)}```"

        page.write_text(BLOCK.sub(pasted, page.read_text()))


if __name__ == "__main__":
    import tempfile

    assert sys.argv[1:] == ["--write"], "usage: python -m tests.kits.first_day --write"
    with tempfile.TemporaryDirectory() as folder, with_all():
        write(Path(folder) / "day")
