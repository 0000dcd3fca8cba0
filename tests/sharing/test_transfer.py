"""Push and pull over a real S3 server and a web server: whole or absent, only what is new, never the wrong store."""

import json
import threading
from pathlib import Path

import pytest

from kdcache.base.progress import StopRequest
from kdcache.base.view_span import ViewSpan
from kdcache.cli.app import main
from kdcache.errors import (
    DamagedError,
    InterruptedRunError,
    InvalidInputError,
    MismatchError,
    MissingBlockError,
    StoreError,
    StoreNotFoundError,
)
from kdcache.sharing.push_pull import pull, push
from kdcache.store.layout import LATEST_SEAL, PARTIAL
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.bucket import KEY, SECRET, TOKEN, Asked, Proxy, objects
from tests.kits.damage import FIRST, SECOND, all_reads, rich_store
from tests.kits.stores import all_files, create_store, make_case, write_store, write_views
from tests.kits.web import serving


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    return rich_store(tmp_path / "rich.kd")


def growing(path: Path, seals: int = 1, seed: int = 0) -> tuple[Store, list[str]]:
    """A store of three views, a segment and a seal for each of the first `seals`; and the content ids."""
    case = make_case(70, views=3, seed=seed)
    store = create_store(path, case)
    ids = []
    for view in range(seals):
        write_views(store, view, case.logits[view : view + 1])
        ids.append(store.seal().content_id)
    return store, ids


def prefix(place: str) -> str:
    return place.removeprefix("s3://team/")


def test_what_is_pushed_and_pulled_is_the_store(rich: Path, place: str, s3: Proxy, tmp_path: Path) -> None:
    shared = push(str(rich), place)
    assert (shared.copied_files, shared.copied_bytes) == (shared.files, shared.bytes)
    there = {key.removeprefix(prefix(place) + "/"): data for key, data in objects(s3, prefix(place)).items()}
    older = {key for key in all_files(rich) if key.startswith("kdcache/seals/") and shared.content_id[:32] not in key}
    assert there == {key: data for key, data in all_files(rich).items() if key not in older - {LATEST_SEAL}}
    copy = tmp_path / "copy.kd"
    pulled = pull(place, str(copy))
    assert all_files(copy) == there
    assert (pulled.content_id, pulled.copied_files) == (shared.content_id, shared.files)
    assert inspect_files(str(copy)).whole
    assert all_reads(copy) == all_reads(rich)


def test_no_credentials_and_no_paths_are_written(rich: Path, place: str, s3: Proxy, tmp_path: Path) -> None:
    push(str(rich), place)
    pull(place, str(tmp_path / "copy.kd"))
    written = [*objects(s3, prefix(place)).values(), *all_files(tmp_path / "copy.kd").values()]
    secrets = [KEY, SECRET, TOKEN, s3.url, str(tmp_path), str(Path.home())]
    assert len(written) > 100
    assert [secret for secret in secrets if any(secret.encode() in data for data in written)] == []


def test_data_goes_first_and_the_seal_last(rich: Path, place: str, s3: Proxy) -> None:
    push(str(rich), place)
    keys = [asked.key.removeprefix(prefix(place) + "/") for asked in s3.asked if asked.method == "PUT"]
    kinds = [0 if not key.startswith("kdcache/") else 1 if key.startswith("kdcache/views-") else 2 for key in keys]
    assert kinds == sorted(kinds)
    assert [key.rsplit("/", 1)[-1] for key in keys[-4:-2]] == ["manifest.json", "card.json"]
    assert keys[-1] == LATEST_SEAL


def test_until_the_seal_stands_there_is_no_store(rich: Path, place: str, s3: Proxy, tmp_path: Path) -> None:
    seen: list[str] = []

    def look(asked: Asked) -> None:
        if asked.method == "PUT" and asked.key.endswith(("segment.json", "manifest.json")):
            try:
                pull(place, str(tmp_path / f"early{len(seen)}.kd"))
                seen.append("a store")
            except StoreNotFoundError:
                seen.append("none")

    s3.before = look
    push(str(rich), place)
    assert seen == ["none"] * 3


def test_a_second_push_writes_nothing_and_a_later_seal_only_what_is_new(place: str, s3: Proxy, tmp_path: Path) -> None:
    store, ids = growing(tmp_path / "grow.kd", seals=2)
    path = str(tmp_path / "grow.kd")
    push(f"{path}@{ids[0]}", place)
    assert push(f"{path}@{ids[0]}", place).copied_files == 0
    s3.asked.clear()
    shared = push(path, place)
    puts = {asked.key.removeprefix(prefix(place) + "/") for asked in s3.asked if asked.method == "PUT"}
    assert all("views-00001-00002" in key or "seals" in key or key.endswith("manifest.json") for key in puts)
    assert 0 < shared.copied_files < shared.files
    assert Store.open(place).every_view == (0, 1)
    assert Store.open(f"{place}@{ids[0]}").every_view == (0,)
    assert store.identity == Store.open(place).identity


def test_latest_is_never_moved_backwards(place: str, tmp_path: Path) -> None:
    _, ids = growing(tmp_path / "grow.kd", seals=2)
    path = str(tmp_path / "grow.kd")
    push(path, place)
    shared = push(f"{path}@{ids[0]}", place)
    assert Store.open(place).content_id == ids[1]
    assert f"still opens as seal {ids[1][:12]}, which lists views that this one lacks" in shared.note
    assert Store.open(shared.pin).content_id == ids[0]


def test_two_pushes_at_once_end_as_one(place: str, tmp_path: Path) -> None:
    """Of one seal, and of an older one and a newer one: all is there, and `latest` is the newer."""
    _, ids = growing(tmp_path / "grow.kd", seals=2)
    errors: list[BaseException] = []

    def one(pin: str) -> None:
        try:
            push(f"{tmp_path / 'grow.kd'}@{pin}", place)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=one, args=(pin,)) for pin in (ids[1], ids[0], ids[1], ids[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Store.open(place).content_id == ids[1]
    assert Store.open(f"{place}@{ids[0]}").every_view == (0,)
    assert inspect_files(place).whole


def test_readers_keep_what_they_pinned_while_views_are_pushed(place: str, s3: Proxy, tmp_path: Path) -> None:
    _, ids = growing(tmp_path / "grow.kd", seals=3)
    path = str(tmp_path / "grow.kd")
    push(f"{path}@{ids[0]}", place)
    truth = Store.open(f"{path}@{ids[0]}").read(0, [0, 69]).log_probs(1.0).tolist()
    reader, seen = Store.open(f"{place}@{ids[0]}"), []

    def look(asked: Asked) -> None:
        if asked.method == "PUT" and len(seen) < 8:
            seen.append(reader.read(0, [0, 69]).log_probs(1.0).tolist() == truth)
            copy = tmp_path / f"during{len(seen)}.kd"
            assert pull(place, str(copy)).content_id in ids
            assert inspect_files(str(copy)).whole

    s3.before = look
    push(path, place, jobs=1)
    s3.before = lambda asked: None
    assert seen == [True] * 8
    assert Store.open(place).content_id == ids[2]
    assert reader.every_view == (0,)


def test_another_store_s_place_is_refused_naming_both(rich: Path, place: str, tmp_path: Path) -> None:
    push(str(rich), place)
    write_store(tmp_path / "other.kd", make_case(70, classes=20, k=4, views=1))
    with pytest.raises(MismatchError, match=r"teacher.classes: the store has 30, this run has 20"):
        push(str(tmp_path / "other.kd"), place)
    growing(tmp_path / "mine.kd")
    push(str(tmp_path / "mine.kd"), f"{place}/mine")
    growing(tmp_path / "again.kd", seed=0)
    write_views(Store.open_for_writing(tmp_path / "again.kd"), 1, make_case(70, views=3, seed=5).logits[1:2])
    Store.open_for_writing(tmp_path / "again.kd").seal()
    growing(tmp_path / "mine.kd", seals=2)
    push(str(tmp_path / "mine.kd"), f"{place}/mine")
    with pytest.raises(StoreError, match=r"is there with .*, the seal lists .*; it is another store's or damaged"):
        push(str(tmp_path / "again.kd"), f"{place}/mine")
    assert inspect_files(f"{place}/mine").whole


def test_what_is_not_sealed_is_not_pushed_and_a_web_server_takes_nothing(tmp_path: Path, rich: Path) -> None:
    create_store(tmp_path / "open.kd", make_case(70, views=1))
    with pytest.raises(StoreNotFoundError, match="is not sealed; run: kdcache seal"):
        push(str(tmp_path / "open.kd"), str(tmp_path / "to.kd"))
    with pytest.raises(InvalidInputError, match="is read only; push to a bucket or a folder"):
        push(str(rich), "https://host/x.kd")
    with pytest.raises(InvalidInputError, match="was named twice"):
        pull(str(rich), str(rich))
    with pytest.raises(InvalidInputError, match="was named as the folder to pull to"):
        pull(str(rich), "s3://team/x.kd")
    assert not (tmp_path / "to.kd").exists()


def test_a_damaged_store_is_not_pushed(rich: Path, place: str) -> None:
    shard = rich / FIRST / "gaps/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedError, match=r"gaps/c/0/0/0 has sha256 .*, the seal lists .*; run: kdcache verify"):
        push(str(rich), place)
    with pytest.raises(StoreNotFoundError):
        Store.open(place)


def test_some_views_are_pulled_and_the_rest_later(rich: Path, place: str, tmp_path: Path) -> None:
    push(str(rich), place)
    copy = tmp_path / "part.kd"
    part = pull(place, str(copy), views=ViewSpan(0, 2))
    assert part.note == "views 2:3 were left out"
    assert Store.open(f"{copy}@{part.content_id}").every_view == (0, 1)
    assert inspect_files(str(copy)).notes == ("this is a partial copy: views 2:3 were not pulled",)
    with pytest.raises(MissingBlockError, match="partial copy without views 2:3"):
        push(str(copy), f"{place}/part")
    rest = pull(place, str(copy), views=ViewSpan(2, 3))
    assert rest.note == "views 0:2 were left out"
    assert not (copy / PARTIAL).exists()
    assert all_reads(copy) == all_reads(rich)
    assert pull(place, str(copy)).copied_files == 0
    with pytest.raises(InvalidInputError, match=r"views 1:3 were asked for, .* has 0:2, 2:3; name whole segments"):
        pull(place, str(copy), views=ViewSpan(1, 3))


def test_the_rest_in_one_go(rich: Path, tmp_path: Path) -> None:
    """From a folder, to a folder."""
    copy = tmp_path / "part.kd"
    pull(str(rich), str(copy), views=ViewSpan(2, 3))
    assert (copy / PARTIAL).exists()
    assert not (copy / FIRST).exists()
    assert (copy / SECOND).exists()
    pull(str(rich), str(copy))
    assert not (copy / PARTIAL).exists()
    assert all_reads(copy) == all_reads(rich)


def test_views_are_extracted_anew_in_a_partial_copy(tmp_path: Path) -> None:
    """The record names the segment that was left out, not its number: another one of these views is not hidden."""
    growing(tmp_path / "grow.kd", seals=2)
    pull(str(tmp_path / "grow.kd"), str(tmp_path / "part.kd"), views=ViewSpan(0, 1))
    store = Store.open_for_writing(tmp_path / "part.kd")
    write_views(store, 1, make_case(70, views=3, seed=9).logits[1:2])
    store.seal()
    assert Store.open(tmp_path / "part.kd").every_view == (0, 1)
    found = inspect_files(str(tmp_path / "part.kd"))
    assert (found.findings, found.whole) == ((), True)


def test_a_pull_over_http_needs_no_ranges(rich: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        site.spoiling.spoil("no ranges", "rich.kd/")
        shared = pull(f"{site.url}/rich.kd", str(tmp_path / "copy.kd"))
        assert all(asked == "" for _, asked in site.asked)
    assert all_reads(tmp_path / "copy.kd") == all_reads(rich)
    assert shared.content_id == Store.open(rich).content_id


def test_a_request_to_stop_is_heard_and_the_same_command_goes_on(rich: Path, place: str, tmp_path: Path) -> None:
    stop, seen = StopRequest(), []

    def progress(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))
        stop.requested = len(seen) >= 20

    with pytest.raises(InterruptedRunError, match="run the same command again"):
        push(str(rich), place, jobs=2, progress=progress, stop=stop)
    assert {what for what, _, _ in seen} == {"pushing"}
    stop.requested = False
    shared = push(str(rich), place, progress=progress)
    assert shared.copied_files < shared.files - 15
    assert seen[-1][1] == seen[-1][2] == shared.bytes
    assert all_reads(place) == all_reads(rich)  # type: ignore[arg-type]


def test_the_command_line(rich: Path, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kdcache(*given: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(given))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    code, out, _ = kdcache("push", str(rich), place, "--jobs", "2", "--json")
    record = json.loads(out)
    assert (code, record["pin"]) == (0, f"{place}@{Store.open(rich).content_id[:32]}")
    code, out, err = kdcache("pull", record["pin"], str(tmp_path / "copy.kd"))
    assert code == 0
    assert f"copy.kd@{record['content_id'][:32]}" in out
    assert err.endswith(f"inspect {tmp_path / 'copy.kd'} --rows 5\n")
    code, out, _ = kdcache("pull", place, str(tmp_path / "copy.kd"), "--json")
    assert json.loads(out)["copied_files"] == 0
    assert kdcache("inspect", record["pin"], "--rows", "2")[0] == 0
    assert kdcache("verify", record["pin"], "--json")[0] == 0
    code, _, err = kdcache("pull", f"{place}@{'0' * 32}", str(tmp_path / "none.kd"))
    assert (code, "has no seal" in err) == (2, True)
