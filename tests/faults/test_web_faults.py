"""A web server that fails in every way: what is read is true or refused by name, what passes is waited for, nothing
hangs, and no memory is filled."""

import json
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcache.errors import ClosedError, DamagedError, FormatError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.web import WebFolder
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.damage import FIRST, all_reads, rich_store
from tests.kits.stores import all_files
from tests.kits.web import EVER, FAULTS, QUICK, SLOW, STEADY, TRANSIENT, Site, serving, uncached

SECONDS = 30.0
MEMORY = 96 * 2**20  # a record of 64 MiB at most, a piece, and what a store of this size takes
LARGE = ("endless", "endless error", "huge")
SHARD = f"{FIRST}/classes/c/0/1/0"
MANIFEST = "kdcache/manifest.json"
COMMIT = f"kdcache/{FIRST}/commits/000/000001.json"


@dataclass(frozen=True)
class Served:
    """A site that shows a store, what reading it yields, its files, and another origin that nobody may ask."""

    site: Site
    other: Site
    truth: str
    files: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"{self.site.url}/rich.kd"

    def spoil(self, key: str, fault: str, *, spared: int = 0, times: int = EVER) -> None:
        http_requests.PATIENCE = QUICK if fault in SLOW else STEADY
        self.site.counted.clear()
        self.site.faults = {f"rich.kd/{key}": (fault, spared, times)}

    def refusal(self, key: str, fault: str, *, spared: int = 0) -> KdcacheError:
        """The error that reading everything ends with."""
        self.spoil(key, fault, spared=spared)
        with pytest.raises(KdcacheError) as caught:
            all_reads(self.url)  # type: ignore[arg-type]
        return caught.value


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("faults")
    store = rich_store(folder / "rich.kd")
    with serving(folder) as site, serving(folder) as other, uncached():
        site.elsewhere = other.url
        yield Served(site, other, all_reads(store), tuple(all_files(store)))


def faults() -> st.SearchStrategy[tuple[str, int, int]]:
    """(fault, requests that it spares, requests that it spoils): the first, a later one, two of them, or all."""
    often = st.sampled_from([name for name in FAULTS if name not in SLOW])
    name = st.one_of(often, often, often, often, often, often, st.sampled_from(SLOW))
    return st.tuples(name, st.sampled_from([0, 0, 1, 2]), st.sampled_from([1, 1, 2, EVER]))


def read_all(served: Served) -> str | KdcacheError:
    """What reading everything yields, in less than SECONDS and MEMORY."""
    began = time.monotonic()
    if any(name in LARGE for name, *_ in served.site.faults.values()):
        tracemalloc.start()  # it doubles the time
    try:
        return all_reads(served.url)  # type: ignore[arg-type]
    except KdcacheError as error:
        return error
    finally:
        assert tracemalloc.get_traced_memory()[1] < MEMORY
        tracemalloc.stop()
        assert time.monotonic() - began < SECONDS


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data(), fault=faults())
def test_any_fault_of_any_file_is_refused_or_harmless(served: Served, data: st.DataObject, fault: tuple) -> None:
    key = data.draw(st.sampled_from(served.files))
    name, spared, times = fault
    served.spoil(key, name, spared=spared, times=times)
    found = read_all(served)
    if isinstance(found, KdcacheError):
        assert str(found).startswith(served.url) or "http://" in str(found)
        assert not (name in TRANSIENT and times < 3), found
        assert "hidden" not in str(found)
    else:
        assert found == served.truth
    assert served.other.asked == []


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_every_fault_of_a_shard_is_refused_at_each_of_its_requests(served: Served, fault: str) -> None:
    """For each of two views a request asks for the index, and one for a chunk."""
    for spared in (0, 1) if fault in SLOW else (0, 1, 2, 3):
        served.spoil(SHARD, fault, spared=spared)
        found = read_all(served)
        assert isinstance(found, StoreError), (fault, spared)
        assert str(found).startswith(f"{served.url}/{SHARD} ")
    assert served.other.asked == []


@pytest.mark.parametrize("fault", sorted(TRANSIENT))
@pytest.mark.parametrize("key", [MANIFEST, SHARD, COMMIT])
def test_what_passes_is_asked_for_again(served: Served, key: str, fault: str) -> None:
    served.spoil(key, fault, spared=0, times=2)
    assert read_all(served) == served.truth
    assert served.site.counted[f"rich.kd/{key}"] > 2


@pytest.mark.parametrize(
    ("key", "fault", "spared", "kind", "said"),
    [
        (MANIFEST, "404", 0, StoreNotFoundError, "is no store; check the address"),
        (MANIFEST, "410", 0, StoreNotFoundError, "is no store; check the address"),
        (MANIFEST, "403", 0, ClosedError, "answered 403 Forbidden .*; kdcache sends no password"),
        (MANIFEST, "401", 0, ClosedError, "answered 401 Unauthorized .*; kdcache sends no password"),
        (MANIFEST, "418", 0, StoreError, "answered 418 .*, 200 was due; check the address"),
        (MANIFEST, "page", 0, StoreError, "answered 200 OK with a web page, not a file; check the address"),
        (MANIFEST, "huge", 0, FormatError, "announces 1000000000000 bytes, allowed are 16777216"),
        (MANIFEST, "endless", 0, FormatError, "sends more than 16777216 bytes, allowed are 16777216"),
        (MANIFEST, "encoded", 0, StoreError, "came encoded as gzip, asked for was identity"),
        (MANIFEST, "503", 0, StoreError, "answered 503 .*, in 3 tries over .* s; check the address, run the same"),
        (MANIFEST, "429", 0, StoreError, "answered 429 .*, in 3 tries"),
        (MANIFEST, "reset", 0, StoreError, "gave no answer .RemoteDisconnected.*, in 3 tries"),
        (MANIFEST, "drip", 0, StoreError, "gave no answer .TimeoutError: timed out., in 3 tries"),
        (MANIFEST, "cut", 0, StoreError, "broke off after 360 of 720 bytes, in 3 tries"),
        (MANIFEST, "loop", 0, StoreError, "answered 302 Found and points to http://.*/manifest.json; if you trust it"),
        (SHARD, "404", 0, DamagedError, "is missing; publish the store again, whole, or use another copy"),
        (SHARD, "404", 1, DamagedError, "is missing; publish the store again, whole, or use another copy"),
        (SHARD, "no ranges", 0, StoreError, "answered 200 OK to a request for some of its bytes, 206 was due; use"),
        (SHARD, "short", 2, StoreError, "sent .* bytes, asked for were"),
        (SHARD, "other range", 1, StoreError, "answered with range 'bytes .*', asked for were bytes .*; use another"),
        (SHARD, "flip", 2, DamagedError, "does not decode"),
        (SHARD, "page as data", 0, StoreError, "answered with range 'bytes .*/358', asked for were bytes"),
        (SHARD, "page as data", 1, DamagedError, "has 358 bytes, before it had"),
        ("order/c/0", "404", 0, DamagedError, "order/c/0 is missing; restore it from another copy"),
        (f"kdcache/{FIRST}/commits-", "404", 0, DamagedError, "is missing; restore it from another copy"),
        ("kdcache/seals/latest", "404", 0, StoreNotFoundError, "the store is not sealed.*; run kdcache seal"),
        (COMMIT, "404", 0, DamagedError, "000001.json is gone; publish the store again"),
    ],
)  # fmt: skip
def test_each_refusal_says_what_was_found_and_what_to_do(
    served: Served, key: str, fault: str, spared: int, kind: type[KdcacheError], said: str
) -> None:
    key = next(name for name in served.files if name.startswith(key))
    served.spoil(key, fault, spared=spared)
    with pytest.raises(KdcacheError, match=said) as caught:
        all_reads(served.url)  # type: ignore[arg-type]
    assert type(caught.value) is kind
    assert served.url in str(caught.value)


def test_a_redirect_is_named_without_its_query_and_never_followed(served: Served) -> None:
    said = str(served.refusal(MANIFEST, "elsewhere"))
    assert f"points to {served.other.url}/rich.kd/{MANIFEST}; if you trust it, name that address yourself" in said
    assert "token" not in said
    assert served.other.asked == []


def test_an_error_s_body_is_not_read(served: Served) -> None:
    before = served.site.sent
    assert isinstance(served.refusal(SHARD, "endless error"), DamagedError)
    assert served.site.sent - before < 32 * 2**20  # what socket buffers took


def test_a_server_that_asks_to_wait_is_obeyed_within_limits(served: Served, tmp_path: Path) -> None:
    served.spoil(MANIFEST, "503 wait", times=1)
    began = time.monotonic()
    assert Store.open(served.url).every_view == (0, 1, 2)
    assert time.monotonic() - began < 1.0  # it asked for 3600 s


def test_faults_while_verifying_are_found(served: Served) -> None:
    for fault in ("flip", "short", "cut", "404", "endless", "page", "wrong length"):
        served.spoil(SHARD, fault, spared=1)
        found = inspect_files(served.url)
        assert [SHARD in finding.what for finding in found.findings] == [True], fault
    served.site.faults = {}
    assert inspect_files(served.url).whole


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        url = site.url
        site.shutdown()
        site.server_close()
        with pytest.raises(StoreError, match=f"{url}/store.kd/{MANIFEST} gave no answer .ConnectionRefusedError"):
            Store.open(f"{url}/store.kd")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(100))
    with serving(tmp_path) as site:
        web = WebFolder(site.url)
        assert web.size("data") == 100
        for size in (99, 101):
            (tmp_path / "data").write_bytes(bytes(size))
            with pytest.raises(DamagedError, match="before it had 100"):
                web.digest("data")


def test_a_small_lie_about_a_manifest_is_refused(served: Served, tmp_path: Path) -> None:
    """A server may answer with another store's records: the seal's identity does not fit them."""
    copy = Path(shutil.copytree(served.site.folder / "rich.kd", tmp_path / "rich.kd"))
    record = json.loads((copy / MANIFEST).read_bytes())
    record["identity"]["teacher"]["weights"] = "other"
    (copy / MANIFEST).write_text(json.dumps(record))
    with serving(tmp_path) as site, pytest.raises(DamagedError, match="seals identity"):
        Store.open(f"{site.url}/rich.kd")
