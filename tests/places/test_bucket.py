"""Object stores as places: the contract over a real S3 server, what an address may be, and where credentials go."""

from pathlib import Path

import pytest

from kdcache.errors import DamagedError, FormatError, InvalidInputError, StoreError, StoreNotFoundError
from kdcache.pipelines.train.stage import train
from kdcache.places.bucket import Bucket
from kdcache.places.bucket_client import open_client, split_address
from kdcache.places.opening import open_place
from kdcache.sharing.push_pull import push
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.bucket import KEY, SECRET, Proxy, put_object
from tests.kits.stages import Stage, metrics, student, weights_of
from tests.kits.stores import create_store, make_case
from tests.kits.web import QUICK, serving

DATA = bytes(range(256)) * 8
stage = stages.stage


@pytest.fixture
def bucket(place: str) -> Bucket:
    return Bucket(place)


def test_a_put_creates_and_never_replaces(bucket: Bucket) -> None:
    assert bucket.put_new("a/b", b"first")
    assert not bucket.put_new("a/b", b"second")
    assert bucket.get("a/b") == b"first"
    bucket.put_same("a/b", b"first")
    with pytest.raises(StoreError, match="a/b exists with other contents"):
        bucket.put_same("a/b", b"second")
    bucket.replace("a/b", b"third")
    assert bucket.get("a/b") == b"third"


def test_reading(bucket: Bucket) -> None:
    assert (bucket.get("x"), bucket.size("x"), bucket.digest("x")) == (None, None, None)
    bucket.put_new("x", DATA)
    assert (bucket.get("x"), bucket.size("x")) == (DATA, len(DATA))
    assert bucket.span("x", 3, 10, len(DATA)) == DATA[3:11]
    with bucket.opened("x") as file:
        assert (file.size, file.part(5, 7), file.part(2040, 100), file.part(5000, 3)) == (
            2048,
            DATA[5:12],
            DATA[-8:],
            b"",
        )
    with pytest.raises(FormatError, match="has 2048 bytes, allowed are 100"):
        bucket.get("x", limit=100)
    with pytest.raises(DamagedError, match="y is missing; advice"):
        bucket.require("y", "advice")
    with pytest.raises(DamagedError, match="has 2048 bytes, 2049 were expected"):
        bucket.span("x", 3, 10, 2049)


def test_listing_and_deleting(bucket: Bucket) -> None:
    for key in ("k/b/2", "k/b/1", "k/a/1", "other"):
        bucket.put_new(key, b"-")
    assert list(bucket.keys("k")) == ["k/a/1", "k/b/1", "k/b/2"]
    assert bucket.folders("k") == ["a", "b"]
    assert (bucket.has_folder("k/b"), bucket.has_folder("k/c")) == (True, False)
    bucket.delete("k/b/1")
    bucket.delete("k/b/1")
    assert list(bucket.keys("k/b")) == ["k/b/2"]


@pytest.mark.parametrize("fault", ["lost", "lost 500"])
def test_a_put_whose_answer_was_lost_finds_its_own_bytes(bucket: Bucket, s3: Proxy, fault: str) -> None:
    s3.spoiling.spoil(fault, "PUT kd/mine", times=1)
    assert bucket.put_new("mine", b"mine")
    put_object(s3, f"{bucket.root.removeprefix('s3://team/')}/theirs", b"theirs")
    s3.spoiling.spoil("reset", "PUT kd/theirs", times=1)
    assert not bucket.put_new("theirs", b"mine")
    assert bucket.get("theirs") == b"theirs"


def test_a_redirect_elsewhere_gets_no_signature(bucket: Bucket, s3: Proxy, tmp_path: Path) -> None:
    """obstore follows redirects of a GET, and nothing tells it not to: the signature stays behind. The session token,
    which signs nothing by itself, goes along. What comes back is held against crc32c and sha256 as all else. A PUT that
    is redirected is refused."""
    bucket.put_new("x", DATA)
    with serving(tmp_path) as other:
        s3.elsewhere = other.url
        sent = other.headers_seen
        s3.spoiling.spoil("elsewhere", "GET kd/x")
        assert bucket.get("x") is None
        assert sent
        for headers in sent:
            text = str(headers)
            assert "Authorization" not in text
            assert "authorization" not in text
            assert not any(secret in text for secret in (SECRET, KEY))
        s3.spoiling.spoil("elsewhere", "PUT kd/y")
        with pytest.raises(StoreError, match="answered 307 Temporary Redirect"):
            bucket.put_new("y", DATA)
        assert len(sent) == len(other.asked)
        assert {key for key, _ in other.asked} == {f"team/{bucket.root.removeprefix('s3://team/')}/x"}


def test_nothing_there_and_nothing_to_create(place: str, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"is no store; check the address, or publish one: kdcache push STORE"):
        Store.open(place)
    case = make_case(70, views=1)
    with pytest.raises(InvalidInputError, match=r"work on a folder, and publish a copy: kdcache push STORE URL"):
        Store.create(place, case.identity, order=case.order, labels=case.labels, provenance=create_store(
            tmp_path / "x.kd", case).manifest.provenance)  # fmt: skip


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:hidden@bucket/x.kd", "user, password or port"),
        ("s3://hidden@bucket/x.kd", "user, password or port"),
        ("s3://bucket:80/x.kd", "user, password or port"),
        ("s3://bucket/x.kd?token=hidden", r"given with \? or #"),
        ("gs://bucket/x.kd#hidden", r"given with \? or #"),
        ("az:///x.kd", "names no container"),
        ("gs://bucket/", "is no store's address"),
        ("s3://bucket/a//b", "is no store's address"),
        ("s3://bucket/a/../b", "is no store's address"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as caught:
        open_place(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["gs://bucket/x.kd", "az://container/x.kd"])
def test_the_other_clouds_are_opened_by_their_own_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "team")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aGlkZGVu")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", '{"disable_oauth": true, "client_email": "", "private_key": "", '
                       '"private_key_id": ""}')  # fmt: skip
    client = open_client(split_address(url), QUICK, silence=1.0)
    assert type(client).__name__ == {"gs": "GCSStore", "az": "AzureStore"}[url[:2]]
    assert open_place(url).root == url


def test_a_student_trained_over_s3_equals_one_trained_from_the_folder(
    stage: Stage, place: str, s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "cache"))  # other tests may have read these very bytes
    push(stage.store, place)
    s3.heal()
    store = f"{place}@{Store.open(stage.store).content_id}"
    train(student(tmp_path / "far", store=(store,), epochs=2))
    assert any("classes/c" in asked.key for asked in s3.asked)
    train(student(tmp_path / "near", store=(stage.store,), epochs=2))
    assert weights_of(tmp_path / "far") == weights_of(tmp_path / "near")
    assert metrics(tmp_path / "far") == metrics(tmp_path / "near")
