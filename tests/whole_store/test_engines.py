"""engines: verify, diff, stats and recode give the same on worker processes as here, to the last bit."""

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.cluster import Cluster, open_cluster
from kdcache.base.engine import LOCAL, Engine
from kdcache.base.engine_settings import EngineSettings
from kdcache.base.progress import StopRequest
from kdcache.errors import ClusterError, DamagedError, InterruptedRunError, InvalidInputError
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.sharing.export import export_store
from kdcache.sharing.push_pull import push
from kdcache.store.store import Store
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.engines import in_order, open_engine, require_stores, seen_by
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.stats import store_stats
from kdcache.whole_store.store_address import shared_address
from kdcache.whole_store.verify import inspect_files
from tests.kits import engines
from tests.kits.engines import Afresh
from tests.kits.stores import Case, create_store, make_case, write_store, write_views
from tests.kits.web import serving

ROWS = 1500  # 24 blocks, more than one task of a check


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with open_cluster(
        workers=2, dashboard="127.0.0.1:0", preload=["kdcache.whole_store.recode", "kdcache.whole_store.stats"]
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed store, another of other last bits and order, and one that is damaged in three ways and not whole."""
    folder = tmp_path_factory.mktemp("stores")
    case = make_case(ROWS, k=6, packing="residuals", views=2)
    write_store(folder / "a.kd", case)
    noise = np.random.RandomState(4).normal(0, 0.3, case.logits.shape).astype("f4")
    write_store(folder / "b.kd", Case(case.identity, case.order, case.labels, case.logits + noise))
    shutil.copytree(folder / "a.kd", folder / "hurt.kd")
    arrays = Store.open(folder / "a.kd").segments[0].layout.arrays
    (folder / "hurt.kd" / arrays["gaps"].key(3)).write_bytes(b"cut")
    (folder / "hurt.kd" / arrays["pixels"].key(17)).unlink()
    (folder / "hurt.kd/kdcache/views-00000-00002/commits/000/000020.json").write_bytes(b"{}")
    write_views(create_store(folder / "part.kd", case), 0, case.logits, blocks=(0, 5, 9))
    return folder


def test_results_come_in_the_order_of_the_items(cluster: Cluster) -> None:
    assert list(in_order(cluster, engines.late, range(20))) == [item * item for item in range(20)]
    assert list(in_order(cluster, engines.late, [])) == []


def test_errors_are_those_of_the_work(cluster: Cluster) -> None:
    with pytest.raises(DamagedError, match="item 3 is damaged"):
        list(in_order(cluster, engines.refused, range(8)))
    with pytest.raises(ClusterError, match=r"workers could not do 0 .ZeroDivisionError: item 0.; .*without --engine"):
        list(in_order(cluster, engines.broken, [0]))


@pytest.mark.parametrize("here", [True, False], ids=["here", "cluster"])
def test_a_stop_ends_it_early(cluster: Cluster, tmp_path: Path, here: bool) -> None:
    engine: Engine = LOCAL if here else cluster
    stop = StopRequest()
    results = in_order(engine, partial(engines.noted, str(tmp_path)), range(200), poll=lambda: stop.check("go on"))
    assert next(results) == 0
    stop.requested = True
    with pytest.raises(InterruptedRunError, match="go on"):
        list(results)
    assert len(list(tmp_path.iterdir())) < 100


@pytest.mark.parametrize("name", ["a.kd", "hurt.kd", "part.kd"])
def test_a_check_finds_the_same(cluster: Cluster, stores: Path, name: str) -> None:
    found, here = (inspect_files(str(stores / name), engine=engine) for engine in (cluster, LOCAL))
    assert found == here
    assert (len(found.findings), found.missing) == {"a.kd": (0, 0), "hurt.kd": (3, 0), "part.kd": (0, 21)}[name]


def test_a_check_over_http_finds_the_same(cluster: Cluster, stores: Path) -> None:
    with serving(stores) as site:
        for name, wrong in (("a.kd", 0), ("hurt.kd", 2)):
            found, here = (inspect_files(f"{site.url}/{name}", engine=engine) for engine in (cluster, LOCAL))
            assert found == here
            assert len(found.findings) == wrong
        store = Store.open(f"{site.url}/a.kd")
        assert store_stats(store, engine=cluster) == store_stats(store)


@pytest.mark.parametrize("name", ["a.kd", "part.kd"])
def test_statistics_are_equal_to_the_last_bit(cluster: Cluster, stores: Path, name: str) -> None:
    store = Store.open(stores / name)
    assert store_stats(store, engine=cluster) == store_stats(store)


@pytest.mark.parametrize("other", ["a.kd", "b.kd", "part.kd"])
def test_a_comparison_is_equal_to_the_last_bit(
    cluster: Cluster, stores: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Store.open(stores / "a.kd"), Store.open(stores / other)
    found, here = (diff_stores(a, b, rows=0, engine=engine) for engine in (cluster, LOCAL))
    assert found == here
    assert found.same == (other == "a.kd")
    assert found.rows is not None
    assert found.rows.rows == (2 * 3 * 64 if other == "part.kd" else 2 * ROWS)


def test_a_recoded_store_is_the_same_store(cluster: Cluster, stores: Path, tmp_path: Path) -> None:
    wanted = Narrowing(top_k=3)
    here = recode_store(str(stores / "a.kd"), str(tmp_path / "here.kd"), wanted)
    there = recode_store(str(stores / "a.kd"), str(tmp_path / "there.kd"), wanted, engine=cluster)
    assert here.content_id is not None
    assert there == here.model_copy(update={"out": there.out})
    again = recode_store(str(stores / "a.kd"), str(tmp_path / "there.kd"), wanted, engine=cluster)
    assert (again.present, again.content_id) == (24, here.content_id)


@pytest.mark.parametrize("kind", ["folder", "zip", "http", "http zip", "s3"])
def test_a_store_is_found_by_its_address(tmp_path: Path, place: str, kind: str) -> None:
    """Wherever it lies, by whoever has nothing but the address."""
    case, b = make_case(200, packing="residuals"), tmp_path / "b.kd"
    a = write_store(tmp_path / "a.kd", case)
    write_store(b, Case(case.identity, case.order, case.labels, case.logits[::-1].copy()))
    export_store(str(b), str(tmp_path / "b.zip"))
    with serving(tmp_path) as site:
        urls = {"folder": str(b), "zip": f"{tmp_path}/b.zip", "http": f"{site.url}/b.kd"}
        url = (urls | {"http zip": f"{site.url}/b.zip", "s3": place})[kind]
        if kind == "s3":
            push(str(b), place)
        found, afresh = Store.open(url), Afresh()
        assert inspect_files(url, engine=afresh) == inspect_files(url)
        assert store_stats(found, engine=afresh) == store_stats(found)
        assert diff_stores(a, found, engine=afresh) == diff_stores(a, found)
        done = recode_store(url, str(tmp_path / "out.kd"), Narrowing(top_k=2), engine=afresh)
        here = recode_store(str(b), str(tmp_path / "here.kd"), Narrowing(top_k=2))
        assert (done.content_id, done.blocks) == (here.content_id, 4)


def test_a_store_that_workers_do_not_see_is_told_before_work_starts(cluster: Cluster, tmp_path: Path) -> None:
    write_store(tmp_path / "a.kd", make_case(100))
    with shared_address(Store.open_for_writing(tmp_path / "a.kd")) as address:
        shutil.move(tmp_path / "a.kd", tmp_path / "b.kd")  # open here, gone there
        with pytest.raises(ClusterError, match=r"worker tcp://.* does not find .*a.kd .*a.kd does not exist"):
            require_stores(cluster, address)
        write_store(tmp_path / "a.kd", make_case(101))
        with pytest.raises(ClusterError, match=r"but another store; put it on a folder that all workers share"):
            require_stores(cluster, address)


def test_workers_drop_what_they_opened_when_the_work_ends(cluster: Cluster, stores: Path, tmp_path: Path) -> None:
    """However it ends, and whoever goes on: the workers stay."""
    before = cluster.everywhere(engines.stores_alive)
    a, b = Store.open(stores / "a.kd"), Store.open(stores / "b.kd")
    store_stats(a, engine=cluster)
    diff_stores(a, b, rows=0, engine=cluster)
    inspect_files(str(stores / "a.kd"), engine=cluster)
    recode_store(str(stores / "a.kd"), str(tmp_path / "out.kd"), Narrowing(top_k=3), engine=cluster)
    with pytest.raises(DamagedError):
        store_stats(Store.open(stores / "hurt.kd"), engine=cluster)
    deadline = time.monotonic() + 60  # tasks that run when the work is given up hold a store until they end
    while any(alive > before[worker] for worker, alive in cluster.everywhere(engines.stores_alive).items()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_settings_name_an_engine(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: flags, a cluster of one process that ends with the command, paths made absolute."""
    monkeypatch.chdir(stores)
    settings = VerifySettings(store="hurt.kd", engine="dask", dask_workers=1)
    verdict, here = verify(settings), verify(VerifySettings(store=str(stores / "hurt.kd")))
    assert verdict == here
    assert verdict.store == seen_by(settings, "hurt.kd") == str(stores / "hurt.kd")
    assert seen_by(EngineSettings(), "hurt.kd") == "hurt.kd"
    for given in ({"scheduler": "tcp://x:1"}, {"dask_workers": 2}):
        with (
            pytest.raises(InvalidInputError, match="without --engine dask"),
            open_engine(VerifySettings(store="x", **given)),
        ):
            pass


def test_an_address_stays_and_a_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = EngineSettings(engine="dask")
    monkeypatch.chdir(tmp_path)
    assert seen_by(settings, "s3://bucket/a.kd@12ab") == "s3://bucket/a.kd@12ab"
    assert seen_by(settings, "a.kd@12ab") == f"{tmp_path}/a.kd@12ab"
