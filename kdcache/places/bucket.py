"""A bucket is a place for a store in an object store (s3://, gs://, az://): `folder.Folder`'s contract over obstore.

A put is whole or absent, and creates by a condition, so that it replaces nothing. A call whose failure may pass is made
again here and not by obstore, for one reason: a conditional put whose answer was lost finds its own bytes then.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import ClosedError, DamagedError, FormatError, StoreError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.bucket_client import LIBRARY, SCHEMES, find_access, open_client, split_address
from kdcache.places.http_requests import shown
from kdcache.places.patience import Line, Pace, Patience, TryAgainError
from kdcache.places.read_only import Spans

T = TypeVar("T")
NO_CREDENTIALS = "was not asked for: there are no credentials, and this machine gives none"
MEND = "push the store again, whole, or use another copy of it"
STATUS = re.compile(r"status code: ([0-9]{3}[ A-Za-z]*)")
FINAL = re.compile(r"[34][0-9][0-9]")
PASSING = frozenset({"408", "429"})
NO_BUCKET = re.compile("<Code>(NoSuchBucket|ContainerNotFound)</Code>")  # in a 404, which otherwise means the key
MACHINE = re.compile(
    "latest/api/token|latest/meta-data|computeMetadata|metadata/identity"
)  # asked for credentials last
CREDENTIALS = {
    "s3": f"AWS_ACCESS_KEY_ID, ..., or AWS_PROFILE with {LIBRARY}",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, ...",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, ...",
}
SENDING = 15  # times the patience: a put is answered once all of it was sent


class Bucket(Spans):
    """A folder of a bucket or container as a place. Keys are relative, with forward slashes."""

    lists = True
    far = True
    mend = MEND

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self._address = split_address(url)
        self._access = find_access(self._address)
        self.root = str(self._address)
        self.patience = patience or http_requests.PATIENCE
        self._line = Line()
        self._client, self._writer = (
            open_client(self._address, self.patience, silence=factor * self.patience.timeout, access=self._access)
            for factor in (1, SENDING)
        )

    def path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None:
        """The bytes under a key, or None where there is nothing.

        Raises FormatError for more than `limit` bytes, before they are read, and StoreError where the store does not
        answer.
        """

        def read() -> bytes | None:
            result = self._request(key)
            if result is not None and (size := result.meta["size"]) > limit:
                advice = "it was not written by kdcache: fetch the store again"
                raise FormatError(f"{self.path(key)} has {size} bytes, allowed are {limit}; {advice}")
            return None if result is None else b"".join(self._pieces(key, result))

        return self._ask(key, read)

    def span(self, key: str, first: int, last: int, size: int) -> bytes:
        """Bytes first to last of an object of `size` bytes. Raises DamagedError where it has another size."""

        def read() -> bytes:
            result = self._request(key, (first, last + 1))
            if result is None:
                raise DamagedError(f"{self.path(key)} is missing; {MEND}")
            if (length := result.meta["size"]) != size:
                raise DamagedError(f"{self.path(key)} has {length} bytes, {size} were expected; {MEND}")
            return b"".join(self._pieces(key, result))

        return self._ask(key, read)

    def digest(self, key: str) -> str | None:
        """sha256 of the bytes under a key, or None where there is nothing."""

        def read() -> str | None:
            result, sha256 = self._request(key), hashlib.sha256()
            for piece in () if result is None else self._pieces(key, result):
                sha256.update(piece)
            return None if result is None else sha256.hexdigest()

        return self._ask(key, read)

    def size(self, key: str) -> int | None:
        """The number of bytes under a key, or None where there is nothing."""

        def read() -> int | None:
            try:
                return int(self._client.head(key)["size"])
            except FileNotFoundError:  # a bucket that is missing is told by the body, which a HEAD has not
                result = self._request(key)
                return None if result is None else int(result.meta["size"])

        return self._ask(key, read)

    def put_new(self, key: str, data: bytes) -> bool:
        """Create a key, whole or not at all. Returns False, and changes nothing, where the key exists.

        An answer that was lost may have been a yes: a later try that finds the key reads it, and compares.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        tries = 0

        def write() -> bool:
            nonlocal tries
            tries += 1
            try:
                self._writer.put(key, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return tries > 1 and self.get(key, limit=max(len(data), METADATA_LIMIT)) == data
            return True

        return self._ask(key, write)

    def put_same(self, key: str, data: bytes) -> None:
        """Create a key, or find it with these very bytes. Raises StoreError where it holds other bytes."""
        if not self.put_new(key, data) and self.get(key, limit=max(len(data), METADATA_LIMIT)) != data:
            raise StoreError(f"{self.path(key)} exists with other contents; use another address")

    def replace(self, key: str, data: bytes) -> None:
        """Write a key whole, over its old bytes: for the pointer to the latest seal and for the card, nothing else."""
        self._ask(key, lambda: self._writer.put(key, data, use_multipart=False))

    def delete(self, key: str) -> None:
        """Remove a key; a key that is gone stays gone."""

        def remove() -> None:
            try:
                self._client.delete(key)
            except FileNotFoundError as error:
                _require_bucket(error)

        self._ask(key, remove)

    def entries(self, prefix: str = "") -> dict[str, tuple[int, str]]:
        """Key -> (size, entity tag without its quotes) of each object under a prefix."""

        def read() -> dict[str, tuple[int, str]]:
            pages = self._client.list(prefix or None)
            objects = (entry for page in pages for entry in page)
            return {entry["path"]: (entry["size"], (entry["e_tag"] or "").strip('"')) for entry in objects}

        return self._ask(prefix, read)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under a prefix, sorted."""
        yield from sorted(self.entries(prefix))

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under a prefix."""
        listing = self._ask(prefix, lambda: self._client.list_with_delimiter(prefix or None))
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in listing["common_prefixes"])

    def has_folder(self, prefix: str) -> bool:
        """True where an object lies under a prefix."""
        return self._ask(prefix, lambda: any(page for page in self._client.list(prefix, chunk_size=1)))

    def nothing(self, key: str) -> StoreNotFoundError:
        """The error to raise where the object that makes a folder a store is missing."""
        problem = f"{self.path(key)} is not there, so {self.root} is no store"
        return StoreNotFoundError(f"{problem}; check the address, or publish one: kdcache push STORE {self.root}")

    def _request(self, key: str, span: tuple[int, int] | None = None) -> Any:
        try:
            return self._client.get(key, options={} if span is None else {"range": span})
        except FileNotFoundError as error:
            _require_bucket(error)
            return None

    def _pieces(self, key: str, result: Any) -> Iterator[bytes]:
        """The body, as long as its headers say. Raises TryAgainError for a shorter or longer one, or one that drips."""
        if str(result.attributes.get("Content-Type", "")).lower().startswith("text/html"):
            raise StoreError(
                f"{self.path(key)} came as a web page, not a file; check the endpoint, and what stands before"
            )
        start, stop = result.range
        count, pace, began = 0, Pace(self._line, self.patience), time.monotonic()
        for piece in result.stream(min_chunk_size=1):  # each as it comes, so that a drip is seen
            count += len(piece)
            if count > stop - start:
                break
            if count < stop - start:
                pace.note(len(piece), time.monotonic() - began)
            yield bytes(piece)
            began = time.monotonic()
        if count != stop - start:
            raise TryAgainError(f"sent {count} of {stop - start} bytes")

    def _ask(self, key: str, call: Callable[[], T]) -> T:
        """The result of a call, made again while its failure may pass. Raises StoreError without the server's words."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        def once() -> T:
            try:
                return call()
            except (PermissionDeniedError, UnauthenticatedError) as error:
                self._refuse(key, error)
            except (BaseError, FileNotFoundError) as error:
                if NO_BUCKET.search(str(error)):
                    raise self._no_bucket() from None
                reason, final = _reason(error)
                raise TryAgainError(reason, final=final) from None

        def refusal(error: TryAgainError, tries: str) -> StoreError:
            noun = self._credentials if str(error) == NO_CREDENTIALS else "address, endpoint and region"
            advice = f"check {noun}, and run the same command again: nothing is half written"
            return StoreError(f"{self.path(key)} {error}, {tries}; {advice}")

        return self.patience.outlast(once, refusal)

    def _no_bucket(self) -> StoreNotFoundError:
        kind, server = SCHEMES[self._address.scheme], self._access.server
        problem = f"{self.root}: there is no {kind} {self._address.bucket}" + (f" at {server}" if server else "")
        return StoreNotFoundError(f"{problem}; check its name, the endpoint and the region, or make the {kind} first")

    def _refuse(self, key: str, error: Exception) -> NoReturn:
        advice = f"check {self._credentials} and what they may do"
        raise ClosedError(f"{self.path(key)} {_reason(error)[0]}; {advice}") from None

    @property
    def _credentials(self) -> str:
        return f"the credentials in the environment ({CREDENTIALS[self._address.scheme]})"


def _require_bucket(error: FileNotFoundError) -> None:
    """Raises the error again where it says that the bucket is missing, not the key."""
    if NO_BUCKET.search(str(error)):
        raise error


def _reason(error: Exception) -> tuple[str, bool]:
    """The reason of a failure in a few words of ours, and true where it is final.

    The text of obstore is not shown, since it quotes addresses and bodies.
    """
    text = str(error)
    if MACHINE.search(text):
        return NO_CREDENTIALS, False
    if match := STATUS.search(text):
        status = match[1].strip()
        return f"answered {status}", bool(FINAL.match(status)) and status[:3] not in PASSING
    if "non-partial" in text:
        return "was sent whole, though some of its bytes were asked for: the server has no range requests", True
    if "Requested" in text and "got" in text:
        return "answered with other bytes than were asked for", True
    kind = re.search(r"kind: ([A-Za-z]+)", text)
    return f"gave no usable answer ({shown(kind[1] if kind else type(error).__name__)})", False
