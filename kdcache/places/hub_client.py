"""The hub's own client uploads and commits, and its errors become errors of ours; our own requests list a repository.

huggingface-hub asks by requests, httpx or httpx2, by its version: nothing here names one of them. It follows a listing
to any server that the hub names, with the token. Its messages may hold signed addresses, so only the hub's own words
are shown of them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pydantic import BaseModel, TypeAdapter

from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import StoreError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.http_requests import RETRIED, Extra, Origin, Reply, TooLongError, shown, split_url
from kdcache.places.hub import LOGIN, Hub, HubAddress, is_same_origin
from kdcache.places.patience import Patience, TryAgainError

T = TypeVar("T")
CONFLICTS = frozenset({409, 412})  # somebody else committed meanwhile
NEXT = re.compile(r'<([^<>]*)>; *rel="?next')
PAGES = 10_000  # of a listing, 1,000 files each
SENDING = 50  # times the budget of other requests: a batch that is sent again takes minutes


class _Large(BaseModel):
    oid: str  # sha256


class _Entry(BaseModel):
    """One file or folder of a listing."""

    type: str
    path: str
    size: int = 0
    oid: str
    lfs: _Large | None = None


ENTRIES = TypeAdapter(list[_Entry])


@dataclass(frozen=True)
class Standing:
    """A file of a repository: its size, its sha256 (empty unless it is a large file), and its git object id."""

    size: int
    sha256: str
    git: str


class NoRepositoryError(StoreNotFoundError):
    """The repository does not exist, or the token may not see it."""


class _FailedError(TryAgainError):
    """A request that failed; `status` is 0 where no answer came, and `words` are the hub's."""

    def __init__(self, status: int, words: str, *, passes: bool = False) -> None:
        super().__init__(f"answered {status}", final=not (passes or status in RETRIED | CONFLICTS))
        self.status, self.words = status, shown(words)


def sending_patience() -> Patience:
    """The patience for what is sent to the hub."""
    return replace(http_requests.PATIENCE, budget=SENDING * http_requests.PATIENCE.budget)


@dataclass(frozen=True)
class HubClient:
    """A client for a repository that is written to. Every call is made again while its failure may pass."""

    address: HubAddress
    hub: Hub
    jobs: int

    @cached_property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.hub.endpoint, token=self.hub.token, library_name="kdcache")

    @property
    def _name(self) -> str:
        return f"{self.address.text}: the hub at {self.hub.endpoint}"

    @property
    def _where(self) -> dict[str, Any]:
        return {"repo_id": self.address.repository, "repo_type": "dataset"}

    def create(self) -> None:
        """Make the repository, private; one that is there stays as it is."""
        self._ask(lambda: self._api.create_repo(**self._where, private=True, exist_ok=True))

    def listed(self, commit: str = "") -> dict[str, Standing] | None:
        """Every file of the repository, now or at a commit; None where there is no repository."""
        hub, revision = split_url(self.hub.endpoint), quote(commit or self.address.revision, safe="")
        path = f"{hub.path.rstrip('/')}/api/datasets/{self.address.repository}/tree/{revision}"
        page: SplitResult | None = hub._replace(path=path, query="recursive=true")
        files: dict[str, Standing] = {}
        try:
            for _ in range(PAGES):
                if page is None:
                    return files
                entries, page = self._page(Origin(hub), page)
                files |= {
                    entry.path: Standing(entry.size, entry.lfs.oid if entry.lfs else "", entry.oid)
                    for entry in entries
                    if entry.type == "file"
                }
        except NoRepositoryError:
            return None
        raise StoreError(f"{self._name} lists more than {PAGES} pages of files; check the endpoint")

    def _page(self, hub: Origin, page: SplitResult) -> tuple[list[_Entry], SplitResult | None]:
        """Entries of one page of a listing, and the address of the next page, which must lie on the hub too."""

        def read(reply: Reply) -> tuple[list[_Entry], SplitResult | None]:
            if reply.status != 200 and reply.location is None:
                if reply.header("X-Error-Code") == "RepoNotFound":
                    raise NoRepositoryError(f"{self._name} answered {reply.status_line}")
                raise _FailedError(reply.status, reply.header("X-Error-Message"))
            link = NEXT.search(reply.header("Link"))
            following = urlsplit(urljoin(reply.url, link[1])) if link else reply.location
            if following is not None and not is_same_origin(following, page):
                there = shown(f"{following.scheme}://{following.netloc.rpartition('@')[2]}")
                raise StoreError(f"{self._name} lists on at {there}, which gets no token; check the endpoint")
            try:
                return ENTRIES.validate_json(reply.body(METADATA_LIMIT)) if reply.status == 200 else [], following
            except (ValueError, TooLongError):
                raise StoreError(f"{self._name} answered with no listing of files; check the endpoint") from None

        extra = Extra(headers=self.hub.headers, query=page.query)
        return self._ask(lambda: hub.once(page.path, read, extra=extra), http_requests.PATIENCE)

    def upload(self, files: Sequence[tuple[str, bytes]]) -> list[Any]:
        """Send the bytes of files that are to be committed; those that the hub keeps in git travel with the commit."""
        from huggingface_hub import CommitOperationAdd

        batch = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files]
        options = {"revision": self.address.revision, "num_threads": self.jobs, "free_memory": True}
        self._ask(lambda: self._api.preupload_lfs_files(**self._where, additions=batch, **options))
        return batch

    def commit(self, batch: Sequence[Any], parent: str | None = None) -> bool:
        """Make uploaded files part of the repository, all at once.

        A commit whose answer was lost is made twice, with the same files. With a `parent` the new commit follows that
        one alone: where another came meanwhile this returns False, and nothing has changed.
        """
        from huggingface_hub.errors import HfHubHTTPError

        options = {"revision": self.address.revision, "num_threads": self.jobs, "parent_commit": parent}
        message = f"kdcache push: {len(batch)} files"

        def make() -> bool:
            try:
                self._api.create_commit(**self._where, operations=batch, commit_message=message, **options)
            except HfHubHTTPError as error:
                if parent is not None and error.response.status_code in CONFLICTS:
                    return False
                raise
            return True

        return self._ask(make)

    def _ask(self, call: Callable[[], T], patience: Patience | None = None) -> T:
        """The result of a call, made again while its failure may pass; without a patience, with that of sending."""
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        # the root of all errors of the library that huggingface-hub asks by
        library_error: Any = next(
            kind for kind in HfHubHTTPError.__mro__[1:] if getattr(kind.__base__, "__module__", "") == "builtins"
        )

        def once() -> T:
            try:
                return call()
            except (library_error, OSError, RuntimeError, ValueError) as error:
                answer = _cause(error, HfHubHTTPError)
                status = 0 if answer is None else int(answer.response.status_code)
                failure = _FailedError(
                    status,
                    str(getattr(answer, "server_message", None) or ""),
                    passes=answer is None and _cause(error, library_error) is not None,
                )
                if _cause(error, RepositoryNotFoundError) is not None and status != 403:
                    raise NoRepositoryError(self._message(failure)) from None
                raise failure from list(_chain(error))[-1]

        return (patience or sending_patience()).outlast(once, self._refusal)

    def _refusal(self, error: TryAgainError, tries: str) -> StoreError:
        advice = {
            401: f"the token is not known; {LOGIN}",
            403: f"the token may not write to it; {LOGIN}",
            404: f"there is no revision {self.address.revision} that the token sees; make the branch, or {LOGIN}",
            413: "the hub takes no more; write the store to one file (kdcache export), and put that there instead",
        }.get(getattr(error, "status", 0), "run the same command again: what was committed stays")
        return StoreError(f"{self._message(error)}; {advice}")

    def _message(self, error: TryAgainError) -> str:
        words = getattr(error, "words", "")
        answer = str(error)
        if not getattr(error, "status", 0) and error.__cause__ is not None:
            answer = f"gave no answer that counts ({type(error.__cause__).__name__})"
        return f"{self._name} {answer}" + (f" ({words})" if words else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _cause(error: Exception, kind: Any) -> Any:
    return next((link for link in _chain(error) if isinstance(link, kind)), None)


@contextmanager
def quiet() -> Iterator[None]:
    """The client's own progress bars are off meanwhile: ours is shown."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
