"""A bucket has an address and a client of obstore's; credentials come from the environment, and stay there."""

import configparser
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kdcache.errors import InvalidInputError
from kdcache.places.http_requests import shown
from kdcache.places.patience import Patience

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Client = S3Store | GCSStore | AzureStore

SCHEMES = {"s3": "bucket", "gs": "bucket", "az": "container"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST = timedelta(minutes=10)  # of one request, body included: 64 MB at 0.1 MB/s
PROFILE_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
FIRST = {  # these variables come before a profile, as in the AWS tools
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
}


@dataclass(frozen=True)
class Address:
    """The address `scheme://bucket/prefix` of a store; it holds no secrets."""

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def split_address(url: str) -> Address:
    """A bucket's URL in parts. Raises InvalidInputError, which shows no secrets."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    scheme, prefix = scheme.lower(), prefix.strip("/")
    kind = SCHEMES[scheme]
    if "@" in bucket or ":" in bucket:
        raise InvalidInputError(
            f"a {scheme}:// address with a user, password or port was given; credentials and endpoints come from the "
            f"environment, as for the cloud's own tools: write {scheme}://{kind}/path"
        )
    if not NAME.fullmatch(bucket):
        raise InvalidInputError(f"{scheme}://{shown(bucket)} names no {kind}; write {scheme}://{kind}/path")
    if not prefix or any(part in ("", ".", "..") for part in prefix.split("/")) or not prefix.isprintable():
        raise InvalidInputError(
            f"{scheme}://{bucket}/{shown(prefix)} is no store's address: a store takes a folder of its {kind}; "
            f"write {scheme}://{kind}/path"
        )
    if "?" in prefix or "#" in prefix:
        raise InvalidInputError(
            f"{scheme}://{bucket}/{shown(re.split('[?#]', prefix)[0])} was given with ? or #; signed addresses are not "
            "taken: credentials come from the environment"
        )
    return Address(scheme, bucket, prefix)


def open_client(address: Address, patience: Patience, *, silence: float) -> "Client":
    """A client of obstore's that tries once: `Bucket` itself tries again.

    It gives up where nothing of an answer comes for `silence` seconds; for a put this includes the time of sending.
    """
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    options: Any = {
        "connect_timeout": timedelta(seconds=patience.timeout),
        "read_timeout": timedelta(seconds=silence),
        "timeout": LONGEST,
        "user_agent": "kdcache",
    }
    arguments: dict[str, Any] = {
        "prefix": address.prefix,
        "client_options": options,
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(0)},
    }
    try:
        if address.scheme == "s3":
            options["allow_http"] = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
            return S3Store(address.bucket, **arguments, **cast(Any, _profile()))
        if address.scheme == "gs":
            return GCSStore(address.bucket, **arguments)
        return AzureStore(address.bucket, **arguments)
    except (BaseError, ValueError, OSError) as error:
        advice = "set the credentials in the environment as the cloud's own tools want them"
        raise InvalidInputError(f"{address} cannot be opened ({type(error).__name__}); {advice}") from None


def _profile() -> dict[str, str]:
    """Static keys, region and endpoint of a profile of the AWS tools; nothing where the environment names a key."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    name = os.environ.get("AWS_PROFILE", "")
    values: dict[str, str] = {}
    files = (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials"))
    for variable, file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(os.environ.get(variable) or Path.home() / ".aws" / file)
        except (OSError, RuntimeError, UnicodeDecodeError, configparser.Error):
            continue
        profile = name or "default"
        for section in (profile, f"profile {profile}"):
            if parser.has_section(section):
                values |= {ours: parser[section][key] for key, ours in PROFILE_KEYS.items() if key in parser[section]}
    if name and "access_key_id" not in values:
        advice = 'run: eval "$(aws configure export-credentials --format env)", and this command again'
        raise InvalidInputError(f"AWS_PROFILE={shown(name)} names no profile with keys of its own; {advice}")
    return {key: value for key, value in values.items() if not any(map(os.environ.get, FIRST.get(key, ())))}
