"""Run the commands of the pages on sharing, and of pages that go on from them; `--write` pastes their output.

The pages are one session in the order of `PAGES`. alice and bob are two directories that share nothing but servers. A
line that names neither is alice's, with a wider terminal. A block of TOML with a title is written to that file before.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from tests.kits.bucket import environment, s3_server
from tests.kits.forks import forks, with_all
from tests.kits.web import serving

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = (
    "sharing",
    "reading_remote",
    "partial_copies",
    "hosts",
    "one_file",
    "merge",
    "cards",
    "diff",
    "sweeps",
    "compare",
)
PAGES = tuple(DOCS / f"{name}.md" for name in NAMES)
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
FILE = re.compile(r"```toml title=\"(\w+\.toml)\"\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(alice|bob|)\$ (.*)")
WIDE = "132"  # columns of a terminal, for tables of many
PIN = re.compile(r"pin +: s3://team/digits.kd@([0-9a-f]{32})")
PORTS = ("8080", "8081")
PROGRESS = re.compile(r"^[a-z][^:\n]*: [0-9,]+ of [0-9,]+.*\n", re.MULTILINE)


@dataclass
class Session:
    """Two directories, the environment that both see, and what was learned on the way."""

    folder: Path
    env: dict[str, str]
    ports: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def begin(self, page: str) -> None:
        """Write the files that a page shows."""
        for name, text in FILE.findall(page):
            (self.folder / "alice" / name).write_text(text)

    def run(self, who: str, command: str) -> str:
        """What a command prints: stdout, and after a failure stderr and the exit code too."""
        folder, env = self.folder / (who or "alice"), self.env if who else {**self.env, "COLUMNS": WIDE}
        for page, real in self.ports.items():
            command = command.replace(f":{page}", f":{real}").replace(f" {page} ", f" {real} ")
        program, _, given = command.partition(" ")
        line = f"{sys.executable} {'-m kdcache ' if program == 'kdcache' else ''}{given}"
        if command.endswith("&"):
            words = line.removesuffix("&").split()
            quiet = subprocess.DEVNULL
            self.started.append(subprocess.Popen(words, cwd=folder, stdout=quiet, stderr=quiet))
            _wait_for(int(words[-1]))
            return ""
        if given.startswith(("train ", "extract ")):
            out, err, code = forked(given, folder, env)
        else:
            done = subprocess.run(
                line, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=False,
                timeout=600,
            )  # fmt: skip
            out, err, code = done.stdout, done.stderr, done.returncode
        said = PROGRESS.sub("", err)
        text = out if code == 0 else f"{out}{said}[exit {code}]\n"
        if found := PIN.search(text):
            self.env.setdefault("PIN", found[1])
        for page, real in self.ports.items():
            text = text.replace(f":{real}", f":{page}")
        return text.replace(str(self.folder), "").replace(self.env["AWS_ENDPOINT_URL"], "https://s3.example.org")


def forked(given: str, folder: Path, env: dict[str, str]) -> tuple[str, str, int | None]:
    """stdout, stderr and exit code of `kdcache` with arguments as the shell has them, in a process that is forked from
    one with torch in it: to import that anew for each command takes longer than all that they do."""
    words = shlex.split(Template(given.replace("\\\n", " ")).substitute(env))
    if ">" in words:
        words, out = words[: words.index(">")], folder / words[words.index(">") + 1]
    else:
        out = folder.parent / "printed.txt"
    err = folder.parent / "said.txt"
    process = forks.Process(target=_command, args=(words, folder, env, out, err))
    process.start()
    process.join(600)
    return "" if out.parent == folder else out.read_text(), err.read_text(), process.exitcode


def _command(words: list[str], folder: Path, env: dict[str, str], out: Path, err: Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    from kdcache.cli.app import main

    main(words)


def _wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


@contextmanager
def session(folder: Path) -> Iterator[Session]:
    """Servers and directories for one run of the pages."""
    for who in ("alice", "bob"):
        (folder / who).mkdir(parents=True)
    with s3_server() as proxy, serving(folder / "alice") as site, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = {PORTS[0]: str(free.getsockname()[1]), PORTS[1]: str(site.server_port)}
        free.close()
        root = str(DOCS.parent)
        own = {"KDCACHE_CACHE": str(folder / "cache"), "PYTHONPATH": root, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        own["COLUMNS"] = "80"  # of the pages
        running = Session(folder, {**os.environ, **environment(proxy), **own}, ports)
        try:
            yield running
        finally:
            for process in running.started:
                process.terminate()
                process.wait()


def commands(block: str) -> list[tuple[str, str, str]]:
    """(who, command, output as pasted) of a block."""
    found: list[tuple[str, str, str]] = []
    for line in block.splitlines(keepends=True):
        if found and found[-1][1].endswith("\\"):
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line.rstrip()}", "")
        elif given := COMMAND.fullmatch(line.rstrip("\n")):
            found.append((given[1], given[2], ""))
        else:
            found[-1] = (*found[-1][:2], found[-1][2] + line)
    return found


def shape(text: str) -> list[str]:
    """What of an output is the same on every machine: names of fields and columns, and lines without numbers and
    digests. A table's rules and rows go, since their widths and where they wrap follow from the numbers in them."""
    lines = []
    for line in filter(str.strip, text.splitlines()):
        if line[0] in "┃":
            lines.append(" | ".join(cell.strip() for cell in line.strip("┃").split("┃")))
        elif " : " in line:
            lines.append(line.split(" : ")[0].strip())
        elif line[0] not in "│┏┡└":
            lines.append(re.sub(r"[0-9a-f]{8,}|[0-9][0-9,.]*(e-?[0-9]+)?", "0", line).strip())
    return lines


def write(folder: Path) -> None:
    """Paste what the commands print now into the pages."""
    with session(folder) as running:

        def pasted(block: re.Match[str]) -> str:
            lines = []
            for who, command, _ in commands(block[1]):
                lines.append(f"{who}$ {command}\n{running.run(who, command)}")
            return f"```console\n{''.join(lines)}```"

        for page in PAGES:
            running.begin(page.read_text())
            page.write_text(BLOCK.sub(pasted, page.read_text()))


if __name__ == "__main__":
    import tempfile

    assert sys.argv[1:] == ["--write"], "usage: python -m tests.kits.sharing_page --write"
    with tempfile.TemporaryDirectory() as folder, with_all():
        write(Path(folder))
