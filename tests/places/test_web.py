"""Stores on a web server: what is read there equals the folder, by pins and by the latest seal, without any listing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.parallel import JOBS
from kdcache.cli.app import main
from kdcache.errors import InvalidInputError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.pipelines.train.stage import train
from kdcache.places.http_requests import Origin, split_url
from kdcache.places.opening import open_place
from kdcache.places.place import Place
from kdcache.places.web import WebFolder
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.seals import split_pin
from kdcache.store.store import Store
from kdcache.whole_store.stats import store_stats
from kdcache.whole_store.verify import inspect_files
from tests.kits import stages
from tests.kits.damage import ANSWERED, FIRST, all_reads, rich_store
from tests.kits.house import loaded
from tests.kits.stages import Stage, metrics, student, weights_of
from tests.kits.stores import make_case, write_store
from tests.kits.web import Site, serving, uncached

stage = stages.stage


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("web") / "rich.kd")


@pytest.fixture
def site(local: Path) -> Iterator[Site]:
    with serving(local.parent) as site:
        yield site


@pytest.fixture
def url(site: Site) -> str:
    return f"{site.url}/rich.kd"


def test_everything_that_is_read_over_http_equals_the_folder(url: str, local: Path, site: Site) -> None:
    assert all_reads(url) == all_reads(local)
    there, here = Store.open(url), Store.open(str(local))
    assert (there.content_id, there.every_view, there.card) == (here.content_id, here.every_view, here.card)
    described, expected = describe_store(there), describe_store(here)
    assert described.pop("store") == url
    assert expected.pop("store") == str(local)
    assert described == expected
    assert describe_rows(there, 5, 1) == describe_rows(here, 5, 1)
    assert there.identity.dataset.class_names == here.identity.dataset.class_names
    assert there.identity == here.identity
    there, here = Store.open(f"{url}/"), Store.open(local)
    positions = np.random.RandomState(0).permutation(ANSWERED)[:50]
    for view in here.every_view:
        found, wanted = there.read(view, positions), here.read(view, positions)
        assert np.array_equal(found.log_probs(2.0), wanted.log_probs(2.0))
        assert np.array_equal(np.asarray(found.classes), np.asarray(wanted.classes))


def test_a_pin_opens_what_it_seals_and_nothing_else(url: str, local: Path) -> None:
    pins = {seal.stem: Store.open(f"{local}@{seal.stem}") for seal in (local / "kdcache/seals").glob("*.json")}
    assert len(pins) == 2
    for pin, here in pins.items():
        there = Store.open(f"{url}@{pin.upper()}")
        assert (there.content_id, there.every_view) == (here.content_id, here.every_view)
    latest = Store.open(local).content_id
    assert latest is not None
    with pytest.raises(StoreNotFoundError, match=f"rich.kd has no seal {'0' * 32}; it has {latest}"):
        Store.open(f"{url}@{'0' * 32}")
    with pytest.raises(StoreNotFoundError, match=f"{latest[:8]} has 8 digits; give 32 or more of the content id"):
        Store.open(f"{url}@{latest[:8]}")


def test_only_single_files_are_asked_for_and_only_parts_of_shards(url: str, local: Path, site: Site) -> None:
    with uncached():
        store = Store.open(url)
    store.read(1, ANSWERED)
    files = {f"rich.kd/{path.relative_to(local).as_posix()}" for path in local.rglob("*") if path.is_file()}
    assert {key for key, _ in site.asked} <= files | {"rich.kd/kdcache/partial.json"}  # asked for, in case it is one
    assert all(span for key, span in site.asked if f"{FIRST}/classes/c" in key)
    taken = [key for key, _ in site.asked if key.endswith("classes/c/0/0/0")]
    assert len(taken) == 2  # its index, a chunk
    before = len(site.asked)
    store.read(0, np.arange(64))
    assert len(site.asked) - before == 1 + 5 + 2 * 5  # commit, zarr.json, indexes and chunks


def test_a_store_without_commit_files_is_read_and_one_that_lost_a_block_is_not(local: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(local, tmp_path / "copy.kd"))
    commits = copy / f"kdcache/{FIRST}/commits/000"
    with serving(tmp_path) as site, uncached():
        (commits / "000001.json").unlink()
        with pytest.raises(KdcacheError, match=r"000001.json is gone; publish the store again, whole"):
            all_reads(f"{site.url}/copy.kd")
        shutil.rmtree(commits)
        assert all_reads(f"{site.url}/copy.kd") == all_reads(local)


def test_a_store_that_is_not_sealed_is_refused(local: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(local, tmp_path / "copy.kd"))
    shutil.rmtree(copy / "kdcache/seals")
    with (
        serving(tmp_path) as site,
        pytest.raises(StoreNotFoundError, match=r"not sealed.*run kdcache seal on the store's"),
    ):
        Store.open(f"{site.url}/copy.kd")


def test_verify_finds_over_http_what_it_finds_in_the_folder(local: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(local, tmp_path / "copy.kd"))
    with serving(tmp_path) as site:
        url = f"{site.url}/copy.kd"
        found = inspect_files(url)
        assert found.whole
        assert (found.blocks, found.bytes) == (inspect_files(str(copy)).blocks, inspect_files(str(copy)).bytes)
        shard = copy / FIRST / "pixels/c/0/1"
        data = shard.read_bytes()
        shard.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        (copy / "labels/zarr.json").write_bytes(b"{}")
        found = inspect_files(url)
        assert not found.whole
        assert [finding.block for finding in found.findings] == [None] * len(found.findings)
        text = "\n".join(finding.what for finding in found.findings)
        assert f"{url}/{FIRST}/pixels/c/0/1 has sha256" in text
        assert f"{url}/labels/zarr.json is not what the manifest predicts" in text


def kdcache(*given: str) -> object:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(given))
    return ended.value.code


def test_the_command_line_reads_urls(url: str, local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kdcache("inspect", url, "--rows", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["content_id"] == Store.open(local).content_id
    assert kdcache("verify", url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["whole"]
    assert kdcache("verify", url, "--repair") == 2
    assert f"--repair was given for {url}, which is read only" in " ".join(capsys.readouterr().err.split())
    assert kdcache("seal", url) == 2
    assert "read only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "ftp://host/store.kd",
            "reads no ftp: addresses; it reads http://, https://, s3://, gs://, az://, hf:// addresses, one",
        ),
        ("zip::s3://bucket/store.kd", "reads no zip::s3: addresses"),
        ("s3://http://host/store.kd", "reads no s3: addresses; .*, one at a time"),
        ("s3://key:secret@bucket/store.kd", "user, password or port was given; credentials and endpoints come from"),
        ("s3://bucket", "is no store's address"),
        ("file:///data/store.kd", "reads no file: addresses"),
        ("simplecache::https://host/x", "reads no simplecache::https: addresses"),
        ("https://user:hidden@host/store.kd", "user or password was given for the host host"),
        ("https://user:hidden@cafe", "user or password was given for the host cafe"),
        ("https://hidden@host:1/store.kd@1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e", "user or password was given"),
        ("https://host/store.kd?token=hidden", r"https://host/store.kd was given with \? or #"),
        ("https://host/store.kd#hidden", r"with \? or #"),
        ("https://host:hidden/store.kd", "no valid host and port"),
        ("https:///store.kd", "names no host"),
    ],
)
def test_addresses_that_are_refused_are_named_without_secrets(given: str, said: str) -> None:
    with pytest.raises(KdcacheError, match=said) as caught:
        Store.open(given)
    assert "hidden" not in str(caught.value)


def test_the_pin_of_an_address_is_told_from_its_user() -> None:
    assert split_pin("https://host/a.kd@1F2E") == ("https://host/a.kd", "1f2e")
    assert split_pin("https://user@cafe") == ("https://user@cafe", None)
    assert split_pin("https://user@cafe/store.kd") == ("https://user@cafe/store.kd", None)


def test_what_lies_on_the_web_is_never_written_or_listed() -> None:
    place: Place = open_place("http://127.0.0.1:9/store.kd")
    writing = (
        lambda: place.put_new("a", b""),
        lambda: place.put_same("a", b""),
        lambda: place.replace("a", b""),
        lambda: place.delete("a"),
        lambda: Store.open_for_writing(str(place.root)),
    )
    for write in writing:
        with pytest.raises(InvalidInputError, match=r"http://127.0.0.1:9/store.kd is read only"):
            write()
    for look in (place.keys, place.folders, place.has_folder):
        with pytest.raises(StoreError, match="cannot be listed"):
            look("kdcache")


def test_hosts_ports_and_paths_are_asked_for_as_they_are_written(tmp_path: Path) -> None:
    assert (Origin(split_url("https://[::1]/a")).host, Origin(split_url("HTTPS://Host:8443/a")).port) == ("::1", 8443)
    folder = tmp_path / "my stores"
    folder.mkdir()
    (folder / "é.bin").write_bytes(b"12345")
    with serving(tmp_path) as site:
        web = WebFolder(f"{site.url}/my stores")
        assert web.get("é.bin") == b"12345"
        with WebFolder(f"{site.url}/my%20stores").opened("é.bin") as file:
            assert file.part(3, 2) == b"45"


def test_parts_of_a_file_are_those_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(range(100)))
    (tmp_path / "empty").write_bytes(b"")
    with serving(tmp_path) as site:
        web, here = WebFolder(site.url), open_place(tmp_path)
        for key, offset, length in [
            ("data", 0, 100),
            ("data", 90, 30),
            ("data", 93, 7),
            ("data", 100, 5),
            ("empty", 0, 4),
        ]:
            with web.opened(key) as there, here.opened(key) as local:
                assert there.size == local.size
                assert there.part(offset, length) == local.part(offset, length)
        assert (web.size("data"), web.size("empty"), web.size("none")) == (100, 0, None)
        assert (web.digest("data"), web.digest("none")) == (here.digest("data"), None)
        assert web.get("empty") == b""
        with pytest.raises(KdcacheError, match="none is missing"):
            web.opened("none").__enter__()
        (tmp_path / "data").write_bytes(bytes(50))
        with web.opened("data") as there, pytest.raises(KdcacheError, match="data has 50 bytes, before it had 100"):
            there.part(0, 10)


def test_connections_are_kept_and_a_page_that_nobody_reads_does_not_spoil_the_next_answer(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    with serving(tmp_path) as site:
        web = WebFolder(site.url)
        for _ in range(5):
            assert web.get("data") == b"data"
            assert web.get("none") is None
        assert site.connections == 1


def test_a_whole_store_is_read_over_a_connection_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is read by new threads: they take the connections that others left."""
    monkeypatch.setenv("KDCACHE_CACHE_LIMIT", "0")
    write_store(tmp_path / "x.kd", make_case(2048))
    for read in (lambda url: store_stats(Store.open(url)), inspect_files):
        with serving(tmp_path) as site:
            read(f"{site.url}/x.kd")
            assert len(site.asked) > 10 * JOBS
            assert site.connections <= JOBS


def test_opening_local_stores_pays_nothing_for_the_web(local: Path) -> None:
    found = loaded(f"from kdcache.store.store import Store\nStore.open({str(local)!r})")
    assert not {"ssl", "http"} & found - loaded("import zarr, numcodecs, pydantic")


def test_a_student_trained_from_a_url_equals_one_trained_from_the_folder(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "cache"))  # other tests may have read these very shards
    limits = {"epochs": 2, "val_set": {"split": "test", "limit": 100}}
    store = Path(stage.store)
    with serving(store.parent) as site:
        url = f"{site.url}/{store.name}@{Store.open(store).content_id}"
        summary = train(student(tmp_path / "web", store=(url,), **limits))
        assert any("classes/c" in key for key, _ in site.asked)
    train(student(tmp_path / "local", store=(stage.store,), **limits))
    assert weights_of(tmp_path / "web") == weights_of(tmp_path / "local")
    assert metrics(tmp_path / "web") == metrics(tmp_path / "local")
    assert summary.epochs == 2
