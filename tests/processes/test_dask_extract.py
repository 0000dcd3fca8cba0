"""extract --engine dask: the store of one process, whatever happens to real workers, and workers that are refused."""

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_digits

from kdcache.base import cluster as cluster_module
from kdcache.base.cluster import Cluster, open_cluster
from kdcache.errors import BlocksFailedError, ClusterError, InvalidInputError
from kdcache.labels import encodings
from kdcache.networks.teacher import CPU_ROWS
from kdcache.pipelines.extract.dask_cluster import PRELOAD
from kdcache.pipelines.extract.dask_worker import WorkerJob
from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import cluster_tasks, stages
from tests.kits.forks import forks
from tests.kits.stages import BLOCKS, Stage, arguments, begin, committed, stop_after, wait_for
from tests.kits.stores import all_files

stage = stages.stage


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with open_cluster(workers=2, dashboard="127.0.0.1:0", preload=PRELOAD) as opened:
        yield opened


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "failing.py").write_text(cluster_tasks.FAILING)
    return folder


def on(cluster: Cluster, **changes: object) -> dict[str, object]:
    return {"engine": "dask", "scheduler": cluster.address, **changes}


def test_workers_that_are_killed_leave_the_store_of_one_process(stage: Stage, cluster: Cluster, tmp_path: Path) -> None:
    """Six times a worker is killed while it has blocks; loader processes draw the views of some."""
    extract(stage.asked(tmp_path / "alone.kd", data_set={}))
    killed: list[int] = []
    rng = random.Random(0)

    def progress(what: str, done: int, total: int) -> None:
        if what == "extracting" and len(killed) < 6:
            nannies = [each for each in cluster.client.cluster.workers.values() if each.status.name == "running"]
            if pids := [each.pid for each in nannies if each.pid not in (None, *killed)]:
                killed.append(rng.choice(pids))
                os.kill(killed[-1], signal.SIGKILL)

    asked = stage.asked(tmp_path / "dealt.kd", **on(cluster, data_set={}, workers=1))
    begin(asked)
    summary = extract(asked, progress=progress)
    assert len(set(killed)) == 6
    assert not [pid for pid in killed if Path(f"/proc/{pid}").exists()]
    assert summary.content_id == Store.open(tmp_path / "alone.kd").content_id
    left, right = all_files(tmp_path / "dealt.kd"), all_files(tmp_path / "alone.kd")
    assert {name: data for name, data in left.items() if "/.tmp-" not in name} == right
    assert summary.memory_bound is None
    assert (summary.memory_peak_worker or 0) > 1e8
    assert summary.accuracy_clean == pytest.approx(0.99, abs=0.05)


def test_one_process_and_a_cluster_finish_what_the_other_began(stage: Stage, cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "digits.kd"
    stop, progress = stop_after(4)
    with pytest.raises(Exception, match="run the same command again"):
        extract(stage.asked(path), progress=progress, stop=stop)
    before = committed(path)
    assert 0 < before < BLOCKS
    assert extract(stage.asked(path, **on(cluster))).blocks_done_before == before
    assert all_files(path) == all_files(Path(stage.store))
    assert extract(stage.asked(path, **on(cluster))).blocks_done_before == BLOCKS


def test_workers_that_go_on_drop_the_job_when_the_work_ends(stage: Stage, cluster: Cluster, tmp_path: Path) -> None:
    """However it ends: data set and teacher would stay in the memory of a cluster that others use."""
    seen = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "extracting" and not done:
            seen.extend(cluster.everywhere(cluster_tasks.jobs_alive).values())

    asked, (stop, stopping) = stage.asked(tmp_path / "digits.kd", **on(cluster)), stop_after(2)
    begin(asked)
    with pytest.raises(Exception, match="run the same command again"):
        extract(asked, progress=stopping, stop=stop)
    extract(asked, progress=progress)
    assert set(seen) == {1}
    wait_for(lambda: set(cluster.everywhere(cluster_tasks.jobs_alive).values()) == {0})


def test_a_block_that_fails_is_named_with_its_samples_and_the_rest_goes_on(
    stage: Stage, cluster: Cluster, tmp_path: Path, failing: Path
) -> None:
    path = tmp_path / "digits.kd"
    asked = stage.asked(path, data=f"{failing}/failing.py:Digits", data_set={}, **on(cluster))
    begin(asked)
    bad = 17

    def progress(what: str, done: int, total: int) -> None:
        if what == "extracting" and not done:
            (failing / "unreadable").write_text(str(bad))

    with pytest.raises(BlocksFailedError) as raised:
        extract(asked, progress=progress)
    order = Store.open_for_writing(path).order
    block = int(np.flatnonzero(order == bad)[0]) // 64
    said = str(raised.value)
    assert raised.value.exit_code == 1
    assert f"1 of {BLOCKS} blocks failed again and again" in said
    assert f"block {block} (positions {64 * block} to " in said
    assert "cannot read digit-17" in said
    assert all(f"sample {index} (digit-{index})" in said for index in order[64 * block : 64 * block + 44])
    assert committed(path) == BLOCKS - 1
    assert not (path / "kdcache/seals").exists()
    (failing / "unreadable").unlink()
    assert extract(asked).blocks_done_before == BLOCKS - 1
    alone = extract(asked.model_copy(update={"store": str(tmp_path / "alone.kd"), "engine": "local", "scheduler": ""}))
    assert alone.content_id == Store.open(path).content_id


@pytest.fixture
def whole_batches(cluster: Cluster) -> Iterator[None]:
    """Forwards have whole batches, as on a GPU, here and on workers."""
    for rows in (None, CPU_ROWS):
        cluster_tasks.set_forward_rows(rows)
        cluster.everywhere(cluster_tasks.set_forward_rows, rows)
        if rows is None:
            yield


@pytest.mark.usefixtures("whole_batches")
def test_out_of_memory_halves_a_worker_s_batches(stage: Stage, cluster: Cluster, tmp_path: Path, failing: Path) -> None:
    """Down to 64 rows; the bytes are those of batches of 64. With room for fewer, blocks fail by name."""
    asked = stage.asked(tmp_path / "digits.kd", teacher=f"{failing}/failing.py:net", **on(cluster))
    begin(asked)

    def limit(rows: int) -> Callable[[str, int, int], None]:
        def progress(what: str, done: int, total: int) -> None:
            if what == "extracting" and not done:
                (failing / "memory").write_text(str(rows))

        return progress

    with pytest.raises(BlocksFailedError, match="ran out of memory with batches of 64 rows"):
        extract(asked, progress=limit(8))
    assert committed(tmp_path / "digits.kd") == 0
    (failing / "memory").unlink()
    summary = extract(asked, progress=limit(100))
    notes = [note for note in summary.notes if "went on with batches of 64 rows" in note]
    assert 1 <= len(notes) <= 2
    (failing / "memory").unlink()
    alone = {"engine": "local", "scheduler": "", "batch_size": 64, "store": str(tmp_path / "alone.kd")}
    assert extract(asked.model_copy(update=alone)).content_id == summary.content_id


@pytest.fixture(scope="module")
def machines(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of four machines, each with its own copy of 130 images and of the teacher's weights."""
    base = tmp_path_factory.mktemp("machines")
    digits = load_digits()
    for index in range(130):
        folder = base / "client/data" / str(digits.target[index])
        folder.mkdir(parents=True, exist_ok=True)
        image = np.kron(digits.images[index] * 15, np.ones((2, 2))).astype(np.uint8)
        PIL.Image.fromarray(image).convert("RGB").save(folder / f"{index}.png")
    (base / "client/net.py").write_text(
        "from kdcache.networks import convnet\n\n\ndef net():\n    import torch\n\n"
        "    torch.manual_seed(0)\n    return convnet(width=4, channels=3)\n"
    )
    for name in ("a", "b", "c"):
        shutil.copytree(base / "client", base / name)
    return base


def test_three_machines_with_their_own_folders_and_a_shared_store(
    stage: Stage, machines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"data": "folder:data", "data_set": {}, "teacher": "net.py:net", "teacher_set": {}, "weights": ""}
    changes |= {"transform_set": {"padding": 2, "flip": 0.0}, "min_accuracy": 0.0}
    monkeypatch.chdir(machines / "client")
    monkeypatch.setattr(cluster_module, "PATIENCE", 60.0)
    extract(stage.asked(tmp_path / "alone.kd", **changes))
    folders = [machines / name for name in ("a", "b", "c")]
    with (
        cluster_tasks.scheduler() as address,
        cluster_tasks.hosts(address, *folders),
        open_cluster(scheduler=address) as found,
    ):
        found.client.wait_for_workers(3, timeout=60)
        asked = stage.asked(tmp_path / "dealt.kd", **on(found, **changes))
        begin(asked)
        summary = extract(asked)
        assert summary.content_id == Store.open(tmp_path / "alone.kd").content_id
        assert len(found.everywhere(os.getpid)) == 3
        monkeypatch.setattr(encodings, "BLOCK_RULE", 2)  # as the machines have it for new stores
        _refused_machines(stage, machines, tmp_path, found, changes)


def _refused_machines(
    stage: Stage, machines: Path, tmp_path: Path, scheduler: Cluster, changes: dict[str, object]
) -> None:
    """A machine without the data, and one that lacks an image: each is named, and nothing is written."""
    asked = stage.asked(tmp_path / "refused.kd", **on(scheduler, **changes))
    empty, other = machines / "empty", machines / "other"
    shutil.copytree(machines / "client", other)
    next((other / "data/3").iterdir()).unlink()
    shutil.copytree(machines / "client", empty)
    shutil.rmtree(empty / "data")
    for folder, said in (
        (empty, r"worker tcp://127.0.0.1:\d+ \(.*\) cannot build this extraction \(InvalidInputError: .*data"),
        (
            other,
            r"(?s)worker tcp://.*would extract something else:.*dataset.rows: the worker has 129, this process has 130",
        ),
    ):
        with cluster_tasks.hosts(scheduler.address, folder):
            scheduler.client.wait_for_workers(4, timeout=60)
            with pytest.raises(ClusterError, match=said):
                extract(asked)
            assert not (tmp_path / "refused.kd").exists()
        wait_for(lambda: len(scheduler.everywhere(os.getpid)) == 3)


def test_a_worker_must_see_the_store_that_the_client_made(stage: Stage, tmp_path: Path) -> None:
    """Where the folder is not shared a worker finds nothing at its path, or what was left there before."""
    asked = stage.asked(tmp_path / "digits.kd", views="1")
    worker_job = WorkerJob(asked, open_job(asked).identity)
    worker_job.setup(SimpleNamespace(address="tcp://10.0.0.7:4"))  # type: ignore[arg-type]
    worker_job.open()
    with pytest.raises(ClusterError, match=r"worker tcp://10.0.0.7:4 \(.*\) does not see the store .*machines share"):
        worker_job.see_store()
    stage.copy(tmp_path / "digits.kd")
    with pytest.raises(ClusterError, match=r"worker tcp://10.0.0.7:4 .* finds another store at .*digits.kd"):
        worker_job.see_store()


def test_what_does_not_fit_together_is_refused_before_anything_is_built(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "PATIENCE", 0.5)
    path = tmp_path / "digits.kd"
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*leave --scheduler out"):
        extract(stage.asked(path, engine="dask", scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(InvalidInputError, match=r"scheduler is 'tcp://127.0.0.1:9' without --engine dask"):
        extract(stage.asked(path, scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(InvalidInputError, match="dashboard 'x' is no HOST:PORT"):
        extract(stage.asked(path, engine="dask", dashboard="x"))
    assert not path.exists()


def test_ctrl_c_ends_with_75_and_leaves_no_process(stage: Stage, tmp_path: Path) -> None:
    """The whole group hears it, as at a terminal, while workers are busy."""
    path, mark = tmp_path / "digits.kd", {"KDCACHE_MARK": str(tmp_path)}
    (tmp_path / "busy.py").write_text(cluster_tasks.BUSY)
    changes = {"teacher": f"{tmp_path}/busy.py:net", "engine": "dask", "dask_workers": 2, "dashboard": "127.0.0.1:0"}
    given = arguments(stage.asked(path, **changes))
    process = forks.Process(target=cluster_tasks.session, args=(given, mark, str(tmp_path / "said")))
    process.start()
    try:
        wait_for(lambda: (tmp_path / "busy").exists(), process)
        assert len(cluster_tasks.marked(mark)) >= 3  # a server and two workers; what it forked from knows nothing of it
        os.killpg(process.pid or 0, signal.SIGINT)
        process.join(60)
        said = (tmp_path / "said").read_text()
        assert process.exitcode == 75, said
        assert "2 Dask workers, dashboard http://127.0.0.1:" in said
        assert said.endswith("the blocks that were committed stay; run the same command again to go on\n")
        wait_for(lambda: not cluster_tasks.marked(mark))
        assert committed(path) == 0
    finally:
        process.kill()
        for pid in cluster_tasks.marked(mark):
            os.kill(pid, signal.SIGKILL)
