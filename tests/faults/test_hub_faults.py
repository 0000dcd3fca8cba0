"""Faults of a hub alone: its own steps of a push, the way to large files, and whom its token is for."""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from kdcache.errors import InvalidInputError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.hub_client import HubClient
from kdcache.places.opening import open_place
from kdcache.places.place import Place
from kdcache.sharing import hub_push
from kdcache.sharing.push_pull import push
from kdcache.store.store import Store
from tests.kits import hub_stub
from tests.kits.damage import FIRST, all_reads
from tests.kits.http_faults import FAULTS, OUTLASTED
from tests.kits.http_server import EVER
from tests.kits.hub_server import OTHER
from tests.kits.hub_stub import HIDDEN, URL, Hub
from tests.kits.web import patience

SHARD = f"{FIRST}/classes/c/0/1/0"
hub, local, pushed = hub_stub.hub, hub_stub.local, hub_stub.pushed
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface-hub's use of httpx2

PASSING = [
    *(
        (piece, fault)
        for piece in ("/tree/", "/preupload/", "objects/batch", "PUT upload/")
        for fault in ("503", "lost")
    ),
    *(("/commit/", fault) for fault in ("429", "503", "reset", "lost")),
]


@pytest.mark.parametrize(("piece", "fault"), PASSING)
def test_a_push_outlasts_what_passes(hub: Hub, local: Path, piece: str, fault: str) -> None:
    hub.spoiling.spoil(fault, piece, times=2)
    push(str(local), URL)
    assert hub.spoiling.counted[piece] > 1
    hub.spoiling.heal()
    assert all_reads(URL) == all_reads(local)


def test_a_push_of_a_newer_seal_in_between_is_not_undone(
    hub: Hub, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after the older push has looked at `latest`, and before that commits."""
    latest, between, real = Store.open(local).content_id or "", [], HubClient.commit
    (older,) = [each.stem for each in (local / "kdcache/seals").glob("*.json") if not latest.startswith(each.stem)]

    def commit(client: HubClient, batch: Any, parent: str | None = None) -> bool:
        if parent and not between:
            between.append(parent)
            push(str(local), URL)
        return real(client, batch, parent)

    monkeypatch.setattr(HubClient, "commit", commit)
    shared = push(f"{local}@{older}", URL)
    assert len(between) == 1
    assert f"still opens as seal {latest[:12]}" in shared.note
    assert Store.open(URL).content_id == latest
    assert Store.open(f"{URL}@{older}").every_view == (0, 1)


def test_no_commit_has_more_files_than_it_may(hub: Hub, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_push, "COMMIT_FILES", 10)
    monkeypatch.setattr(hub_push, "BATCH_BYTES", 5000)
    sizes, real = [], HubClient.commit

    def commit(client: HubClient, batch: Any, parent: str | None = None) -> bool:
        sizes.append(len(batch))
        return real(client, batch, parent)

    monkeypatch.setattr(HubClient, "commit", commit)
    shared = push(str(local), URL)
    assert sum(sizes) == shared.files
    assert max(sizes) <= 10


@pytest.mark.parametrize(
    ("piece", "fault", "message"),
    [
        ("/tree/", "401", r"answered 401 .*the token is not known; set HF_TOKEN"),
        ("/commit/", "403", r"answered 403 .*the token may not write to it; set HF_TOKEN"),
        ("/preupload/", "404", r"answered 404 .*there is no revision main"),
        ("PUT upload/", "400", r"answered 400.*run the same command again"),
        ("PUT upload/", "403", r"answered 403.*set HF_TOKEN"),
        ("/commit/", "413", r"answered 413.*write the store to one file"),
        ("/commit/", "500", r"answered 500.*run the same command again: what was committed stays"),
        ("/tree/", "reset", r"gave no answer that counts \(\w+\); run the same command again"),
    ],
)
def test_what_does_not_pass_is_named(hub: Hub, local: Path, piece: str, fault: str, message: str) -> None:
    hub.spoiling.spoil(fault, piece)
    with pytest.raises(StoreError, match=message) as error:
        push(str(local), URL)
    assert str(error.value).startswith(URL)
    assert not re.search(HIDDEN, str(error.value))


BODY = (
    "cut", "short", "empty", "emptied", "flip", "wrong bytes", "wrong length", "page as data", "encoded", "stall",
    "drip of a body", "drip of chunks",
)  # fmt: skip


def test_the_way_to_a_large_file_is_outlasted_or_refused(pushed: Hub, local: Path) -> None:
    """Of such a file the hub says how large it is, and where it lies. What spoils a body alone is harmless there."""
    data = (local / SHARD).read_bytes()
    for fault, times in product(FAULTS, (1, EVER)):
        pushed.spoiling.heal()
        pushed.spoiling.spoil(fault, f"hub rich.kd/{SHARD}", times=times)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http_requests, "PATIENCE", patience(fault, times))
            said = refusal(lambda: hold(open_place(URL), data))
        assert not re.search(HIDDEN, said)
        if fault in (*BODY, "no ranges") or (times == 1 and FAULTS[fault].whole == OUTLASTED):
            assert said == "", (fault, times)
        else:
            assert times == 1 or re.match(f"{URL.rpartition('/')[0]}|{pushed.main.url}/", said), (fault, said)


def hold(place: Place, data: bytes) -> None:
    """A file, whole and in part, is this one."""
    assert place.require(SHARD, "push it again") == data
    with place.opened(SHARD) as file:
        assert file.part(3, 7) == data[3:10]


def refusal(call: Callable[[], Any]) -> str:
    """What an error of ours says, empty where there is none."""
    try:
        call()
    except KdcacheError as error:
        return str(error)
    return ""


def test_a_server_that_points_back_gets_no_token_there(pushed: Hub) -> None:
    """Once the hub pointed elsewhere, nothing on that way carries the token any more, not even to the hub."""
    pushed.second.elsewhere = pushed.main.url
    pushed.spoiling.spoil("elsewhere", "second GET file/")
    assert "answered" in refusal(lambda: open_place(URL).get(SHARD))
    line = [(each.server, each.token) for each in pushed.asked]
    assert line == [("hub", True), ("second", False), ("hub", False)]


def test_a_listing_that_leads_to_another_server_is_not_followed(pushed: Hub, local: Path) -> None:
    """Its later pages would be asked for with the token."""
    pushed.lists_at = pushed.second.url
    pushed.asked.clear()
    said = refusal(lambda: push(str(local), URL))
    assert re.match(
        rf"{URL}: the hub at {pushed.main.url} lists on at {pushed.second.url}, which gets no token; ", said
    )
    assert {(each.server, each.token) for each in pushed.asked} == {("hub", True)}


def test_who_may_not_read_is_told_what_to_do(
    pushed: Hub, local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = pushed.repositories["team/soft"]
    for url, message in (
        (
            "hf://datasets/team/gone/rich.kd",
            r"RepoNotFound\): there is no such repository, or the token that was given",
        ),
        ("hf://datasets/team/soft@v9/rich.kd", r"RevisionNotFound\): there is no revision v9; check the address"),
        ("hf://datasets/team/soft/gone.kd", r"kdcache/manifest.json is not there, so \S*gone.kd is no store"),
    ):
        with pytest.raises(StoreNotFoundError, match=message):
            Store.open(url)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(StoreError, match=r"answered 401.*set HF_TOKEN to one that may, or log in with: hf auth login"):
        Store.open(URL)
    monkeypatch.setenv("HF_TOKEN", "hf_ü")
    with pytest.raises(InvalidInputError, match="holds characters that no token has"):
        Store.open(URL)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(
        StoreError, match=r"RepoNotFound\): there is no such repository, or it wants a token; set HF_TOKEN"
    ):
        Store.open(URL)
    with pytest.raises(InvalidInputError, match="there is no token; set HF_TOKEN"):
        push(str(local), URL)
    repository.private = False
    assert Store.open(URL).every_view == (0, 1, 2)
    assert not pushed.asked[-1].token
    repository.gated = True
    with pytest.raises(StoreError, match=r"GatedRepo\): its owner grants access; ask for it on the repository's page"):
        Store.open(URL)


def test_a_token_that_may_only_read_pushes_nothing(pushed: Hub, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", OTHER)
    assert Store.open(URL).every_view == (0, 1, 2)
    with pytest.raises(StoreError, match=r"answered 403 .*the token may not write to it"):
        push(str(local), "hf://datasets/team/soft/second.kd")
    with pytest.raises(StoreError, match=r"answered 403 .*the token may not write to it"):
        push(str(local), "hf://datasets/team/new/second.kd")
