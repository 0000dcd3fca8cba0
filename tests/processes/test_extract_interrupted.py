"""extract in processes of its own: killed, asked to stop, or beside another writer, it ends in the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import BLOCKS, Stage, arguments, begin, committed, first_forward, stalling, start, wait_for
from tests.kits.stores import all_files

stage = stages.stage


def leftovers(files: dict[str, bytes]) -> dict[str, bytes]:
    """What no store may hold but for a killed writer's temporary files, which are no keys."""
    return {name: data for name, data in files.items() if "/.tmp-" not in name}


@pytest.fixture(scope="module")
def twin(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stalling teacher's store holds where nobody interrupts it."""
    path = tmp_path_factory.mktemp("twin") / "digits.kd"
    extract(stage.asked(path, teacher=stage.stalling))
    return path


def test_a_killed_extraction_goes_on_to_the_same_bytes(stage: Stage, tmp_path: Path, twin: Path) -> None:
    path = tmp_path / "digits.kd"
    asked = stage.asked(path, teacher=stage.stalling)
    process = start(asked, stalling(tmp_path, first_forward(3)))
    wait_for(lambda: (tmp_path / "here").exists() and committed(path) > 0, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    stayed = committed(path)
    assert 0 < stayed < BLOCKS
    assert Store.open(path).content_id is None
    assert extract(asked).blocks_done_before == stayed
    assert leftovers(all_files(path)) == all_files(twin)


def test_sigterm_ends_with_75_and_the_same_command_finishes(stage: Stage, tmp_path: Path, twin: Path) -> None:
    path = tmp_path / "digits.kd"
    asked = stage.asked(path, teacher=stage.stalling)
    begin(asked)
    line = [sys.executable, "-m", "kdcache", *arguments(asked), "--json"]
    environment = {**os.environ, **stalling(tmp_path, first_forward(3))}
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (tmp_path / "here").exists() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (75, "")
    said = json.loads(err)
    assert said["exit_code"] == 75
    assert "the blocks that were committed stay; run the same command again to go on" in said["error"]
    stayed = committed(path)
    assert 0 < stayed < BLOCKS
    assert extract(asked).blocks_done_before == stayed
    assert all_files(path) == all_files(twin)


def test_two_writers_end_with_the_store_of_one(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "digits.kd"
    asked = stage.asked(path, data_set={})
    writers = [start(asked, {}) for _ in range(2)]
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    extract(stage.asked(tmp_path / "alone.kd", data_set={}))
    assert all_files(path) == all_files(tmp_path / "alone.kd")
