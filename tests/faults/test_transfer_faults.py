"""Push and pull where the network fails or the process is killed: never other bytes, and the same command goes on."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdcache.base.progress import silent
from kdcache.errors import DamagedError, KdcacheError, MissingBlockError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.archive import Archive
from kdcache.places.folder import Folder
from kdcache.sharing.export import export_store
from kdcache.sharing.push_pull import pull, push
from kdcache.sharing.sealed_files import sealed_files
from kdcache.sharing.transfer import copy_sealed
from kdcache.store.manifest import Card
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.bucket import PATIENT, Asked, Proxy, environment, objects
from tests.kits.damage import FIRST, all_reads, rich_store
from tests.kits.forks import forks
from tests.kits.http_faults import FAULTS, HARMLESS, OUTLASTED, REFUSED, SEEN, UNSEEN, cases
from tests.kits.http_speakers import Speaker, speaking
from tests.kits.stores import all_files, create_store, make_case, write_views

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface-hub's use of httpx2
SHARD = "views-00000-00001/classes/c/0/0/0"
SEAL = "kdcache/seals/{}.json"
CLASSES = f"{FIRST}/classes/c/0/1/0"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed store of thirty-one files."""
    case = make_case(70, views=1)
    store = create_store(tmp_path_factory.mktemp("small") / "small.kd", case)
    write_views(store, 0, case.logits[:1])
    store.seal()
    store.write_card(Card(name="small"))
    return Path(store.folder.root)


@pytest.fixture(scope="module", params=["web", "hub", "bucket"])
def speaker(request: pytest.FixtureRequest, small: Path) -> Iterator[Speaker]:
    with speaking(request.param, small, lambda: request.getfixturevalue("s3_server_")) as speaker:
        yield speaker


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("rich") / "rich.kd")


def refused(call: Callable[[], object]) -> KdcacheError | None:
    """The error of ours that a call ends with, if any."""
    try:
        call()
    except KdcacheError as error:
        return error
    return None


def test_a_pull_outlasts_what_passes(speaker: Speaker, small: Path, tmp_path: Path) -> None:
    """Every fault that may pass meets a file of its own, once. Bytes that are not the seal's are fetched again too."""
    wanted = {fault: row.wants(speaker.name, "pull") for fault, row in FAULTS.items()}
    passing = [fault for fault, outcome in wanted.items() if outcome in (OUTLASTED, UNSEEN, HARMLESS)]
    data = [key for key in sorted(all_files(small)) if "/c/" in key]
    for number in range(3):
        some = passing[number::3]
        spoiled = dict(zip(some, data[: len(some)], strict=True))
        speaker.spoil("stall", times=1)  # its patience
        for fault, key in spoiled.items():
            speaker.also(fault, key, times=1)
        pull(speaker.url, str(tmp_path / f"{number}.kd"))
        assert all_files(tmp_path / f"{number}.kd") == all_files(small)
        for fault, key in spoiled.items():
            assert speaker.asked(key) > 1 or wanted[fault] == HARMLESS, (fault, key)


@pytest.mark.parametrize(("speaker", "fault"), cases("pull", *SEEN), indirect=["speaker"])
def test_a_pull_that_is_refused_leaves_no_seal_and_goes_on(
    speaker: Speaker, small: Path, tmp_path: Path, fault: str
) -> None:
    """Faults for ever, those that would pass once and those after which a file is fetched again among them."""
    copy = tmp_path / "copy.kd"
    speaker.spoil(fault, SHARD)
    error = refused(lambda: pull(speaker.url, str(copy)))
    assert error is not None
    speaker.require_named(error)
    speaker.require_kept_to()
    assert not (copy / "kdcache/seals").exists()
    assert isinstance(refused(lambda: Store.open(copy)), StoreNotFoundError)
    speaker.heal()
    pull(speaker.url, str(copy))
    assert all_files(copy) == all_files(small)


def test_a_byte_that_is_flipped_once_is_fetched_again_and_for_ever_refused(
    speaker: Speaker, small: Path, tmp_path: Path
) -> None:
    speaker.spoil("flip", SHARD, times=1)
    pull(speaker.url, str(tmp_path / "once.kd"))
    assert speaker.asked(SHARD) == 2
    assert all_files(tmp_path / "once.kd") == all_files(small)
    speaker.spoil("flip", SHARD)
    with pytest.raises(DamagedError, match=f"{SHARD} has sha256 .*, the seal lists .*; (push|publish) the store again"):
        pull(speaker.url, str(tmp_path / "ever.kd"))
    assert not (tmp_path / "ever.kd/kdcache/seals").exists()
    with pytest.raises(StoreNotFoundError):
        Store.open(tmp_path / "ever.kd")


@pytest.mark.parametrize(
    ("key", "fault", "spared"),
    [
        ("kdcache/manifest.json", "flip", 1),  # the second time: the first was held against the seal
        ("kdcache/manifest.json", "page as data", 1),
        ("kdcache/card.json", "page as data", 0),
        ("kdcache/seals/latest", "flip", 0),
        (SEAL, "flip", 0),
    ],
)
def test_no_spoiled_record_is_sealed_into_a_copy(
    speaker: Speaker, small: Path, tmp_path: Path, key: str, fault: str, spared: int
) -> None:
    speaker.spoil(fault, key.format((Store.open(small).content_id or "")[:32]), spared=spared, times=1)
    assert refused(lambda: pull(speaker.url, str(tmp_path / "copy.kd"))) is not None
    assert not (tmp_path / "copy.kd/kdcache").exists()
    pull(speaker.url, str(tmp_path / "copy.kd"))
    assert all_files(tmp_path / "copy.kd") == all_files(small)


@pytest.mark.parametrize("key", ["kdcache/manifest.json", "kdcache/seals/latest", SEAL])
@pytest.mark.parametrize("fault", ["403", "404", "503"])
def test_records_that_do_not_come_end_a_pull_and_503_once_does_not(
    speaker: Speaker, small: Path, tmp_path: Path, key: str, fault: str
) -> None:
    name = key.format((Store.open(small).content_id or "")[:32])
    speaker.spoil(fault, name, times=1)
    assert (refused(lambda: pull(speaker.url, str(tmp_path / "once.kd"))) is None) == (fault == "503")
    speaker.spoil(fault, name)
    assert refused(lambda: pull(speaker.url, str(tmp_path / "ever.kd"))) is not None
    assert not (tmp_path / "ever.kd/kdcache").exists()


@pytest.mark.parametrize("speaker", ["bucket"], indirect=True)
def test_a_push_outlasts_what_passes(speaker: Speaker, s3_server_: Proxy, small: Path) -> None:
    """Every fault that may pass, and those that spoil what nobody needs of an answer, meet a put of their own, once."""
    passing = [fault for fault, row in FAULTS.items() if row.put in (OUTLASTED, HARMLESS)]
    url, files = f"{speaker.url}.passing/{small.name}", all_files(small)
    speaker.spoil("stall", times=1)  # its patience
    for fault, key in zip(passing, sorted(files)[: len(passing)], strict=True):
        speaker.also(fault, key, times=1, method="PUT")
    push(str(small), url)
    assert pushed(s3_server_, url) == files


@pytest.mark.parametrize(("speaker", "fault"), cases("put", REFUSED, speakers=("bucket",)), indirect=["speaker"])
def test_a_push_that_is_refused_seals_nothing_and_goes_on(
    speaker: Speaker, s3_server_: Proxy, small: Path, fault: str
) -> None:
    url, files = f"{speaker.url}.{fault.replace(' ', '-')}/{small.name}", all_files(small)
    speaker.spoil(fault, SHARD, times=1, method="PUT")
    error = refused(lambda: push(str(small), url))
    assert str(error).startswith(f"{url}/{SHARD} ")
    assert speaker.other.asked == []
    assert isinstance(refused(lambda: Store.open(url)), StoreNotFoundError)
    assert pushed(s3_server_, url).items() <= files.items()
    push(str(small), url)
    assert pushed(s3_server_, url) == files


def pushed(s3: Proxy, url: str) -> dict[str, bytes]:
    """The files beneath an address, read past everybody."""
    prefix = f"{url.removeprefix('s3://team/')}/"
    return {key.removeprefix(prefix): data for key, data in objects(s3, prefix).items()}


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
    file = _FlippedOnce((tmp_path / "x.zip").read_bytes(), (rich / CLASSES).read_bytes())
    archive, target = Archive("https://host/x.zip", lambda: file, far=True), Folder(tmp_path / "copy.kd")
    copy_sealed(archive, target, sealed_files(archive, None), progress=silent, label="pulling")
    assert file.left == []
    assert all_reads(tmp_path / "copy.kd") == all_reads(rich)


@pytest.fixture
def pushed_rich(rich: Path, s3: Proxy) -> str:
    """The address of a store of seventy-nine files in the bucket."""
    push(str(rich), "s3://team/faults/rich.kd")
    s3.heal()
    return "s3://team/faults/rich.kd"


def _child(call: str, given: tuple[str, str], env: dict[str, str], without: tuple[str, ...]) -> None:
    os.environ.update(env)
    http_requests.PATIENCE = PATIENT
    {"push": push, "pull": pull}[call](*given, jobs=2, without=without)


def killed_at(
    s3: Proxy, call: str, given: tuple[str, str], method: str, count: int, without: tuple[str, ...] = ()
) -> int:
    """SIGKILL a process at its nth request of a kind, as it is made; how many were made."""
    process = forks.Process(target=_child, args=(call, given, environment(s3), without))
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
    rich: Path, pushed_rich: str, s3: Proxy, tmp_path: Path, count: int
) -> None:
    copy = tmp_path / "copy.kd"
    assert killed_at(s3, "pull", (pushed_rich, str(copy)), "GET", count) >= count
    with pytest.raises(StoreNotFoundError):
        Store.open(copy)
    pull(pushed_rich, str(copy))
    assert inspect_files(str(copy)).whole
    assert {name: data for name, data in all_files(copy).items() if ".tmp-" not in name}.items() <= all_files(
        rich
    ).items()
    assert all_reads(copy) == all_reads(rich)


@pytest.mark.parametrize("count", [1, 40, 70, 71, 72, 73, 74])
def test_a_push_without_taps_that_is_killed_is_never_taken_for_a_whole_one(
    rich: Path, place: str, s3: Proxy, count: int
) -> None:
    """Then the taps are pushed, and that push is killed too."""
    assert killed_at(s3, "push", (str(rich), place), "PUT", count, without=("taps",)) >= min(count, 73)
    pin = f"{place}@{Store.open(rich).content_id}"
    for without, kills in ((("taps",), 0), ((), 3)):
        if kills:
            killed_at(s3, "push", (str(rich), place), "PUT", kills)
        try:
            with pytest.raises(MissingBlockError, match="without taps layer1"):
                Store.open(pin).load(0, [0], taps=["layer1"])
        except StoreNotFoundError:
            assert not kills
        push(str(rich), place, without=without)
        assert inspect_files(place).whole
    assert all_reads(place) == all_reads(rich)  # type: ignore[arg-type]
