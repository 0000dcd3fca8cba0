"""cluster: work dealt to real worker processes, bounded, retried, and refused where a worker is not of this kdcache."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kdcache.base import cluster as cluster_module
from kdcache.base import local_cluster
from kdcache.base.cluster import Cluster, open_cluster
from kdcache.base.progress import StopRequest
from kdcache.errors import ClusterError, InterruptedRunError
from tests.kits import cluster_tasks


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with open_cluster(workers=2, dashboard="127.0.0.1:0") as opened:
        yield opened


def test_every_item_comes_back_once_with_its_result(cluster: Cluster) -> None:
    found = list(cluster.each(cluster_tasks.squared, range(40)))
    assert sorted(found) == [(item, item * item) for item in range(40)]
    assert list(cluster.each(cluster_tasks.squared, [])) == []


def test_no_more_is_dealt_than_was_asked(cluster: Cluster) -> None:
    """What the caller has not taken yet bounds what is drawn from the items."""
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            drawn.append(item)
            yield item

    ends = cluster.each(cluster_tasks.squared, items(), ahead=3)
    for taken in range(1, 20):
        next(ends)
        assert len(drawn) <= 2 * 3 + taken
    ends.close()
    assert len(drawn) < 40


def test_an_error_is_the_outcome_of_its_item_after_its_retries(cluster: Cluster, tmp_path: Path) -> None:
    found = dict(cluster.each(partial(cluster_tasks.refusing, str(tmp_path)), range(8), retries=2))
    assert {item for item, outcome in found.items() if outcome != item} == {3}
    assert isinstance(found[3], ValueError)
    assert str(found[3]) == "item 3"
    assert [len(list(tmp_path.glob(f"{item}-*"))) for item in range(8)] == [1, 1, 1, 3, 1, 2, 1, 1]


def test_work_goes_on_when_workers_die(cluster: Cluster, tmp_path: Path) -> None:
    """Six deaths, more than the four after which Dask gives a task up."""
    (tmp_path / "kills").write_text("6")
    found = dict(cluster.each(partial(cluster_tasks.deadly, str(tmp_path)), range(6)))
    assert found == {item: item for item in range(6)}
    assert len(list(tmp_path.glob("0-*"))) == 7


def test_what_kills_its_workers_for_ever_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "kills").write_text("1000")
    found = dict(cluster.each(partial(cluster_tasks.deadly, str(tmp_path)), range(4)))
    assert type(found.pop(0)).__name__ == "KilledWorker"
    assert found == {1: 1, 2: 2, 3: 3}


def test_a_stop_is_heard_while_nothing_ends(cluster: Cluster) -> None:
    stop, longest = StopRequest(), 30.0
    began = time.monotonic()

    def poll() -> None:
        stop.requested = time.monotonic() - began > 0.5
        stop.check("again")

    with pytest.raises(InterruptedRunError):
        list(cluster.each(time.sleep, [longest, longest], poll=poll))
    assert time.monotonic() - began < longest


def test_everywhere_asks_each_worker(cluster: Cluster) -> None:
    found = cluster.everywhere(os.getpid)
    assert len(set(found.values())) == len(found) == 2
    assert os.getpid() not in found.values()


def test_all_listens_on_loopback(cluster: Cluster) -> None:
    assert cluster.address.startswith("tcp://127.0.0.1:")
    assert cluster.dashboard.startswith("http://127.0.0.1:")
    assert all(address.startswith("tcp://127.0.0.1:") for address in cluster.everywhere(os.getpid))


def test_a_worker_of_another_version_is_refused_by_name(cluster: Cluster, tmp_path: Path) -> None:
    """Before work starts, and where it joins later."""
    old = tmp_path / "old"  # python looks for packages where it is started first, and a checkout has metadata
    environment, there = cluster_tasks.another_version(old, "0.0.9"), len(cluster.everywhere(os.getpid))
    given = ("worker", cluster.address, "--no-nanny", "--nthreads", "1")
    with cluster_tasks.running(*given, environment=environment, folder=old):
        cluster.client.wait_for_workers(there + 1, timeout=60)
        said = r"worker tcp://127.0.0.1:\d+ has kdcache 0.0.9, this process has \d"
        with pytest.raises(ClusterError, match=said), open_cluster(scheduler=cluster.address):
            pytest.fail("it was let in")
        with pytest.raises(ClusterError, match=said):
            list(cluster.each(cluster_tasks.squared, range(1000)))
    until = time.monotonic() + 30
    while len(cluster.everywhere(os.getpid)) > there and time.monotonic() < until:
        time.sleep(0.1)
    cluster.require_version()


def test_an_unreachable_scheduler_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # it takes connections and says nothing
        silent = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        for address in ("tcp://127.0.0.1:9", silent, "nowhere", "http://127.0.0.1:8786"):
            with pytest.raises(ClusterError, match=f"no Dask scheduler answers at {address} .*leave --scheduler out"):
                open_cluster(scheduler=address).__enter__()


def test_without_bokeh_there_is_no_dashboard_and_all_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with open_cluster(workers=1, dashboard="127.0.0.1:0") as opened:
        assert (opened.dashboard, opened.dashboard_text) == ("", "off; pip install 'kdcache[dashboard]'")
        assert list(opened.each(cluster_tasks.squared, [3])) == [(3, 9)]


def test_a_worker_that_dask_has_given_up_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster, "LOST_AFTER", "1s")
    with open_cluster(workers=1, dashboard="") as opened:
        (nanny,) = opened.client.cluster.workers.values()
        opened.client.sync(nanny.close)
        assert sorted(opened.each(cluster_tasks.squared, range(3))) == [(0, 0), (1, 1), (2, 4)]


def test_one_worker_a_gpu_and_an_environment_that_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker sees its own GPU; what Dask sets here on the way to its workers is taken back."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    before = dict(os.environ)
    with open_cluster(gpus=("3", "5"), dashboard="") as opened:
        assert (opened.dashboard, opened.dashboard_text) == ("", "off")
        assert sorted(map(str, opened.everywhere(os.getenv, "CUDA_VISIBLE_DEVICES").values())) == ["3", "5"]
        assert list(opened.everywhere(os.getenv, "OMP_NUM_THREADS").values()) == ["1", "1"]
    assert dict(os.environ) == before
