"""extract by several processes, as torchrun starts them: the store of one, whoever dies and however many resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdcache.base import rank_engine
from kdcache.base.launch import Launch
from kdcache.base.rank_engine import RankEngine
from kdcache.errors import InvalidInputError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import BLOCKS, Stage, arguments, begin, committed, first_forward, stalling, start, wait_for
from tests.kits.stores import all_files

stage = stages.stage


def told(rank: int, world_size: int) -> dict[str, str]:
    """What torchrun tells a process."""
    said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    return {name: str(value) for name, value in said.items()}


def without_leftovers(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in all_files(path).items() if "/.tmp-" not in name}


def test_each_block_is_one_process_s_whatever_is_done_already() -> None:
    for world_size in (1, 2, 3, 7):
        for done in (set(), {0, 5, 6}):
            left = [block for block in range(20) if block not in done]
            launches = [Launch(rank=rank, world_size=world_size) for rank in range(world_size)]
            dealt = [RankEngine(launch, 20, lambda blocks: blocks).share(left) for launch in launches]
            assert sorted(block for blocks in dealt for block in blocks) == left
            assert all(block % world_size == rank for rank, blocks in enumerate(dealt) for block in blocks)


def test_two_killed_processes_resumed_by_three_leave_the_store_of_one(stage: Stage, tmp_path: Path) -> None:
    """Each is killed while it asks for its second block."""
    path = tmp_path / "digits.kd"
    asked = stage.asked(path, teacher=stage.stalling)
    processes = []
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        processes.append(start(asked, told(rank, 2) | stalling(tmp_path / str(rank), first_forward(2))))
    try:
        wait_for(lambda: all((tmp_path / str(rank) / "here").exists() for rank in range(2)) and committed(path) > 0)
    finally:
        for process in processes:
            process.kill()
            process.join()
    before = committed(path)
    assert 0 < before < BLOCKS
    assert not (path / "kdcache/seals").exists()
    processes = [start(asked, told(rank, 3)) for rank in range(3)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    extract(stage.asked(tmp_path / "alone.kd", teacher=stage.stalling))
    assert without_leftovers(path) == all_files(tmp_path / "alone.kd")


def test_the_first_process_takes_over_what_another_never_does(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one works, and leaves the sealing alone; or it never shows up, and its blocks are taken over."""
    path, shown = tmp_path / "digits.kd", list[str]()
    monkeypatch.setattr(rank_engine, "PATIENCE", 0.1)
    monkeypatch.setattr(rank_engine, "TIMES_OWN", 0.1)
    for name, value in told(1, 2).items():
        monkeypatch.setenv(name, value)
    assert extract(stage.asked(path)).content_id is None
    assert committed(path) == BLOCKS // 2
    for name, value in told(0, 3).items():
        monkeypatch.setenv(name, value)
    summary = extract(stage.asked(path), progress=lambda what, done, total: shown.append(f"{what} {done}"))
    assert summary.content_id == Store.open(stage.store).content_id
    assert all_files(path) == all_files(Path(stage.store))
    blocks = {0, 3} | set(range(1, BLOCKS, 2))  # block 2 of 5 is the third process's
    assert f"waiting for the other processes {len(blocks)}" in shown
    assert f"taking over what the other processes left {len(blocks)}" in shown


def test_dask_and_torchrun_at_once_are_refused(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in told(0, 2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError, match="engine is 'dask' in one of 2 processes"):
        extract(stage.asked(tmp_path / "digits.kd", engine="dask"))


def test_torchrun_writes_the_store_of_one_process_and_says_so_once(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "digits.kd"
    begin(stage.asked(path))
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        "-m",
        "kdcache",
    ]
    done = subprocess.run(
        [*line, *arguments(stage.asked(path)), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    (said,) = done.stdout.splitlines()
    assert json.loads(said)["content_id"] == Store.open(stage.store).content_id
    assert all_files(path) == all_files(Path(stage.store))
