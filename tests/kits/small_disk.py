"""A disk that runs full: a small tmpfs, which only root may mount."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 24 * 2**20
FILLER = ".filler"


@contextmanager
def small_disk(path: Path, size: int = SIZE) -> Iterator[Path]:
    """A disk of `size` bytes, mounted at a new folder; without the right to mount a skip, or a failure where root is
    required."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    mounting = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if mounting is None or mounting.returncode != 0:
        reason = f"no disk of its own can be mounted: {'no mount' if mounting is None else mounting.stderr.strip()}"
        if os.environ.get("KDCACHE_REQUIRE_ROOT") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill a disk until so many bytes are left."""
    filler = disk / FILLER
    filler.unlink(missing_ok=True)
    status = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - free))


def empty(disk: Path) -> None:
    (disk / FILLER).unlink()
