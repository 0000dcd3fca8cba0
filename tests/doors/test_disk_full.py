"""A disk that runs full in commands that write stores, copies and cards: one line, nothing half, and the same command
goes on."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdcache.whole_store.verify import inspect_files
from tests.kits.damage import all_reads, rich_store
from tests.kits.doors import Door
from tests.kits.small_disk import empty, leave, small_disk
from tests.kits.stores import all_files
from tests.kits.web import serving

FREE = (0, 4_096, 16_384, 65_536, 262_144)
TEMPORARY = ".tmp-"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("full") / "rich.kd")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def kept(folder: Path) -> dict[str, bytes]:
    """The files of a folder that have their final names."""
    return {name: data for name, data in all_files(folder).items() if TEMPORARY not in name}


def words_of(command: str, source: Path, target: Path) -> tuple[object, ...]:
    """A command that writes `target`."""
    given: dict[str, tuple[object, ...]] = {
        "export": ("export", source, target / "a.zip"),
        "pull": ("pull", source, target / "a.kd"),
        "push": ("push", source, target / "a.kd"),
        "merge": ("merge", source, source, target / "a.kd"),
        "recode": ("recode", source, target / "a.kd", "--top-k", 2),
        "seal": ("seal", target / "a.kd", "--name", "a name", "--notes", "n" * 5_000),
        "card": ("card", target / "a.kd"),
        "plot": ("stats", source, "--plot", target / "stats.png"),
    }
    return given[command]


COMMANDS = ("export", "pull", "push", "merge", "recode", "seal", "card", pytest.param("plot", marks=pytest.mark.slow))


def prepare(command: str, source: Path, target: Path) -> None:
    """Lay down what a command changes in place."""
    target.mkdir(exist_ok=True)
    if command in ("seal", "card"):
        shutil.copytree(source, target / "a.kd")
    if command == "seal":
        shutil.rmtree(target / "a.kd/kdcache/seals")


def run_full(door: Door, words: tuple[object, ...], target: Path, *whole: dict[str, bytes]) -> int:
    """The exit code of a command on a disk that may be full: 2 with one line. Each file is one of those that are
    `whole`: before the command, and after it."""
    outcome = door.run(*words)
    assert outcome.exit_code in (0, 2), outcome
    assert "Traceback" not in outcome.err
    if outcome.exit_code == 2:
        assert outcome.out == ""
        (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
        assert str(target) in outcome.err, line
        assert any(word in line for word in ("No space left", "File too large")), line
    for name, data in kept(target).items():
        if not name.startswith("."):
            assert data in [files[name] for files in whole if name in files], f"{name} has {len(data)} bytes"
    return outcome.exit_code


@pytest.mark.situation(
    "the disk runs full in export, pull, push, merge, recode, seal, card, or while a plot is written",
    "one line: the file or folder that cannot be written, `No space left on device`, and to run the same command again",
    exit_code=2,
    left="files that are whole or as they were",
)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(door: Door, source: Path, disk: Path, command: str) -> None:
    reference, target = door.folder / "reference", disk / "there"
    prepare(command, source, reference)
    assert door.run(*words_of(command, source, reference)).exit_code == 0
    wanted = kept(reference)
    prepare(command, source, target)
    before, codes = kept(target), []
    for free in FREE[::-1]:
        leave(disk, free)
        codes.append(run_full(door, words_of(command, source, target), target, before, wanted))
        empty(disk)
        if codes[-1] == 0:  # it was done: once more from the start, with less
            shutil.rmtree(target)
            prepare(command, source, target)
    full = door.outcome
    assert codes[-1] == 2
    assert door.run(*words_of(command, source, target)).exit_code == 0
    assert kept(target) == wanted
    if command not in ("export", "plot"):
        assert inspect_files(str(target / "a.kd")).whole
    assert not [name for name in all_files(target) if TEMPORARY in name]
    door.outcome = full  # of the row


def test_a_far_store_is_read_without_a_cache_where_the_disk_is_full(
    source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(source.parent) as site:
        monkeypatch.setenv("KDCACHE_CACHE", str(disk / "cache"))
        for free in (0, 8_192):
            leave(disk, free)
            assert all_reads(f"{site.url}/{source.name}") == all_reads(source)  # type: ignore[arg-type]
            empty(disk)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """No file of this process grows beyond a limit, as `ulimit -f` says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_may_not_grow(door: Door, source: Path, command: str) -> None:
    """As on a file system, or under a quota, with small files only; no root is needed."""
    reference, target = door.folder / "reference", door.folder / "there"
    prepare(command, source, reference)
    assert door.run(*words_of(command, source, reference)).exit_code == 0
    wanted = kept(reference)
    prepare(command, source, target)
    before = kept(target)
    with file_size_limit(600):
        assert run_full(door, words_of(command, source, target), target, before, wanted) == 2
    assert door.run(*words_of(command, source, target)).exit_code == 0
    assert kept(target) == wanted
