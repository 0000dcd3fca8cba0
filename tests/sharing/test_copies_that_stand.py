"""A copy meets what stands at its target: cards, damaged seals, a newer `latest`; and rights that a bucket lacks."""

from pathlib import Path

import pytest

from kdcache.errors import InvalidInputError, StoreError
from kdcache.places.place import Place
from kdcache.sharing import transfer
from kdcache.sharing.push_pull import pull, push
from kdcache.store.layout import CARD, LATEST_SEAL, PARTIAL
from kdcache.store.manifest import Card
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.bucket import Proxy, put_object
from tests.kits.damage import rich_store
from tests.kits.stores import create_store, make_case, write_views


@pytest.fixture
def grown(tmp_path: Path) -> tuple[str, list[str]]:
    """A store of two views, each with a segment and a seal; and the content ids."""
    case, ids = make_case(70, views=2), []
    store = create_store(tmp_path / "grow.kd", case)
    for view in range(2):
        write_views(store, view, case.logits[view : view + 1])
        ids.append(store.seal().content_id)
    return str(tmp_path / "grow.kd"), ids


def test_a_pull_keeps_the_card_of_its_folder_and_says_so(tmp_path: Path) -> None:
    rich, copy = rich_store(tmp_path / "rich.kd"), tmp_path / "copy.kd"
    assert pull(str(rich), str(copy)).note == ""
    Store.open(copy).write_card(Card(name="mine"))
    assert "the card here was kept, another came: to take that, remove" in pull(str(rich), str(copy)).note
    assert Store.open(copy).card.name == "mine"
    (copy / CARD).unlink()
    assert pull(str(rich), str(copy)).note == ""
    assert Store.open(copy).card.name == "rich"


def test_a_push_that_replaces_another_card_says_so(grown: tuple[str, list[str]], tmp_path: Path) -> None:
    path, ids = grown
    to = tmp_path / "to.kd"
    push(path, str(to))
    Store.open_for_writing(to).write_card(Card(name="newer"))
    Store.open_for_writing(path).write_card(Card(name="older"))
    said = push(f"{path}@{ids[0]}", str(to)).note
    assert "another card stood there and was replaced by this one" in said
    assert "still opens as seal" in said
    assert push(path, str(to)).note == ""


def test_a_damaged_old_seal_keeps_no_newer_one_out(grown: tuple[str, list[str]], place: str, s3: Proxy) -> None:
    path, ids = grown
    push(f"{path}@{ids[0]}", place)
    put_object(s3, f"{place.removeprefix('s3://team/')}/kdcache/seals/{'0' * 32}.json", b"{}")
    assert push(path, place).copied_files > 0
    assert Store.open(place).content_id == ids[1]


def test_latest_names_at_once_the_newest_seal_that_stands_there(
    grown: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer push ends between a look at `latest` and its move: readers never see it go back."""
    path, ids = grown
    to, named, real = tmp_path / "to.kd", [], transfer.read_seal

    def raced(folder: Place, *given: object) -> object:
        found = real(folder, *given)  # type: ignore[arg-type]
        if found is None and not named and folder.root == to:
            named.append("")
            monkeypatch.setattr(transfer, "read_seal", real)
            push(path, str(to))
            monkeypatch.setattr(type(folder), "replace", noted)
        return found

    def noted(folder: Place, key: str, data: bytes) -> None:
        named.append(data.decode().strip())

    monkeypatch.setattr(transfer, "read_seal", raced)
    push(f"{path}@{ids[0]}", str(to))
    assert named == ["", ids[1]]
    assert (to / LATEST_SEAL).read_text().strip() == ids[1]


def test_a_bucket_that_may_not_be_listed_is_read_and_pulled(
    grown: tuple[str, list[str]], place: str, s3: Proxy, tmp_path: Path
) -> None:
    """It answers 403 for what is missing; as a target it is refused."""
    path, ids = grown
    push(path, place)
    s3.spoiling.spoil("403", f"GET {PARTIAL}", f"GET {CARD}")
    rows = [store.read(1, [0, 69]).log_probs(1.0).tolist() for store in (Store.open(place), Store.open(path))]
    assert rows[0] == rows[1]
    assert Store.open(f"{place}@{ids[1]}").card == Card()
    pull(place, str(tmp_path / "copy.kd"))
    assert inspect_files(str(tmp_path / "copy.kd")).whole
    with pytest.raises(StoreError, match="answered 403"):
        push(path, place)


@pytest.mark.parametrize("url", ["s3://team/a/x.zip", "s3://team/a/x.ZIP/", "hf://datasets/team/soft/x.zip"])
def test_a_folder_is_not_pushed_to_where_a_zip_file_would_be_read(grown: tuple[str, list[str]], url: str) -> None:
    with pytest.raises(InvalidInputError, match="would be read as a zip file, and a push writes a folder"):
        push(grown[0], url)
