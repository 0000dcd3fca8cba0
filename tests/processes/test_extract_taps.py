"""extract with features, head and taps on a Dask cluster, by torchrun, and killed: the bytes of one process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.cluster import open_cluster
from kdcache.pipelines.extract.dask_cluster import PRELOAD
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import BLOCKS, ROWS, Stage, arguments, begin, committed, first_forward, stalling, start, wait_for
from tests.kits.stores import all_files

stage = stages.stage

KEEP = ("features", "head", "tap:1", "tap:3@2x2", "stages")
NAMES = ["1", "3@2x2", "5@1x1", "12@1x1", "13@1x1"]


def asked(stage: Stage, path: Path) -> ExtractSettings:
    """The stalling twin of the teacher, which stalls where its environment says so."""
    return stage.asked(path, keep=KEEP, teacher=stage.stalling)


def files_of(path: Path) -> dict[str, bytes]:
    """A store's files, without a killed writer's temporary ones, which are no keys."""
    return {name: data for name, data in all_files(path).items() if "/.tmp-" not in name}


@pytest.fixture(scope="module")
def alone(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alone") / "a.kd"
    extract(asked(stage, path))
    return path


def assert_same(path: Path, alone: Path) -> None:
    """All files are equal, and so is each output that is read from them, none of which is empty."""
    assert files_of(path) == all_files(alone)
    rows, expected = (Store.open(each).load(1, np.arange(ROWS), features=True, taps=NAMES) for each in (path, alone))
    for name in NAMES:
        assert expected.tap(name).any()
        np.testing.assert_array_equal(rows.tap(name), expected.tap(name))
    np.testing.assert_array_equal(rows.arrays["features"], expected.arrays["features"])
    np.testing.assert_array_equal(Store.open(path).head()["weight"], Store.open(alone).head()["weight"])


def test_a_cluster_writes_the_bytes_of_one_process(stage: Stage, alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "dealt.kd"
    begin(asked(stage, path))
    with open_cluster(workers=2, dashboard="127.0.0.1:0", preload=PRELOAD) as cluster:
        settings = asked(stage, path).model_copy(update={"engine": "dask", "scheduler": cluster.address})
        assert extract(settings).content_id == Store.open(alone).content_id
    assert_same(path, alone)


def test_torchrun_writes_the_bytes_of_one_process(stage: Stage, alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "shared.kd"
    begin(asked(stage, path))
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "-m", "kdcache"]
    line = [sys.executable, "-m", *launcher, *arguments(asked(stage, path)), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["content_id"] == Store.open(alone).content_id
    assert_same(path, alone)


def test_a_killed_extraction_goes_on_to_the_same_bytes(stage: Stage, alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.kd"
    process = start(
        asked(stage, path), stalling(tmp_path, first_forward(3) + 2)
    )  # two forwards look at layers and their shapes
    wait_for(lambda: (tmp_path / "here").exists() and committed(path) > 0, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = committed(path)
    assert 0 < before < BLOCKS
    assert Store.open(path).content_id is None
    assert extract(asked(stage, path)).blocks_done_before == before
    assert_same(path, alone)
