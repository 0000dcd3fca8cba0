"""A disk that is full while students train: on a small disk, and under a limit of the process."""

import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdcache.pipelines.train.stage import train
from kdcache.training.run_folder import STATE
from tests.faults.test_run_faults import require_equal, settings
from tests.kits.doors import Door
from tests.kits.small_disk import small_disk
from tests.kits.stages import arguments


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(settings(run))
    return run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB; a skip where it cannot be mounted."""
    with small_disk(tmp_path / "disk", 400 * 2**10) as folder:
        yield folder


@pytest.mark.situation(
    "the disk is full while a student trains",
    "the file and the reason in one line",
    exit_code=0,
    left="a run with its weights",
)
def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(disk: Path, door: Door, whole: Path) -> None:
    asked = settings(disk / "run")
    filler = disk / "filler"
    filler.write_bytes(bytes(360_000))
    ended = 0
    for size in range(340_000, 100_000, -20_000):
        outcome = door.run(*arguments(asked))
        if outcome.exit_code == 0:
            break
        ended += 1
        assert outcome.exit_code == 2, outcome
        assert "Traceback" not in outcome.err
        assert "cannot be written (No space left on device); free some space" in outcome.err
        lines = outcome.err.strip().splitlines()
        assert [line.startswith("error: ") for line in lines] == [*(False for _ in lines[1:]), True]
        filler.write_bytes(bytes(size))
    assert ended > 2
    assert door.outcome is not None
    assert door.outcome.exit_code == 0
    require_equal(disk / "run", whole)


def test_files_over_a_limit_of_the_process_end_in_one_line(door: Door) -> None:
    """RLIMIT_FSIZE, as batch systems set it: the checkpoint is the largest file."""
    asked = settings(door.folder / "run")
    train(asked)
    size = (door.folder / "run" / STATE).stat().st_size
    shutil.rmtree(door.folder / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in (size // 2, 200, 4000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
            message = door.refused(*arguments(asked))
            assert "cannot be written (File too large)" in message
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert door.done(*arguments(asked))["epochs"] == 3
