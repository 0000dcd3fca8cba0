"""Credentials by the clouds' own chains: profiles and roles of the AWS tools, Google's defaults; and the endpoint."""

import json
import os
import sys
from pathlib import Path

import pytest

from kdcache.errors import InvalidInputError, StoreError, StoreNotFoundError
from kdcache.places.bucket import Bucket
from kdcache.places.bucket_client import open_client, split_address
from kdcache.sharing.push_pull import push
from kdcache.store.store import Store
from tests.kits.bucket import KEY, SECRET, Proxy
from tests.kits.stores import make_case, write_store
from tests.kits.web import QUICK


@pytest.fixture
def tools(s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the AWS tools, with a profile `team`; the environment names that profile and no key."""
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_ALLOW_HTTP"]:
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[team]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = x\n")
    (tmp_path / "config").write_text(f"[profile team]\nregion = eu-west-1\nendpoint_url = {s3.url}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    return tmp_path


def signed(s3: Proxy) -> str:
    """The signature of the last request: it names key, region and service."""
    return {name.lower(): value for name, value in s3.asked[-1].headers.items()}["authorization"]


def test_a_profile_of_the_aws_tools_is_read_by_their_library(
    s3: Proxy, place: str, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Bucket(place).get("x") is None
    assert "Credential=PROFILEKEY/" in signed(s3)
    assert "/eu-west-1/s3/" in signed(s3)
    (tools / "config").write_text("[profile team]\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:9\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_REGION", "us-west-2")  # the environment comes first
    assert Bucket(place).get("x") is None
    assert "/us-west-2/s3/" in signed(s3)


def test_the_default_profile_needs_no_name(s3: Proxy, place: str, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    (tools / "credentials").write_text("[default]\naws_access_key_id = DEFAULTKEY\naws_secret_access_key = x\n")
    (tools / "config").write_text(f"[default]\nregion = eu-west-1\nendpoint_url = {s3.url}\n")
    assert Bucket(place).get("x") is None
    assert "Credential=DEFAULTKEY/" in signed(s3)


def test_a_role_and_a_program_give_credentials(s3: Proxy, place: str, tools: Path) -> None:
    """A reader of files alone would find no key in either profile."""
    config = (tools / "config").read_text()
    (tools / "config").write_text(
        config + f"role_arn = arn:aws:iam::123456789012:role/reader\nsource_profile = source\n"
        f"[profile source]\nendpoint_url = {s3.url}\naws_access_key_id = SOURCEKEY\naws_secret_access_key = x\n"
    )
    (tools / "credentials").write_text("")
    bucket = Bucket(place)
    assert bucket.put_new("x", b"by a role")
    assert "Credential=SOURCEKEY/" not in signed(s3)
    assert "x-amz-security-token" in {name.lower() for name in s3.asked[-1].headers}
    answer = {"Version": 1, "AccessKeyId": "PROGRAMKEY", "SecretAccessKey": "x"}
    (tools / "answer").write_text(json.dumps(answer))
    (tools / "config").write_text(f"{config}credential_process = cat {tools}/answer\n")
    assert Bucket(place).get("x") == b"by a role"
    assert "Credential=PROGRAMKEY/" in signed(s3)


def test_keys_of_the_environment_come_before_a_profile(
    s3: Proxy, place: str, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And work where the library is missing."""
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    assert Bucket(place).get("x") is None
    assert f"Credential={KEY}/" in signed(s3)


@pytest.mark.parametrize(
    ("config", "profile", "reason"),
    [
        (b"", "nobody", "AWS_PROFILE=nobody gives no credentials .ProfileNotFound.; look at: aws configure list"),
        (b"[profile \xff]\n", "team", "AWS_PROFILE=team gives no credentials .ConfigParseError."),
        (b"[profile team]\ncredential_process = false\n", "team", "AWS_PROFILE=team gives no .*CredentialRetrieval"),
        (b"[profile \xff]\n", "", "the AWS tools' configuration gives no credentials .ConfigParseError."),
    ],
)
def test_a_profile_without_credentials_is_refused_by_name(
    place: str, tools: Path, monkeypatch: pytest.MonkeyPatch, config: bytes, profile: str, reason: str
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile) if profile else monkeypatch.delenv("AWS_PROFILE")
    (tools / "config").write_bytes(config)
    (tools / "credentials").write_text("")
    with pytest.raises(InvalidInputError, match=reason):
        Bucket(place)


def test_a_profile_without_the_library_is_refused_by_name(
    place: str, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(InvalidInputError, match=r"AWS_PROFILE=team is set.* run: pip install 'kdcache\[aws\]'"):
        Bucket(place)


def test_without_any_credentials_the_ways_to_give_some_are_named(
    place: str, s3: Proxy, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tools))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # for Amazon's library
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # for obstore: nothing listens there
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    with pytest.raises(StoreError, match=r"there are no credentials.*AWS_PROFILE with pip install 'kdcache\[aws\]'"):
        Bucket(place, QUICK).get("x")
    assert s3.asked == []


def test_an_endpoint_that_speaks_http_is_named(place: str, s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    host = s3.url.removeprefix("http://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hidden@{host}/?hidden")
    with pytest.raises(
        InvalidInputError, match=f"lies at the endpoint {s3.url}, and http .* AWS_ALLOW_HTTP=true"
    ) as caught:
        Store.open(place)
    assert "hidden" not in str(caught.value)
    assert s3.asked == []


def test_an_endpoint_of_a_profile_that_speaks_http_is_named(
    place: str, s3: Proxy, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(InvalidInputError, match=f"lies at the endpoint {s3.url}, and http .* AWS_ALLOW_HTTP=true"):
        Store.open(place)


def test_a_bucket_that_is_missing_is_named(s3: Proxy, tmp_path: Path) -> None:
    """Whatever is done with it: a key that is missing is another thing."""
    absent = rf"s3://nowhere/x.*: there is no bucket nowhere at {s3.url}; check its name, the endpoint and the region"
    write_store(tmp_path / "a.kd", make_case(70, views=1))
    bucket = Bucket("s3://nowhere/x.kd")
    for call in (
        lambda: Store.open("s3://nowhere/x.kd"),
        lambda: Store.open("s3://nowhere/x/a.zip"),
        lambda: push(str(tmp_path / "a.kd"), "s3://nowhere/x.kd"),
        lambda: bucket.put_new("k", b"-"),
        lambda: bucket.size("k"),
        lambda: bucket.digest("k"),
        lambda: bucket.delete("k"),
        lambda: list(bucket.keys("k")),
        lambda: bucket.folders("k"),
    ):
        with pytest.raises(StoreNotFoundError, match=absent):
            call()


def test_application_default_credentials_of_google_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of `gcloud auth application-default login`: broken ones are refused, so they are read."""
    for name in [name for name in os.environ if name.startswith("GOOGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    defaults = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
    defaults.parent.mkdir(parents=True)
    address, user = split_address("gs://bucket/x.kd"), {"client_id": "i", "client_secret": "s", "refresh_token": "r"}
    defaults.write_text(json.dumps({"type": "authorized_user", **user}))
    assert type(open_client(address, QUICK, silence=1.0)).__name__ == "GCSStore"
    defaults.write_text("{")
    with pytest.raises(InvalidInputError, match=r"gs://bucket/x\.kd cannot be opened"):
        open_client(address, QUICK, silence=1.0)
