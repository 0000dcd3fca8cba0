"""Copies without taps: the same content id, all else proved, what is not there told wherever it is asked for."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.progress import StopRequest
from kdcache.base.view_span import ViewSpan
from kdcache.errors import (
    InterruptedRunError,
    MissingBlockError,
    StoreNotFoundError,
)
from kdcache.labels.topk import TopKEncoding
from kdcache.sharing.export import export_store
from kdcache.sharing.push_pull import pull, push
from kdcache.store.layout import PARTIAL
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.bucket import Proxy, objects
from tests.kits.damage import ANSWERED, SECOND, all_reads
from tests.kits.house import ROOT
from tests.kits.stores import all_files, create_store, make_case, write_views
from tests.kits.tapless import BOTH, FILES, NOTES, copied, labels_of, shard_bytes, tap_files, taps_of, two_taps
from tests.kits.web import serving


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_taps(tmp_path_factory.mktemp("without") / "rich.kd")


def test_a_bucket_without_taps_is_the_same_store_less_them(rich: Path, place: str, s3: Proxy, tmp_path: Path) -> None:
    shared = push(str(rich), place, without=["taps"])
    there = objects(s3, place.removeprefix("s3://team/"))
    assert (shared.without, shared.without_bytes) == (("layer1", "layer2.0@1x1"), shard_bytes(rich, "taps.0", "taps.1"))
    assert shared.note == f"taps layer1, layer2.0@1x1 were not copied: {shared.without_bytes:,} bytes"
    assert tap_files(there) == {}
    assert shared.content_id == Store.open(rich).content_id == Store.open(shared.pin).content_id
    assert labels_of(shared.pin) == labels_of(rich)
    assert Store.open(place).identity == Store.open(rich).identity
    s3.asked.clear()
    with pytest.raises(MissingBlockError, match=r"x\.kd is a copy without taps layer1 of views 0:2; get them with kdc"):
        Store.open(place).load(0, [0], taps=["layer1"])
    assert not any("/taps." in asked.key or "/classes" in asked.key for asked in s3.asked)
    found = inspect_files(place)
    assert (found.whole, found.notes, found.files) == (True, NOTES, FILES)
    with pytest.raises(
        MissingBlockError, match=r"without taps layer1, layer2\.0@1x1; leave them out too, --without taps"
    ):
        pull(place, str(tmp_path / "copy.kd"))
    assert not (tmp_path / "copy.kd").exists()
    pulled = pull(shared.pin, str(tmp_path / "copy.kd"), without=["taps"])
    assert all_files(tmp_path / "copy.kd") == {key.split("x.kd/")[1]: data for key, data in there.items()}
    assert (pulled.without, pulled.without_bytes) == (shared.without, shared.without_bytes)
    assert (inspect_files(str(tmp_path / "copy.kd")).whole, labels_of(pulled.pin)) == (True, labels_of(rich))


def test_the_taps_come_later_and_alone(rich: Path, place: str, s3: Proxy, tmp_path: Path) -> None:
    """Into a folder and into a bucket; a second copy writes nothing."""
    copy = copied(rich, tmp_path / "copy.kd", "taps")
    assert pull(str(rich), str(copy), without=["taps"]).copied_files == 0
    rest = pull(str(rich), str(copy))
    assert (rest.copied_files, rest.note, rest.without) == (len(tap_files(all_files(rich))), "", ())
    assert not (copy / PARTIAL).exists()
    assert (all_reads(copy), inspect_files(str(copy)).notes) == (all_reads(rich), ())
    push(str(rich), place, without=["taps"])
    assert push(str(rich), place).copied_files == rest.copied_files
    assert not any(key.endswith(PARTIAL) for key in objects(s3, place.removeprefix("s3://team/")))
    assert taps_of(place, 2) == taps_of(rich, 2)
    assert push(str(rich), place, without=["taps"]).copied_files == 0
    assert taps_of(place) == taps_of(rich)  # a place that has them keeps them


def test_taps_are_left_out_one_by_one(rich: Path, tmp_path: Path) -> None:
    copy = copied(rich, tmp_path / "copy.kd", "tap:layer2.0@1x1")
    assert taps_of(copy) == taps_of(rich)
    with pytest.raises(MissingBlockError, match=r"without taps layer2\.0@1x1 of views 2:3"):
        taps_of(copy, 2, "layer2.0@1x1")
    with pytest.raises(
        MissingBlockError, match=r"without taps layer2\.0@1x1; leave them out too, --without tap:layer2"
    ):
        pull(str(copy), str(tmp_path / "x.kd"))
    with pytest.raises(MissingBlockError, match=r"without taps layer2\.0@1x1; leave them out too, --without taps"):
        pull(str(copy), str(tmp_path / "x.kd"), without=["tap:layer1"])
    none = copied(rich, tmp_path / "none.kd", "tap:layer1, tap:layer2.0@1x1")
    pull(str(rich), str(none), without=["tap:layer2.0@1x1"])
    assert all_files(none) == all_files(copy)
    pull(str(rich), str(none), without=["tap:layer1"])
    assert all_reads(none) == all_reads(rich)
    assert not (none / PARTIAL).exists()


def test_the_record_is_these_bytes(tmp_path: Path) -> None:
    """Those of docs/format.md, for the golden store of taps: a copy that is made today is read for ever."""
    copy = copied(ROOT / "tests/golden/format1-taps.kd", tmp_path / "copy.kd", "taps")
    record = (copy / PARTIAL).read_text()
    assert f"```json\n{record}```\n" in (ROOT / "docs/format.md").read_text()
    segment = Store.open(copy).segments[0]
    assert (segment.left_out, segment.left_out_taps) == ({"taps.0", "taps.1"}, ["layer1.0.conv2", "norm"])


def test_taps_of_some_views_alone(rich: Path, tmp_path: Path) -> None:
    """Each segment says what it lacks; views that were left out whole are another matter."""
    copy = str(tmp_path / "copy.kd")
    first = pull(str(rich), copy, views=ViewSpan(0, 2), without=["taps"])
    assert first.note.startswith("views 2:3 were left out; taps layer1, layer2.0@1x1 were not copied: ")
    assert (
        first.without_bytes
        == shard_bytes(rich, "taps.0", "taps.1") - shard_bytes(rich / SECOND, "taps.0", "taps.1")
        > 0
    )
    pull(str(rich), copy, views=ViewSpan(2, 3))
    assert taps_of(copy, 2) == taps_of(rich, 2)
    with pytest.raises(MissingBlockError, match="without taps layer1 of views 0:2"):
        taps_of(copy, 0)
    assert inspect_files(copy).notes == NOTES[:1]
    assert pull(copy, str(tmp_path / "third.kd"), views=ViewSpan(2, 3)).without == ()
    with pytest.raises(MissingBlockError, match="leave them out too, --without taps"):
        push(copy, str(tmp_path / "fourth.kd"))


def test_more_views_go_over_what_stands_there(place: str, tmp_path: Path) -> None:
    """With and without taps, in either order; each seal opens as it is."""
    case = make_case(70, views=3, encoding=TopKEncoding(k=5, **BOTH | {"head": 0, "contents": None}))
    store = create_store(tmp_path / "grow.kd", case)
    write_views(store, 0, case.logits[:1])
    store.seal()
    pins = [push(str(tmp_path / "grow.kd"), place, without=["taps"]).pin]
    write_views(store, 1, case.logits[1:2])
    store.seal()
    pins.append(push(str(tmp_path / "grow.kd"), place, without=["tap:layer1"]).pin)
    for pin in pins:
        with pytest.raises(MissingBlockError, match="without taps layer1 of views 0:1"):
            Store.open(pin).load(0, [0], taps=["layer1"])
    Store.open(pins[1]).load(0, [0], taps=["layer2.0@1x1"])  # the second push brought it
    write_views(store, 2, case.logits[2:])
    store.seal()
    push(str(tmp_path / "grow.kd"), place)
    assert inspect_files(place).notes == ()
    for view in range(3):
        rows = [Store.open(url).load(view, [0, 69], taps=["layer1"]) for url in (place, tmp_path / "grow.kd")]
        np.testing.assert_array_equal(rows[0].tap("layer1"), rows[1].tap("layer1"))


def test_views_are_added_to_a_copy_and_sealed(rich: Path, tmp_path: Path) -> None:
    """The new segment has its taps; the seal does not make the old ones appear."""
    copy = copied(rich, tmp_path / "copy.kd", "taps")
    case = make_case(130, views=1, encoding=TopKEncoding(k=5, **BOTH), seed=3)
    store = Store.open_for_writing(copy)
    write_views(store, 3, case.logits)
    seal = store.seal()
    assert (Store.open(copy).content_id, seal.segments[:2]) == (seal.content_id, Store.open(rich).seal_record.segments)  # type: ignore[union-attr]
    assert len(taps_of(copy, 3)) == len(ANSWERED)
    with pytest.raises(MissingBlockError, match="without taps"):
        taps_of(copy, 2)
    assert (inspect_files(str(copy)).whole, inspect_files(str(copy)).notes) == (True, NOTES)


def test_a_web_server_s_store_is_pulled_and_read_without_taps(rich: Path, tmp_path: Path) -> None:
    copied(rich, tmp_path / "bare.kd", "taps")
    shutil.copytree(rich, tmp_path / "rich.kd")
    with serving(tmp_path) as site:
        pull(f"{site.url}/rich.kd", str(tmp_path / "one.kd"), without=["taps"])
        assert not any("/taps." in key for key, _ in site.asked)
        pull(f"{site.url}/bare.kd", str(tmp_path / "two.kd"), without=["taps"])
        assert labels_of(f"{site.url}/bare.kd") == labels_of(rich)
        found = inspect_files(f"{site.url}/bare.kd")
        assert (found.whole, found.notes, found.files) == (True, NOTES, FILES)
        with pytest.raises(MissingBlockError, match="without taps layer1"):
            taps_of(f"{site.url}/bare.kd")
    assert all_files(tmp_path / "one.kd") == all_files(tmp_path / "two.kd") == all_files(tmp_path / "bare.kd")


def test_a_zip_file_without_taps(rich: Path, tmp_path: Path) -> None:
    """Of a whole store and of a copy without them: the same bytes. It is read, verified and pulled as it is."""
    copied(rich, tmp_path / "copy.kd", "taps")
    with pytest.raises(MissingBlockError, match="--without taps"):
        export_store(str(tmp_path / "copy.kd"), str(tmp_path / "b.zip"))
    one = export_store(str(rich), str(tmp_path / "a.zip"), without=["taps"])
    two = export_store(str(tmp_path / "copy.kd"), str(tmp_path / "b.zip"), without=["taps"])
    assert one == two
    assert (one.without, one.without_bytes) == (("layer1", "layer2.0@1x1"), shard_bytes(rich, "taps.0", "taps.1"))
    found = inspect_files(str(tmp_path / "a.zip"))
    assert (found.whole, found.notes) == (True, NOTES)
    assert labels_of(tmp_path / "a.zip") == labels_of(rich)
    with pytest.raises(MissingBlockError, match="without taps layer1"):
        taps_of(tmp_path / "a.zip")
    assert all_files(copied(tmp_path / "a.zip", tmp_path / "out.kd", "taps")) == all_files(tmp_path / "copy.kd")


@pytest.mark.parametrize("count", [1, 20, 45, 60, 70])
def test_a_stopped_pull_of_the_taps_leaves_a_copy_that_says_what_it_lacks(
    rich: Path, tmp_path: Path, count: int
) -> None:
    """First the copy without them, then the rest. Whatever lies there is verified."""
    copy, stop, done = tmp_path / "copy.kd", StopRequest(), [0]

    def progress(what: str, size: int, total: int) -> None:
        done[0] += 1
        stop.requested = done[0] >= count

    with pytest.raises(InterruptedRunError):
        pull(str(rich), str(copy), without=["taps"], jobs=1, progress=progress, stop=stop)
    with pytest.raises(StoreNotFoundError):
        Store.open(f"{copy}@{Store.open(rich).content_id}")
    pull(str(rich), str(copy), without=["taps"])
    assert labels_of(copy) == labels_of(rich)
    done[0], stop.requested = 0, False
    with pytest.raises(InterruptedRunError):
        pull(str(rich), str(copy), jobs=1, progress=progress, stop=stop)
    with pytest.raises(MissingBlockError, match="without taps"):
        taps_of(copy, 2)
    found = inspect_files(str(copy))
    assert (found.whole, found.notes) == (True, NOTES)
    shards = [path for path in copy.rglob("taps.*/c/**/*") if path.is_file()]
    assert found.files == FILES + len(shards)
    for shard in shards[:1]:
        shard.write_bytes(shard.read_bytes()[:-1] + b"!")
        assert not inspect_files(str(copy)).whole
        shard.unlink()
    pull(str(rich), str(copy))
    assert all_reads(copy) == all_reads(rich)
