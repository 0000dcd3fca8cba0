"""The hub's own client lists, uploads and commits; its errors become errors of ours.

huggingface-hub 2 tries uploads and listings again by itself, commits never. Its messages may hold signed addresses, so
only the hub's own words are shown of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from time import sleep
from typing import Any, NoReturn, TypeVar

from kdcache.errors import StoreError, StoreNotFoundError
from kdcache.places import http_requests
from kdcache.places.http_requests import RETRIED, shown
from kdcache.places.hub import LOGIN, Hub, HubAddress
from kdcache.places.patience import jittered

T = TypeVar("T")
CONFLICTS = frozenset({409, 412})  # somebody else committed meanwhile


@dataclass(frozen=True)
class Standing:
    """A file of a repository: its size, its sha256 (empty unless it is a large file), and its git object id."""

    size: int
    sha256: str
    git: str


class NoRepositoryError(StoreNotFoundError):
    """The repository does not exist, or the token may not see it."""


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
    def _where(self) -> dict[str, Any]:
        return {"repo_id": self.address.repository, "repo_type": "dataset"}

    def create(self) -> None:
        """Make the repository, private; one that is there stays as it is."""
        self._ask(lambda: self._api.create_repo(**self._where, private=True, exist_ok=True))

    def listed(self, commit: str = "") -> dict[str, Standing] | None:
        """Every file of the repository, now or at a commit; None where there is no repository."""

        def read() -> dict[str, Standing]:
            tree = self._api.list_repo_tree(**self._where, recursive=True, revision=commit or self.address.revision)
            files = [entry for entry in tree if hasattr(entry, "blob_id")]
            return {file.path: Standing(file.size, file.lfs.sha256 if file.lfs else "", file.blob_id) for file in files}

        try:
            return self._ask(read)
        except NoRepositoryError:
            return None

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
                if parent is not None and _status(error) in CONFLICTS:
                    return False
                raise
            return True

        return self._ask(make)

    def _ask(self, call: Callable[[], T]) -> T:
        import httpx2
        from huggingface_hub import errors

        pause, patience = http_requests.PATIENCE.pause, http_requests.PATIENCE
        for tries in range(1, patience.tries + 1):
            try:
                return call()
            except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
                status = _status(error)
                if _cause(error, errors.RepositoryNotFoundError) is not None and status != 403:
                    raise NoRepositoryError(self._message(status, error)) from None
                temporary = status in RETRIED | CONFLICTS or _cause(error, httpx2.TransportError) is not None
                if tries == patience.tries or not temporary:
                    self._refuse(status, error)
            sleep(jittered(pause, patience))
            pause *= 2
        raise AssertionError

    def _refuse(self, status: int, error: Exception) -> NoReturn:
        advice = {
            401: f"the token is not known; {LOGIN}",
            403: f"the token may not write to it; {LOGIN}",
            404: f"there is no revision {self.address.revision} that the token sees; make the branch, or {LOGIN}",
            413: "the hub takes no more; write the store to one file (kdcache export), and put that there instead",
        }.get(status, "run the same command again: what was committed stays")
        raise StoreError(f"{self._message(status, error)}; {advice}") from None

    def _message(self, status: int, error: Exception) -> str:
        answer = f"answered {status}" if status else f"gave no answer that counts ({type(_first(error)).__name__})"
        words = shown(str(getattr(_http(error), "server_message", None) or ""))
        return f"{self.address.text}: the hub at {self.hub.endpoint} {answer}" + (f" ({words})" if words else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _first(error: Exception) -> BaseException:
    return list(_chain(error))[-1]


def _cause(error: Exception, kind: Any) -> BaseException | None:
    return next((link for link in _chain(error) if isinstance(link, kind)), None)


def _http(error: Exception) -> Any:
    from huggingface_hub.errors import HfHubHTTPError

    return _cause(error, HfHubHTTPError)


def _status(error: Exception) -> int:
    http_error = _http(error)
    return 0 if http_error is None else int(http_error.response.status_code)


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
