"""Stores in data set repositories of a stand-in hub: pushed, read, pulled; limits, faults, and where the token goes."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from kdcache.base.canonical import sha256_hex
from kdcache.base.progress import StopRequest
from kdcache.base.view_span import ViewSpan
from kdcache.cli.app import main
from kdcache.errors import (
    InterruptedRunError,
    InvalidInputError,
    KdcacheError,
    MissingBlockError,
    StoreError,
    StoreNotFoundError,
)
from kdcache.places.hub import HubAddress, find_hub, split_hub
from kdcache.places.opening import open_place
from kdcache.sharing import hub_push
from kdcache.sharing.export import export_store
from kdcache.sharing.push_pull import pull, push
from kdcache.sharing.sealed_files import sealed_files
from kdcache.store.layout import PARTIAL
from kdcache.store.seals import split_pin
from kdcache.store.segment_layout import segment_layout
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits import hub_stub
from tests.kits.damage import FIRST, all_reads
from tests.kits.http_server import EVER
from tests.kits.hub_server import TOKEN, Repository
from tests.kits.hub_stub import URL, Hub, sealed
from tests.kits.stores import all_files, make_case, write_store

hub, local, pushed = hub_stub.hub, hub_stub.local, hub_stub.pushed
SHARD = f"{FIRST}/classes/c/0/1/0"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface-hub's use of httpx2


def test_a_pushed_store_is_read_verified_and_pulled(hub: Hub, local: Path, tmp_path: Path) -> None:
    shared = push(str(local), URL)
    listing = sealed_files(open_place(local), None)
    assert (shared.files, shared.copied_files) == (len(listing.files), len(listing.files))
    assert "was made, private" in shared.note
    repository = hub.repositories["team/soft"]
    assert repository.private
    assert {path.removeprefix("rich.kd/") for path in repository.files} - {".gitattributes"} == set(sealed(local))
    assert f"rich.kd/{SHARD}" in repository.large
    assert "rich.kd/zarr.json" not in repository.large
    for url in (URL, shared.pin):
        assert Store.open(url).content_id == listing.content_id
        assert all_reads(url) == all_reads(local)
        assert inspect_files(url).whole
    pull(shared.pin, str(tmp_path / "pulled.kd"))
    assert sealed(tmp_path / "pulled.kd") == sealed(local)
    assert all_reads(tmp_path / "pulled.kd") == all_reads(local)
    assert inspect_files(str(tmp_path / "pulled.kd")).whole


def test_a_store_without_taps(hub: Hub, local: Path, tmp_path: Path) -> None:
    """Its record comes with the seal; the rest, pushed later, empties it; a push without them then takes nothing."""
    shared = push(str(local), URL, without=["taps"])
    commits = hub.repositories["team/soft"].commits
    assert [f"rich.kd/{PARTIAL}" in files for _, files in commits] == [False] * (len(commits) - 1) + [True]
    assert not any("/taps." in path for path in hub.repositories["team/soft"].files)
    assert "taps layer1 were not copied" in shared.note
    with pytest.raises(MissingBlockError, match=r"soft/rich\.kd is a copy without taps layer1 of views 0:2"):
        all_reads(URL)
    found = inspect_files(URL)
    assert (found.whole, len(found.notes)) == (True, 2)
    pull(shared.pin, str(tmp_path / "pulled.kd"), without=["taps"])
    assert inspect_files(str(tmp_path / "pulled.kd")).notes == found.notes
    assert push(str(local), URL, without=["taps"]).copied_files == 0
    push(str(local), URL)
    assert all_reads(URL) == all_reads(local)
    assert hub.repositories["team/soft"].files[f"rich.kd/{PARTIAL}"] == b'{"left_out":[]}\n'
    assert push(str(local), URL, without=["taps"]).copied_files == 0
    assert (all_reads(URL), inspect_files(URL).notes) == (all_reads(local), ())


def test_the_seal_comes_last_and_latest_with_it(hub: Hub, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_push, "COMMIT_FILES", 20)
    push(str(local), URL)
    commits = hub.repositories["team/soft"].commits
    assert len(commits) > 4
    sealing = {f"rich.kd/kdcache/seals/{name}" for name in ("latest", f"{Store.open(local).content_id[:32]}.json")}
    assert set(commits[-1][1]) - set(commits[-2][1]) == sealing
    sizes = [len(after[1]) - len(before[1]) for before, after in pairwise(commits)]
    assert max(sizes) <= 20


def test_the_token_goes_to_the_hub_alone(hub: Hub, local: Path, tmp_path: Path) -> None:
    push(str(local), URL)
    all_reads(URL)
    pull(URL, str(tmp_path / "pulled.kd"))
    assert {(each.server, each.token) for each in hub.asked} == {("hub", True), ("second", False)}
    written = b"".join(all_files(tmp_path / "pulled.kd").values()) + repr(hub.repositories["team/soft"]).encode()
    for secret in (TOKEN, "X-Signature", hub.main.url):
        assert secret.encode() not in written
    assert TOKEN not in repr(find_hub())


def test_reading_asks_for_parts_and_keeps_to_one_commit(pushed: Hub, local: Path) -> None:
    store = Store.open(URL)
    store.read(0, [0, 1, 2])
    assert [each for each in pushed.asked if each.server == "second"]
    repository = pushed.repositories["team/soft"]
    emptied = {path: data for path, data in repository.files.items() if f"{FIRST}/" not in path}
    repository.commits.append(("f" * 40, emptied))
    assert all_reads_of(store) == all_reads_of(Store.open(local))
    assert [each.path for each in pushed.asked if "/resolve/main/" in each.path] == [pushed.asked[0].path]
    with pytest.raises(KdcacheError):
        all_reads_of(Store.open(URL))


def all_reads_of(store: Store) -> bytes:
    return b"".join(store.load(view, range(70)).arrays["classes"].tobytes() for view in store.every_view)


def test_an_address_that_expired_is_asked_for_again(pushed: Hub, local: Path) -> None:
    place = open_place(URL)
    with place.opened(SHARD) as file:
        first = file.part(0, 10)
        pushed.expired = 1
        assert file.part(0, 10) == first == (local / SHARD).read_bytes()[:10]
        pushed.expired = EVER
        with pytest.raises(StoreError, match=r"answered 403.*; run the same command again later") as error:
            file.part(0, 10)
    assert "X-Signature" not in str(error.value)


def test_an_archive_in_a_repository_is_read_as_it_is(hub: Hub, local: Path, tmp_path: Path) -> None:
    export_store(str(local), str(tmp_path / "rich.zip"))
    hub.repositories["team/one"] = repository = Repository(private=False)
    data = (tmp_path / "rich.zip").read_bytes()
    repository.add({"rich.zip": data})
    repository.large.add("rich.zip")
    hub.objects[sha256_hex(data)] = data
    url = f"hf://datasets/team/one/rich.zip@{Store.open(local).content_id}"
    assert all_reads(url) == all_reads(local)
    assert inspect_files(url).whole
    assert not [each for each in hub.asked if each.server == "second" and not each.span]


ADDRESSES = {
    "hf://datasets/o/n": HubAddress("o/n", "main", ""),
    "hf://datasets/o/n/": HubAddress("o/n", "main", ""),
    "hf://datasets/o/n/a/b.kd": HubAddress("o/n", "main", "a/b.kd"),
    "hf://datasets/o/n@v1.0/": HubAddress("o/n", "v1.0", ""),
    "hf://datasets/o/n@v1.0/a": HubAddress("o/n", "v1.0", "a"),
    "hf://datasets/o/n@refs%2Fpr%2F1/a": HubAddress("o/n", "refs/pr/1", "a"),
    "hf://datasets/o/n@refs/pr/1/a": HubAddress("o/n", "refs/pr/1", "a"),
    f"hf://datasets/o/n@{'0a' * 20}/a": HubAddress("o/n", "0a" * 20, "a"),
}


@pytest.mark.parametrize("url", list(ADDRESSES))
def test_addresses_with_and_without_revision_and_pin(url: str) -> None:
    """A revision has a slash behind it and a pin has none: so both may be hex, and both may be there."""
    address = ADDRESSES[url]
    assert split_hub(url) == split_hub(address.text) == address
    pin = "0123456789abcdef" * 4
    assert split_pin(url) == (url, None)
    assert split_pin(f"{url}@{pin}") == (url, pin)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hf://datasets/o", "is no address of a data set repository; write hf://datasets/OWNER/NAME"),
        ("hf://o/n/a", "is no address of a data set repository"),
        ("hf://models/o/n", "is no address of a data set repository"),
        ("hf://datasets/o/n@main", r"ends in @main, which is no pin of 32 hex digits; write .* with a slash behind"),
        ("hf://datasets/o/n/a/../b", "has a path that could lead elsewhere"),
        ("hf://datasets/o/n/a//b", "has a path that could lead elsewhere"),
        ("hf://datasets/../n/a", "is no address|could lead elsewhere"),
    ],
)
def test_other_addresses_are_refused(hub: Hub, url: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        open_place(url)
    assert hub.asked == []


def test_limits_are_refused_before_anything_is_sent(hub: Hub, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit, message in (
        (
            "FILES_MAX",
            50,
            r"would have \d+ files, the hub advises 50 at most; write the store to one file \(kdcache ex",
        ),
        ("FOLDER_MAX", 5, r"would have \d+ entries in rich.kd\S*, the hub takes 5; write the store to one file"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(hub_push, name, limit)
            with pytest.raises(StoreError, match=message):
                push(str(local), URL)
    assert {each.method for each in hub.asked} == {"GET"}
    assert hub.repositories == {}


def test_large_stores_keep_the_limits_up_to_where_they_say(tmp_path: Path) -> None:
    """A folder for each block, and folders of commits by the thousand: 10,000 blocks of one array are the limit."""
    identity = make_case(64).identity
    big = identity.model_copy(update={"dataset": identity.dataset.model_copy(update={"rows": 8192 * 12_000})})
    layout = segment_layout(big, ViewSpan(0, 10))
    keys = [spec.key(block) for block in range(layout.blocks) for spec in layout.arrays_of(block).values()]
    assert layout.blocks > 10_000
    hub_push.require_limits([key for key in keys if "/pixels/c/0/" in key][:9_990], "x")
    with pytest.raises(StoreError, match=r"x would have \d+ entries in views-00000-00010/pixels/c/0, the hub takes"):
        hub_push.require_limits([key for key in keys if "/pixels/c/0/" in key], "x")


def test_a_push_goes_on_where_it_was_stopped(hub: Hub, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_push, "COMMIT_FILES", 10)
    stop = StopRequest()

    def report(what: str, done: int, total: int) -> None:
        stop.requested = done > total // 2

    with pytest.raises(InterruptedRunError, match="run the same command again"):
        push(str(local), URL, progress=report, stop=stop)
    with pytest.raises(StoreNotFoundError):
        Store.open(URL)
    there = len(hub.repositories["team/soft"].files) - 1
    uploads = [each.path for each in hub.asked if "/upload/" in each.path]
    shared = push(str(local), URL)
    assert 0 < there < shared.files
    assert shared.copied_files == shared.files - there
    assert all_reads(URL) == all_reads(local)
    again = push(str(local), URL)
    assert (again.copied_files, again.note) == (0, "")
    later = [each.path for each in hub.asked if "/upload/" in each.path][len(uploads) :]
    assert later
    assert not set(uploads) & set(later)


def test_newer_and_older_seals_stand_side_by_side(hub: Hub, local: Path) -> None:
    latest = Store.open(local).content_id
    assert latest is not None
    (older,) = [each.stem for each in (local / "kdcache/seals").glob("*.json") if not latest.startswith(each.stem)]
    push(f"{local}@{older}", URL)
    assert Store.open(URL).every_view == (0, 1)
    push(str(local), URL)
    assert Store.open(URL).every_view == (0, 1, 2)
    assert Store.open(f"{URL}@{older}").every_view == (0, 1)
    shared = push(f"{local}@{older}", URL)
    assert Store.open(URL).content_id == latest
    assert f"still opens as seal {latest[:12]}" in shared.note


def test_another_store_has_the_place(pushed: Hub, tmp_path: Path) -> None:
    write_store(tmp_path / "other.kd", make_case(100, seed=3))
    before = pushed.repositories["team/soft"].commits[-1]
    with pytest.raises(StoreError, match=r"rich.kd/kdcache/manifest.json is there with \d+ other bytes.*another path"):
        push(str(tmp_path / "other.kd"), URL)
    assert pushed.repositories["team/soft"].commits[-1] == before
    assert not [each for each in pushed.asked if each.method != "GET"]


def test_files_that_a_repository_ignores_are_missed_before_the_seal(hub: Hub, local: Path) -> None:
    hub.ignored = {SHARD}
    with pytest.raises(StoreError, match=rf"{SHARD} was pushed and is not there; is its name in .*\.gitignore"):
        push(str(local), URL)
    assert not [path for path in hub.repositories["team/soft"].files if "seals" in path]


def test_the_commands_push_and_pull(hub: Hub, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["push", str(local), URL], ["pull", URL, str(tmp_path / "pulled.kd")], ["inspect", URL]):
        with pytest.raises(SystemExit) as stopped:
            main([*given, "--json"])
        assert stopped.value.code == 0
        said = json.loads(capsys.readouterr().out)
        assert said["content_id"] == Store.open(local).content_id
        assert TOKEN not in json.dumps(said)
    assert sealed(tmp_path / "pulled.kd") == sealed(local)
