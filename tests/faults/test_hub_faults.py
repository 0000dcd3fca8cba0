"""Faults of a stand-in hub: what passes is outlasted, what stays is named with the next step, nothing is silent."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdcache.errors import InvalidInputError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.places.hub_client import HubClient
from kdcache.places.opening import open_place
from kdcache.sharing import hub_push
from kdcache.sharing.push_pull import pull, push
from kdcache.store.store import Store
from tests.kits import hub_stub
from tests.kits.damage import FIRST, all_reads
from tests.kits.hub_server import EVER, OTHER
from tests.kits.hub_stub import HIDDEN, URL, Hub

SHARD = f"{FIRST}/classes/c/0/1/0"
hub, local, pushed = hub_stub.hub, hub_stub.local, hub_stub.pushed
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface-hub's use of httpx2

PASSING = [
    *((piece, fault) for piece in ("/tree/", "/preupload/", "objects/batch", "/upload/") for fault in ("503", "lost")),
    *(("/commit/", fault) for fault in ("429", "503", "reset", "lost")),
]


@pytest.mark.parametrize(("piece", "fault"), PASSING)
def test_a_push_outlasts_what_passes(hub: Hub, local: Path, piece: str, fault: str) -> None:
    hub.faults[piece] = (fault, 0, 2)
    push(str(local), URL)
    assert hub.counted[piece] > 1
    hub.faults.clear()
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
        ("PUT /upload/", "400", r"answered 400.*run the same command again"),
        ("PUT /upload/", "403", r"answered 403.*set HF_TOKEN"),
        ("/commit/", "413", r"answered 413.*write the store to one file"),
        ("/commit/", "500", r"answered 500.*run the same command again: what was committed stays"),
        ("/tree/", "reset", r"gave no answer that counts \(\w+\); run the same command again"),
    ],
)
def test_what_does_not_pass_is_named(hub: Hub, local: Path, piece: str, fault: str, message: str) -> None:
    hub.faults[piece] = (fault, 0, EVER)
    with pytest.raises(StoreError, match=message) as error:
        push(str(local), URL)
    assert str(error.value).startswith(URL)
    assert not re.search(HIDDEN, str(error.value))


@pytest.mark.parametrize("fault", ["429", "503", "reset", "cut"])
@pytest.mark.parametrize("piece", ["manifest.json", "second GET /file/"])
def test_reading_outlasts_what_passes(pushed: Hub, local: Path, piece: str, fault: str) -> None:
    pushed.faults[piece] = (fault, 0, 2)
    assert all_reads(URL) == all_reads(local)
    assert pushed.counted[piece] > 2


LASTING = [
    *(("second GET /file/", fault) for fault in ("404", "403", "500", "flip", "cut", "reset")),
    *(("latest", fault) for fault in ("401", "403", "500", "flip", "cut")),
    *(("classes/c/0/1/0", fault) for fault in ("404", "401", "500", "elsewhere", "port", "user", "reset")),
]


@pytest.mark.parametrize(("piece", "fault"), LASTING)
def test_reading_what_stays_spoiled_is_refused(
    pushed: Hub, local: Path, tmp_path: Path, piece: str, fault: str
) -> None:
    """For ever: nothing is silent, no signed address is shown, and a pull leaves no seal behind."""
    pushed.faults[piece] = (fault, 0, EVER)
    refused = [refusal(lambda: all_reads(URL)), refusal(lambda: pull(URL, str(tmp_path / "pulled.kd")))]
    assert not re.search(HIDDEN, "".join(refused))
    pushed.faults.clear()
    assert not (tmp_path / "pulled.kd/kdcache/seals/latest").exists()
    assert all_reads(URL) == all_reads(local)
    assert all(refused)


def refusal(call: Callable[[], Any]) -> str:
    """What an error of ours says, empty where there is none."""
    try:
        call()
    except KdcacheError as error:
        return str(error)
    return ""


def test_a_server_that_points_back_gets_no_token_there(pushed: Hub) -> None:
    """Once the hub pointed elsewhere, nothing on that way carries the token any more, not even to the hub."""
    pushed.faults["second GET /file/"] = ("back", 0, EVER)
    assert "answered" in refusal(lambda: open_place(URL).get(SHARD))
    line = [(each.server, each.token) for each in pushed.asked]
    assert line == [("hub", True), ("second", False), ("hub", False)]


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
