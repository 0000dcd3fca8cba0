"""A bucket has an address and a client of obstore's; credentials come by the cloud's own chain, and stay there.

Keys in the environment always work. Without any, the profiles, logins and roles of the AWS tools are read by Amazon's
own library, where it is installed (the extra `aws`); obstore reads Google's application default credentials.
"""

import os
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kdcache.errors import InvalidInputError
from kdcache.places.http_requests import shown
from kdcache.places.patience import Patience

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Client = S3Store | GCSStore | AzureStore

SCHEMES = {"s3": "bucket", "gs": "bucket", "az": "container"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST = timedelta(minutes=10)  # of one request, body included: 64 MB at 0.1 MB/s
REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")  # before that of a profile, as in the AWS tools
ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")  # likewise; the first one counts
LIBRARY = "pip install 'kdcache[aws]'"


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


@dataclass(frozen=True)
class Access:
    """The way to a bucket beside the environment: arguments of obstore's client, and the endpoint if one is named."""

    endpoint: str = ""
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def server(self) -> str:
        """The endpoint as a message shows it, without the parts that may be secret; empty where none is named."""
        scheme, _, rest = self.endpoint.partition("://")
        return shown(f"{scheme}://{re.split('[/?#]', rest.rpartition('@')[2])[0]}") if self.endpoint else ""


def find_access(address: Address) -> Access:
    """The way to a bucket by the environment and the cloud's own chain.

    Raises InvalidInputError for a profile that gives no credentials, or whose library is not installed, and for an
    endpoint that speaks http where AWS_ALLOW_HTTP does not allow that.
    """
    if address.scheme != "s3":
        return Access()
    arguments = _amazon_chain()
    access = Access(_first(ENDPOINT) or arguments.get("endpoint", ""), arguments)
    if access.endpoint.lower().startswith("http://") and not _is_on("AWS_ALLOW_HTTP"):
        problem = f"{address} lies at the endpoint {access.server}, and http shows what is sent to whoever listens"
        advice = "set AWS_ALLOW_HTTP=true to allow it, or name an https:// endpoint in AWS_ENDPOINT_URL"
        raise InvalidInputError(f"{problem}; {advice}")
    return access


def open_client(address: Address, patience: Patience, *, silence: float, access: Access | None = None) -> "Client":
    """A client of obstore's that tries once: `Bucket` itself tries again. `access` is looked for where none is given.

    It gives up where nothing of an answer comes for `silence` seconds; for a put this includes the time of sending.
    """
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    options: Any = {
        "allow_http": address.scheme == "s3" and _is_on("AWS_ALLOW_HTTP"),
        "connect_timeout": timedelta(seconds=patience.timeout),
        "read_timeout": timedelta(seconds=silence),
        "timeout": LONGEST,
        "user_agent": "kdcache",
    }
    kind: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[address.scheme]
    access = find_access(address) if access is None else access
    try:
        client: Client = kind(
            address.bucket,
            prefix=address.prefix,
            client_options=options,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
            **access.arguments,
        )
    except (BaseError, ValueError, OSError) as error:
        advice = "set the credentials in the environment as the cloud's own tools want them"
        raise InvalidInputError(f"{address} cannot be opened ({type(error).__name__}); {advice}") from None
    return client


def _amazon_chain() -> dict[str, Any]:
    """Credentials, region and endpoint by Amazon's own library; nothing where the environment names a key, and where
    the library finds none or is not installed: then obstore looks in the environment and asks the machine."""
    if os.environ.get("AWS_ACCESS_KEY_ID") or _is_on("AWS_SKIP_SIGNATURE"):
        return {}
    profile = os.environ.get("AWS_PROFILE", "")
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from botocore.session import Session  # type: ignore[import-untyped]
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        if not profile:
            return {}
        problem = f"AWS_PROFILE={shown(profile)} is set, and profiles are read by Amazon's own library"
        advice = 'or run: eval "$(aws configure export-credentials --format env)"'
        raise InvalidInputError(f"{problem}; run: {LIBRARY}, {advice}") from error
    try:
        session = Session()
        endpoint = "" if _first(ENDPOINT) else session.get_scoped_config().get("endpoint_url")
        region = _first(REGION) or session.get_config_variable("region")
        if session.get_credentials() is None and not profile:
            return {}
        provider = Boto3CredentialProvider(session)
        provider()  # a login that has ended is told here, by name: obstore's errors are not shown
    except (BotoCoreError, ClientError, ValueError, OSError) as error:
        source = f"AWS_PROFILE={shown(profile)}" if profile else "the AWS tools' configuration"
        advice = "look at: aws configure list; a login that has ended begins anew with: aws sso login"
        raise InvalidInputError(f"{source} gives no credentials ({type(error).__name__}); {advice}") from None
    arguments = {"credential_provider": provider, "region": region, "endpoint": endpoint}
    return {name: value for name, value in arguments.items() if value}


def _first(names: tuple[str, ...]) -> str:
    """The value of the first of some variables that is set; empty where none is."""
    return next(filter(None, map(os.environ.get, names)), "")


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
