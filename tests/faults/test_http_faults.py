"""Whoever speaks HTTP gets every spoiled answer: what is read is true or refused by name, what passes is waited for,
nothing hangs, and no memory is filled."""

import re
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.canonical import sha256_hex
from kdcache.errors import DamagedError, FormatError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.opening import open_place
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.damage import FIRST, KINDS, SECOND, STRUCK, all_reads, rich_store
from tests.kits.http_answers import WORDS
from tests.kits.http_faults import ABSENT, FAULTS, HARMLESS, OUTLASTED, SEEN, UNSEEN, UNTRIED, cases
from tests.kits.http_server import EVER
from tests.kits.http_speakers import Speaker, speaking
from tests.kits.stores import all_files
from tests.kits.web import STEADY

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface-hub's use of httpx2
SECONDS = 60.0
MEMORY = 96 * 2**20  # a record of 64 MiB at most, a piece, and what a store of this size takes
MANIFEST = "kdcache/manifest.json"
SHARD = f"{FIRST}/classes/c/0/1/0"
COMMIT = f"kdcache/{FIRST}/commits/000/000001.json"
ROWS = np.setdiff1d(np.arange(64, 128), STRUCK)  # of the block of that shard and commit
DATA = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("faults") / "rich.kd")


@pytest.fixture(scope="module", params=["web", "hub", "bucket"])
def speaker(request: pytest.FixtureRequest, rich: Path) -> Iterator[Speaker]:
    with speaking(request.param, rich, lambda: request.getfixturevalue("s3_server_")) as speaker:
        yield speaker


def each(call: str, *outcomes: str, **some: Any) -> Any:
    """A test of each speaker and fault."""
    return pytest.mark.parametrize(("speaker", "fault"), cases(call, *outcomes, **some), indirect=["speaker"])


def outcome(call: Callable[[], Any], *, large: bool = False) -> Any:
    """The result of a call, or the error of ours that it ends with; in less than SECONDS and MEMORY."""
    began = time.monotonic()
    if large:
        tracemalloc.start()  # it doubles the time
    try:
        return call()
    except KdcacheError as error:
        return error
    finally:
        assert tracemalloc.get_traced_memory()[1] < MEMORY
        tracemalloc.stop()
        assert time.monotonic() - began < SECONDS


def block(url: str) -> str:
    """Two views of one block of a store."""
    store = Store.open(url)
    return sha256_hex(b"".join(store.load(view, ROWS).arrays["classes"].tobytes() for view in (0, 1)))


def requests(rich: Path, fresh: str) -> dict[str, tuple[str, Callable[[Any], object], object]]:
    """A kind of request -> the file, how a place is asked for it, and what is right."""
    shard, record = (rich / SHARD).read_bytes(), (rich / MANIFEST).read_bytes()
    return {
        "whole": (MANIFEST, lambda place: place.get(MANIFEST), record),
        "part": (SHARD, lambda place: place.span(SHARD, 3, 100, len(shard)), shard[3:101]),
        "put": (fresh, lambda place: place.put_new(fresh, DATA), True),
    }


@each("whole", *SEEN, HARMLESS, alike=())
def test_a_request_comes_to_what_the_table_wants(speaker: Speaker, rich: Path, fault: str) -> None:
    """A whole file, a part of one, and a put to a bucket: spoiled less often than there are tries, then for ever."""
    row = FAULTS[fault]
    for times in (1 if row.slow else 2, EVER):
        speaker.spoil(fault, times=times)
        place: Any = open_place(speaker.url)
        for call, (key, ask, truth) in requests(rich, f"{fault}-{times}".replace(" ", "-")).items():
            wanted = row.wants(speaker.name, call)
            if wanted == UNTRIED or (call == "put" and (speaker.name != "bucket" or (row.slow and times == EVER))):
                continue  # a put that stalls may take 15 times as long
            speaker.spoil(fault, key, times=times, method="PUT" if call == "put" else "GET")
            found = outcome(partial(ask, place), large=row.large)
            said = f"{fault}, {call}, {times} times: {found!r}, {wanted}"
            if wanted == HARMLESS or (wanted == OUTLASTED and times < EVER):
                assert found == truth, said
            elif wanted == ABSENT:
                assert found is None, said
            elif wanted == UNSEEN:
                assert type(found) is type(truth), said
                assert found != truth, said
            else:
                assert isinstance(found, StoreError), said
                assert re.search(row.says(speaker.name), f"{type(found).__name__}: {found}"), said
                assert WORDS not in str(found)
                speaker.require_named(found, key)
            speaker.require_kept_to()
            speaker.heal()
            assert call != "put" or place.get(key) in ((DATA,) if found is True else (None, DATA))


@each("part", *SEEN)
def test_a_spoiled_shard_is_refused_at_each_of_its_requests(speaker: Speaker, fault: str) -> None:
    """For each of two views a request asks for the index, and one for a chunk. Sums find what a request cannot tell."""
    row = FAULTS[fault]
    for spared in range(1 if row.slow else {"web": 4, "hub": 2, "bucket": 1}[speaker.name]):
        speaker.spoil(fault, SHARD, spared=spared)
        found = outcome(lambda: block(speaker.url), large=row.large)
        assert isinstance(found, StoreError), (fault, spared)
        speaker.require_named(found, "" if row.slow else SHARD)
        speaker.require_kept_to()


@each("whole", OUTLASTED)
def test_what_passes_is_asked_for_again(speaker: Speaker, rich: Path, fault: str) -> None:
    times = 1 if FAULTS[fault].slow else 2
    speaker.spoil(fault, MANIFEST, SHARD, COMMIT, times=times)
    assert outcome(lambda: block(speaker.url)) == block(str(rich))
    assert min(map(speaker.asked, (MANIFEST, SHARD, COMMIT))) > times


@each("whole", *SEEN, HARMLESS, speakers=("web",))
def test_any_fault_of_any_file_is_refused_or_harmless(speaker: Speaker, rich: Path, fault: str) -> None:
    """Files by chance; spared and spoiled are the first request, a later one, two of them, or all."""
    row, files = FAULTS[fault], sorted(all_files(rich))
    rng = np.random.RandomState(zlib.crc32(fault.encode()))
    for _ in range(2):
        kind = KINDS[rng.randint(len(KINDS))]
        key = rng.choice([name for name in files if name.startswith(kind)])
        spared, times = rng.choice([0, 0, 1, 2]), rng.choice([1, 1, 2, EVER])
        speaker.spoil(fault, key, spared=spared, times=times)
        found = outcome(lambda: all_reads(speaker.url), large=row.large)  # type: ignore[arg-type]
        if isinstance(found, KdcacheError):
            speaker.require_named(found)
            assert row.whole != OUTLASTED or times == EVER, (found, key, spared, times)
        else:
            assert found == all_reads(rich), (key, spared, times)
        speaker.require_kept_to()


@pytest.mark.parametrize(
    ("key", "fault", "spared", "kind", "said"),
    [
        (MANIFEST, "404", 0, StoreNotFoundError, "is no store; check the address"),
        (MANIFEST, "huge", 0, FormatError, "1000000000000 bytes, allowed are 16777216"),
        (SHARD, "flip", 1, DamagedError, "does not decode"),
        (f"kdcache/{FIRST}/commits-", "404", 0, DamagedError, "is missing; restore it from another copy"),
    ],
)
def test_a_store_says_which_of_its_files_is_spoiled_and_what_to_do(
    speaker: Speaker, rich: Path, key: str, fault: str, spared: int, kind: type[KdcacheError], said: str
) -> None:
    key = next(name for name in all_files(rich) if name.startswith(key))
    speaker.spoil(fault, key, spared=spared)
    with pytest.raises(KdcacheError, match=said) as caught:
        all_reads(speaker.url)  # type: ignore[arg-type]
    assert type(caught.value) is kind
    assert speaker.url in str(caught.value)


def test_faults_while_verifying_are_found(speaker: Speaker, rich: Path) -> None:
    """One of each kind, each in a shard of its own."""
    kinds = ("flip", "short", "cut", "404", "endless", "page", "wrong length")
    shards = [f"{FIRST}/{name}/c/0/{at}/0" for name in ("classes", "gaps") for at in (0, 1, 2)] + [
        f"{SECOND}/pixels/c/0/1"
    ]
    spoiled = dict(zip(shards, kinds, strict=True))
    speaker.heal()
    for key, fault in spoiled.items():
        speaker.also(fault, key)
    found = inspect_files(speaker.url)
    assert sorted(speaker.named_in(finding.what, spoiled) for finding in found.findings) == sorted(spoiled)
    speaker.heal()
    assert inspect_files(speaker.url).whole


@pytest.mark.parametrize("speaker", ["web", "hub"], indirect=True)
def test_the_body_of_an_error_is_not_read(speaker: Speaker) -> None:
    speaker.spoil("endless error", SHARD)
    before = sum(server.sent for server in speaker.servers)
    assert isinstance(outcome(lambda: block(speaker.url)), StoreError)
    assert sum(server.sent for server in speaker.servers) - before < 32 * 2**20  # what socket buffers took


@pytest.mark.parametrize("speaker", ["web", "hub"], indirect=True)
def test_a_server_that_asks_to_wait_is_obeyed_within_limits(
    speaker: Speaker, rich: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker.spoil("503 wait", MANIFEST, times=1)
    monkeypatch.setattr(http_requests, "PATIENCE", replace(STEADY, longest_pause=0.3))
    began = time.monotonic()
    assert block(speaker.url) == block(str(rich))
    assert 0.3 <= time.monotonic() - began < SECONDS  # it asked for 3600 s
