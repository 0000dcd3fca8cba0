"""Push and pull where the network fails or the process is killed: never other bytes, and the same command goes on."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kdcache.base.progress import silent
from kdcache.errors import DamagedError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.archive import Archive
from kdcache.places.folder import Folder
from kdcache.sharing.export import export_store
from kdcache.sharing.push_pull import pull, push
from kdcache.sharing.sealed_files import sealed_files
from kdcache.sharing.transfer import copy_sealed
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.bucket import FAULTS, PASSING, PATIENT, Asked, Proxy, environment, objects
from tests.kits.damage import FIRST, all_reads, rich_store
from tests.kits.forks import forks
from tests.kits.stores import all_files
from tests.kits.web import EVER, TRANSIENT, serving
from tests.kits.web import FAULTS as WEB_FAULTS

KEYS = (f"{FIRST}/classes/c/0/1/0", "order/c/0", "kdcache/manifest.json", f"kdcache/{FIRST}/commits-", "seals/latest")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("rich") / "rich.kd")


@pytest.fixture
def pushed(rich: Path, s3: Proxy) -> str:
    """The address of that store in the bucket."""
    push(str(rich), "s3://team/faults/rich.kd")
    s3.heal()
    return "s3://team/faults/rich.kd"


def outcome(call: Callable[[], object]) -> KdcacheError | None:
    try:
        call()
    except KdcacheError as error:
        return error
    return None


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_any_fault_of_a_pull_is_told_or_passes(rich: Path, pushed: str, s3: Proxy, tmp_path: Path, fault: str) -> None:
    names = list(all_files(rich))
    with serving(tmp_path) as other:
        s3.elsewhere = other.url
        for number, key in enumerate(KEYS[:4:3] if fault != "stall" else KEYS[:1]):
            name = next(name for name in names if key in name)
            copy = tmp_path / f"{number}.kd"
            s3.spoil("GET", name, fault, times=1)
            error = outcome(lambda copy=copy: pull(pushed, str(copy)))  # type: ignore[misc]
            if error is None:
                assert all_reads(copy) == all_reads(rich)
            else:
                assert fault not in PASSING or (fault, number) == ("short", 1), error  # a record's size is not foretold
                assert outcome(lambda copy=copy: Store.open(copy)) is not None, "a seal stands over a copy that failed"
                s3.faults = {}
                pull(pushed, str(copy))
                assert inspect_files(str(copy)).whole


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_any_fault_of_a_push_is_told_or_passes(rich: Path, place: str, s3: Proxy, tmp_path: Path, fault: str) -> None:
    names = list(all_files(rich))
    with serving(tmp_path) as other:
        s3.elsewhere = other.url
        for number, key in enumerate(KEYS[:1]):
            name = next(name for name in names if key in name)
            s3.spoil("PUT", name, fault, times=1)
            error = outcome(lambda number=number: push(str(rich), f"{place}/push{number}"))  # type: ignore[misc]
            assert error is None or fault not in PASSING, error
            s3.faults = {}
            if error is not None:
                assert isinstance(outcome(lambda number=number: Store.open(f"{place}/push{number}")), StoreError)  # type: ignore[misc]
                push(str(rich), f"{place}/push{number}")
            found = objects(s3, f"{place.removeprefix('s3://team/')}/push{number}")
            assert {key.split(f"/push{number}/")[1] for key in found} <= set(names)
            assert all(data == (rich / key.split(f"/push{number}/")[1]).read_bytes() for key, data in found.items())
        assert other.asked == []


@pytest.mark.parametrize("fault", sorted(set(WEB_FAULTS) - {"drip", "endless", "endless error", "huge", "stall"}))
def test_any_fault_of_a_pull_over_http_is_told_or_passes(rich: Path, tmp_path: Path, fault: str) -> None:
    with serving(rich.parent) as site, serving(tmp_path) as other:
        site.elsewhere = other.url
        for number, key in enumerate(KEYS[:2]):
            name = next(name for name in all_files(rich) if key in name)
            for times in (1, EVER):
                site.counted.clear()
                site.faults = {f"rich.kd/{name}": (fault, 0, times)}
                copy = tmp_path / f"{number}-{times}.kd"
                error = outcome(lambda copy=copy: pull(f"{site.url}/rich.kd", str(copy)))  # type: ignore[misc]
                if error is None:
                    assert all_reads(copy) == all_reads(rich)
                else:
                    assert fault not in TRANSIENT or times == EVER
                    assert not (copy / "kdcache/seals").exists()
        assert other.asked == []


def test_a_byte_that_is_flipped_once_is_fetched_again_and_for_ever_refused(
    rich: Path, pushed: str, s3: Proxy, tmp_path: Path
) -> None:
    s3.spoil("GET", KEYS[0], "flip", times=1)
    pull(pushed, str(tmp_path / "once.kd"))
    assert all_reads(tmp_path / "once.kd") == all_reads(rich)
    s3.spoil("GET", KEYS[0], "flip")
    with pytest.raises(DamagedError, match=f"{KEYS[0]} has sha256 .*, the seal lists .*; push the store again"):
        pull(pushed, str(tmp_path / "ever.kd"))
    assert not (tmp_path / "ever.kd/kdcache/seals").exists()
    with pytest.raises(StoreNotFoundError):
        Store.open(tmp_path / "ever.kd")


@pytest.mark.parametrize(
    ("key", "fault", "spared"),
    [
        ("kdcache/manifest.json", "flip", 1),  # the second time: the first was held against the seal
        ("kdcache/manifest.json", "page as data", 1),
        ("kdcache/card.json", "page as data", 0),
        ("seals/latest", "flip", 0),
        ("seals/{}.json", "flip", 0),
    ],
)
def test_no_spoiled_record_is_sealed_into_a_copy(
    rich: Path, pushed: str, s3: Proxy, tmp_path: Path, key: str, fault: str, spared: int
) -> None:
    content_id = Store.open(rich).content_id or ""
    s3.spoil("GET", key.format(content_id[:32]), fault, spared=spared, times=1)
    with pytest.raises(KdcacheError):
        pull(pushed, str(tmp_path / "copy.kd"))
    assert not (tmp_path / "copy.kd/kdcache").exists()
    pull(pushed, str(tmp_path / "copy.kd"))
    assert all_reads(tmp_path / "copy.kd") == all_reads(rich)


@pytest.mark.parametrize("key", ["kdcache/manifest.json", "seals/latest", "seals/{}.json"])
@pytest.mark.parametrize("fault", ["403", "404", "503"])
def test_records_that_do_not_come_end_a_pull_and_503_once_does_not(
    rich: Path, pushed: str, s3: Proxy, tmp_path: Path, key: str, fault: str
) -> None:
    name = key.format((Store.open(rich).content_id or "")[:32])
    s3.spoil("GET", name, fault, times=1)
    error = outcome(lambda: pull(pushed, str(tmp_path / "once.kd")))
    assert (error is None) == (fault == "503")
    s3.spoil("GET", name, fault)
    assert outcome(lambda: pull(pushed, str(tmp_path / "ever.kd"))) is not None
    assert not (tmp_path / "ever.kd/kdcache").exists()


class _FlippedOnce:
    """A far zip file of which one part comes with a flipped bit the first time."""

    def __init__(self, data: bytes, spoiled: bytes) -> None:
        self.data, self.size = data, len(data)
        self.left = [(data.index(spoiled), len(spoiled))]

    def part(self, offset: int, length: int) -> bytes:
        data = self.data[offset : offset + length]
        if (offset, length) in self.left:
            self.left.remove((offset, length))
            return bytes([data[0] ^ 1]) + data[1:]
        return data


def test_a_byte_of_a_far_zip_file_that_is_flipped_once_is_fetched_again(rich: Path, tmp_path: Path) -> None:
    export_store(str(rich), str(tmp_path / "x.zip"))
    file = _FlippedOnce((tmp_path / "x.zip").read_bytes(), (rich / KEYS[0]).read_bytes())
    archive, target = Archive("https://host/x.zip", lambda: file, far=True), Folder(tmp_path / "copy.kd")
    copy_sealed(archive, target, sealed_files(archive, None), progress=silent, label="pulling")
    assert file.left == []
    assert all_reads(tmp_path / "copy.kd") == all_reads(rich)


def _child(call: str, given: tuple[str, str], env: dict[str, str]) -> None:
    os.environ.update(env)
    http_requests.PATIENCE = PATIENT
    {"push": push, "pull": pull}[call](*given, jobs=2)


def killed_at(s3: Proxy, call: str, given: tuple[str, str], method: str, count: int) -> int:
    """SIGKILL a process at its nth request of a kind, as it is made; how many were made."""
    process = forks.Process(target=_child, args=(call, given, environment(s3)))
    seen = 0

    def before(asked: Asked) -> None:
        nonlocal seen
        seen += asked.method == method
        if asked.method == method and seen == count:
            process.kill()

    s3.before = before
    process.start()
    process.join(60)
    s3.before = lambda asked: None
    assert process.exitcode in (0, -9)
    return seen


@pytest.mark.parametrize("count", [1, 40, 76, 77, 78])
def test_a_push_that_is_killed_at_any_file_goes_on(rich: Path, place: str, s3: Proxy, count: int) -> None:
    assert killed_at(s3, "push", (str(rich), place), "PUT", count) >= count
    try:
        there = all_reads(place)  # type: ignore[arg-type]
    except StoreNotFoundError:
        there = "none"
    assert there in ("none", all_reads(rich))
    assert there == "none" or count > 75  # once the manifest is there, all blocks are: whole, and not sealed yet
    shared = push(str(rich), place)
    assert shared.copied_files <= shared.files - count + 3  # two threads, and one answer that nobody heard
    assert inspect_files(place).whole
    assert all_reads(place) == all_reads(rich)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [3, 30, 54])
def test_a_pull_that_is_killed_at_any_file_goes_on(
    rich: Path, pushed: str, s3: Proxy, tmp_path: Path, count: int
) -> None:
    copy = tmp_path / "copy.kd"
    assert killed_at(s3, "pull", (pushed, str(copy)), "GET", count) >= count
    with pytest.raises(StoreNotFoundError):
        Store.open(copy)
    pull(pushed, str(copy))
    assert inspect_files(str(copy)).whole
    assert {name: data for name, data in all_files(copy).items() if ".tmp-" not in name}.items() <= all_files(
        rich
    ).items()
    assert all_reads(copy) == all_reads(rich)
