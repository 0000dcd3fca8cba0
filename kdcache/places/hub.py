"""A store in a Hugging Face data set repository is named by an hf:// address, and its files are read only.

The hub answers for small files itself and points to another server for large ones. kdcache asks both as it asks any web
server, bounded in time and bytes; the token goes to the hub alone. huggingface-hub names the hub and the token.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from kdcache.errors import InvalidInputError, StoreError, StoreNotFoundError
from kdcache.places.http_requests import Extra, Origin, Reply, shown, split_url
from kdcache.places.web import WebFolder

T = TypeVar("T")
FORM = "hf://datasets/OWNER/NAME[@REVISION]/PATH"
ADDRESS = re.compile(r"hf://datasets/(\w[\w.-]{0,95})/(\w[\w.-]{0,95})(?:@([^@]+?))?(?:/(.*))?", re.ASCII)
SPECIAL = re.compile(r"(refs/(?:pr|convert)/[^/]+)(?:/(.*))?")  # a revision with slashes that addresses write plainly
COMMIT = re.compile("[0-9a-f]{40}")
HOPS = 4  # redirects that are followed
LOGIN = "set HF_TOKEN to one that may, or log in with: hf auth login"
EXPIRED = frozenset({400, 401, 403, 404, 410})


@dataclass(frozen=True)
class HubAddress:
    """The address of a store on the hub: repository, revision, and the folder in it, empty for the whole repository."""

    repository: str
    revision: str
    path: str

    @property
    def text(self) -> str:
        """The address as people write it."""
        revision = "" if self.revision == "main" else f"@{quote(self.revision, safe='')}"
        return f"hf://datasets/{self.repository}{revision}" + (f"/{self.path}" if self.path or revision else "")

    def inside(self, key: str) -> str:
        """The path of a store's file in the repository."""
        return f"{self.path}/{key}" if self.path else key


def split_hub(url: str) -> HubAddress:
    """An hf:// address in parts. Raises InvalidInputError for other addresses.

    A slash follows a revision and tells it from a pin: `@main/` and `@0a1b...`.
    """
    match = ADDRESS.fullmatch(url)
    if match is None:
        raise InvalidInputError(f"{shown(url)} is no address of a data set repository; write {FORM}")
    owner, name, revision, path = match.groups()
    if revision and path is None:
        advice = f"write {FORM}, with a slash behind the revision even where no path follows, and pins at the very end"
        raise InvalidInputError(f"{shown(url)} ends in @{shown(revision)}, which is no pin of 32 hex digits; {advice}")
    if revision == "refs" and (special := SPECIAL.fullmatch(f"refs/{path}")):
        revision, path = special[1], special[2] or ""
    path = (path or "").strip("/")
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise InvalidInputError(f"{shown(url)} has a path that could lead elsewhere; write {FORM}")
    return HubAddress(f"{owner}/{name}", unquote(revision or "main"), path)


@dataclass(frozen=True)
class Hub:
    """A hub by its endpoint, and the token for it."""

    endpoint: str
    token: str | None = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def find_hub() -> Hub:
    """The hub and token of huggingface-hub: HF_ENDPOINT, HF_TOKEN or its login. Raises InvalidInputError without it."""
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise InvalidInputError("hf:// addresses need huggingface-hub; run: pip install 'kdcache[hub]'") from error
    if constants.HF_HUB_OFFLINE:
        raise InvalidInputError("HF_HUB_OFFLINE is set, and the store lies on the hub; unset it, or use a local copy")
    token = huggingface_hub.get_token()
    if token and not (token.isascii() and token.isprintable()):
        raise InvalidInputError(
            "the hub's token (HF_TOKEN, or its login) holds characters that no token has; set it anew"
        )
    return Hub(constants.ENDPOINT, token)


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it: its size, and `elsewhere`, true where another server has its bytes."""

    size: int
    elsewhere: bool


class HubServer:
    """The hub as a server for the files of one commit of a repository; it is followed to where their bytes are."""

    def __init__(self, address: HubAddress, hub: Hub) -> None:
        self.address, self.hub, self.root = address, hub, address.text
        self._parts = split_url(hub.endpoint)
        self._origins: dict[tuple[str, str], Origin] = {}
        self._commit = ""
        self._elsewhere: dict[str, SplitResult] = {}
        self._files: dict[str, HubFile] = {}

    def ask(self, key: str, read: Callable[[Reply], T], *, byte_range: str = "") -> T:
        """The result of `read` on the answer that holds a file.

        Raises StoreError, naming a remedy, for a hub that does not know the repository or the token.
        """
        if (address := self._elsewhere.get(key)) is not None:
            try:
                return self._follow(key, address, read, byte_range)
            except _ExpiredError:
                self._elsewhere.pop(key, None)
        try:
            return self._follow(key, self._resolve(key), read, byte_range)
        except _ExpiredError as error:
            raise StoreError(f"{self.root}/{key}: {error}; run the same command again later") from error

    def size(self, key: str) -> int | None:
        """The number of bytes of a file by its headers, or None where there is no file."""
        if key not in self._files:
            file = self._follow(key, self._resolve(key), self._measure(key), method="HEAD")
            if file is None:
                return None
            self._files[key] = file
        return self._files[key].size

    def ranges(self, key: str) -> bool:
        """True where parts of a file can be asked for: not of those in git, which are small."""
        return self.size(key) is None or self._files[key].elsewhere

    def _measure(self, key: str) -> Callable[[Reply], HubFile | None]:
        def read(reply: Reply) -> HubFile | None:
            if reply.status == 404:
                return None
            if reply.status != 200 and reply.location is None:
                raise StoreError(
                    f"{self.root}/{key}: the hub answered {reply.status_line}; run the same command again later"
                )
            size = reply.header("X-Linked-Size") or reply.header("Content-Length")
            if not re.fullmatch("[0-9]{1,18}", size):
                raise StoreError(f"{self.root}/{key}: the hub said no size; check the endpoint {self.hub.endpoint}")
            return HubFile(int(size), elsewhere=bool(reply.header("X-Linked-Size")))

        return read

    def _resolve(self, key: str) -> SplitResult:
        """The hub's own address of a file, of one commit for as long as this object lives."""
        revision = quote(self._commit or self.address.revision, safe="")
        path = f"/datasets/{self.address.repository}/resolve/{revision}/{quote(self.address.inside(key))}"
        return self._parts._replace(path=f"{self._parts.path.rstrip('/')}{path}")

    def _follow(
        self, key: str, address: SplitResult, read: Callable[[Reply], T], byte_range: str = "", method: str = "GET"
    ) -> T:
        """Ask an address, then those that answers point to; the token is left out from the first other server on."""
        at_hub = is_same_origin(address, self._parts)
        for _ in range(HOPS):
            headers = self.hub.headers if at_hub else {}
            step = _Step(self, key, read, at_hub, method)
            extra = Extra(method, headers, address.query)
            value = self._origin(address).ask(address.path, step.read, byte_range=byte_range, extra=extra)
            if step.next is None:
                return value  # type: ignore[return-value]
            address = step.next
            if at_hub and not is_same_origin(address, self._parts):
                self._elsewhere[key], at_hub = address, False
        raise StoreError(f"{self.root}/{key}: the hub points on and on, {HOPS} times; check the endpoint")

    def _origin(self, parts: SplitResult) -> Origin:
        safe = parts.scheme in ("https", self._parts.scheme) and parts.hostname and "@" not in parts.netloc
        if not safe or _port_of(parts) is None:
            problem = f"{self.root}: the hub points to {shown(parts.scheme)}://{shown(parts.hostname or '')}"
            raise StoreError(f"{problem}, which is no https:// address without a password; check {self.hub.endpoint}")
        return self._origins.setdefault((parts.scheme, parts.netloc), Origin(parts))

    @property
    def commit(self) -> str:
        """The commit of all files; empty before the first answer."""
        return self._commit

    def keep(self, commit: str) -> None:
        """Keep the commit of the first answer for all files: a push in the meantime changes nothing."""
        if not self._commit and COMMIT.fullmatch(commit):
            self._commit = commit


class _ExpiredError(Exception):
    """An address of another server that no longer holds: those that the hub gives out are signed for a while."""


class _Step:
    """One answer on the way to a file."""

    def __init__(self, server: HubServer, key: str, read: Callable[[Reply], T], at_hub: bool, method: str) -> None:
        self._server, self._key, self._read, self._at_hub, self._method = server, key, read, at_hub, method
        self.next: SplitResult | None = None

    def read(self, reply: Reply) -> object:
        server, self.next = self._server, None
        if self._at_hub:
            server.keep(reply.header("X-Repo-Commit"))
            _refuse(reply, server, self._key)
        elif reply.status in EXPIRED:
            raise _ExpiredError(f"{shown(urlsplit(reply.url).netloc)} answered {reply.status_line}")
        address = reply.location
        if address is None or (self._method == "HEAD" and reply.header("X-Linked-Size")):
            reply.url = f"{server.root}/{self._key}"
            value = self._read(reply)
            if self._method == "HEAD":
                reply.body(0)
            return value
        self.next = address
        return None


def open_hub(url: str) -> WebFolder:
    """The folder of a data set repository that an hf:// address names, as a place."""
    address = split_hub(url)
    return WebFolder(address.text, HubServer(address, find_hub()))


def is_same_origin(one: SplitResult, other: SplitResult) -> bool:
    """True where two addresses are of one server, by scheme, host and port."""
    return _origin_of(one) == _origin_of(other)


def _origin_of(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, _port_of(parts)


def _port_of(parts: SplitResult) -> int | None:
    """The port of an address; None where it has no valid one."""
    try:
        return parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None


def _refuse(reply: Reply, server: HubServer, key: str) -> None:
    """Raises StoreNotFoundError or StoreError where the hub answers for the repository, not for a file."""
    code, name = shown(reply.header("X-Error-Code")), f"hf://datasets/{server.address.repository}"
    answer = f"{name}: the hub at {server.hub.endpoint} answered {reply.status_line}" + (f" ({code})" if code else "")
    reason = "the token that was given may not read it" if server.hub.token else "it wants a token"
    if code == "RevisionNotFound":
        raise StoreNotFoundError(f"{answer}: there is no revision {server.address.revision}; check the address")
    if code == "RepoNotFound" or reply.status == 401:
        raise StoreNotFoundError(f"{answer}: there is no such repository, or {reason}; {LOGIN}")
    if code == "GatedRepo":
        raise StoreError(f"{answer}: its owner grants access; ask for it on the repository's page, then {LOGIN}")
    if reply.status == 403:
        raise StoreError(f"{answer} to {key}: {reason}; {LOGIN}")
