"""What a seal lists as files: all of them, by their sha256, in an order that is safe to write; and partial copies."""

from pathlib import Path

import pytest

from kdcache.base.canonical import sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, InvalidInputError, MissingBlockError, StoreNotFoundError
from kdcache.places.opening import open_place
from kdcache.sharing.merge import merge_stores
from kdcache.sharing.sealed_files import SealedListing, sealed_files
from kdcache.store.layout import CARD, LATEST_SEAL, MANIFEST, PARTIAL
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.damage import FIRST, SECOND, all_reads, rich_store
from tests.kits.stores import all_files, create_store, make_case, write_views


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("share") / "rich.kd")


def listed(path: Path, pin: str | None = None, views: ViewSpan | None = None) -> SealedListing:
    return sealed_files(open_place(path), pin, views=views)


def copy_of(path: Path, listing: SealedListing, to: Path) -> Path:
    """The listed files written elsewhere; those whose bytes are known, by these."""
    for file in listing.files:
        (to / file.key).parent.mkdir(parents=True, exist_ok=True)
        (to / file.key).write_bytes((path / file.key).read_bytes() if file.data is None else file.data)
    return to


def test_a_listing_names_every_file_by_the_sha256_of_its_bytes(rich: Path) -> None:
    listing, there = listed(rich), all_files(rich)
    latest = (rich / LATEST_SEAL).read_text().strip()
    older = {key for key in there if key.startswith("kdcache/seals/") and latest[:32] not in key} - {LATEST_SEAL}
    assert {file.key for file in listing.files} == set(there) - older
    for file in listing.files:
        assert (file.size, file.sha256) == (len(there[file.key]), sha256_hex(there[file.key])), file.key
        assert file.data in (None, there[file.key])
    assert listing.content_id == latest
    assert listing.bytes == sum(file.size for file in listing.files)


def test_data_comes_before_records_and_the_seal_last(rich: Path) -> None:
    listing = listed(rich)
    assert not any(file.key.startswith("kdcache/") for file in listing.data)
    assert all(file.key.startswith("kdcache/views-") for file in listing.records)
    keys = [file.key for file in listing.last]
    assert keys == [MANIFEST, CARD, f"kdcache/seals/{listing.content_id[:32]}.json", LATEST_SEAL]


def test_a_copy_of_what_is_listed_is_whole(rich: Path, tmp_path: Path) -> None:
    copy = copy_of(rich, listed(rich), tmp_path / "copy.kd")
    assert all_reads(copy) == all_reads(rich)
    found = inspect_files(str(copy))
    assert found.whole
    assert found.notes == ()


def test_an_older_seal_lists_its_own_segments(rich: Path, tmp_path: Path) -> None:
    newer = (rich / LATEST_SEAL).read_text().strip()
    older = next(path.stem for path in (rich / "kdcache/seals").glob("*.json") if path.stem != newer[:32])
    copy = copy_of(rich, listed(rich, older), tmp_path / "older.kd")
    assert Store.open(copy).every_view == (0, 1)
    assert inspect_files(str(copy)).whole
    assert not (copy / SECOND).exists()


def test_a_partial_copy_opens_under_the_same_pin_and_says_what_it_lacks(rich: Path, tmp_path: Path) -> None:
    listing = listed(rich, views=ViewSpan(0, 2))
    copy = copy_of(rich, listing, tmp_path / "partial.kd")
    store = Store.open(f"{copy}@{listing.content_id}")
    assert store.every_view == (0, 1)
    with pytest.raises(MissingBlockError, match=r"partial copy: view 2 is of views 2:3, which were not pulled"):
        store.read(2, [0])
    found = inspect_files(str(copy))
    assert found.whole
    assert found.notes == ("this is a partial copy: views 2:3 were not pulled",)
    with pytest.raises(
        MissingBlockError, match=r"views 2:3; get them .*pull URL .*; only pull and recode take .*--views 0:2"
    ):
        listed(copy)
    assert [file.key for file in listed(copy, views=ViewSpan(0, 2)).files] == [file.key for file in listing.files]


def test_a_lost_segment_is_damage_where_the_copy_does_not_say_that_it_is_partial(rich: Path, tmp_path: Path) -> None:
    copy = copy_of(rich, listed(rich, views=ViewSpan(0, 2)), tmp_path / "lost.kd")
    (copy / PARTIAL).unlink()
    assert not inspect_files(str(copy)).whole
    with pytest.raises(DamagedError, match="is missing"):
        Store.open(copy).read(2, [0])


@pytest.mark.parametrize("views", [(0, 1), (1, 3), (0, 4), (5, 6)])
def test_views_that_are_no_whole_segments_are_refused(rich: Path, views: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match=r"has 0:2, 2:3; name whole segments"):
        listed(rich, views=ViewSpan(*views))


def test_a_store_without_a_seal_is_not_shared(tmp_path: Path) -> None:
    case = make_case(70, views=1)
    write_views(create_store(tmp_path / "open.kd", case), 0, case.logits)
    with pytest.raises(StoreNotFoundError, match="is not sealed; run: kdcache seal"):
        listed(tmp_path / "open.kd")


@pytest.mark.parametrize("key", ["order/c/0", "labels/c/0", "head/weight/c/0/0"])
def test_what_no_file_hash_covers_is_held_against_its_digest(rich: Path, tmp_path: Path, key: str) -> None:
    copy = copy_of(rich, listed(rich), tmp_path / "flipped.kd")
    data = bytearray((copy / key).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / key).write_bytes(data)
    with pytest.raises(DamagedError, match=key):
        listed(copy)


def test_known_bytes_do_not_depend_on_the_files_that_lie_there(rich: Path, tmp_path: Path) -> None:
    """Commit files may be left out of a copy: they follow from the sealed commits."""
    copy = copy_of(rich, listed(rich), tmp_path / "bare.kd")
    for path in (copy / f"kdcache/{FIRST}/commits").rglob("*.json"):
        path.unlink()
    assert listed(copy).files == listed(rich).files


@pytest.mark.parametrize("given", ["whole", "0:1"])
def test_what_is_merged_or_extracted_into_a_partial_copy_is_hidden_no_longer(given: str, tmp_path: Path) -> None:
    """The rest of the seal that the copy came from: the copy is whole once it is sealed again."""
    case, path, copy = make_case(70, views=3), tmp_path / "whole.kd", tmp_path / "copy.kd"
    store = create_store(path, case)
    for view in range(3):
        write_views(store, view, case.logits[view : view + 1])
    store.seal()
    copy_of(path, listed(path, views=ViewSpan(2, 3)), copy)
    if given == "whole":
        merge_stores([str(copy), str(path)], str(copy))
    else:
        again = Store.open_for_writing(copy)
        write_views(again, 0, case.logits[:1])
        again.seal()
    assert (copy / PARTIAL).exists() == (given != "whole")
    assert Store.open(copy).every_view == ((0, 1, 2) if given == "whole" else (0, 2))
    assert Store.open(f"{copy}@{listed(path).content_id}").every_view == Store.open(copy).every_view
    assert inspect_files(str(copy)).whole
