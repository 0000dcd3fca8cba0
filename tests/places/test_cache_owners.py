"""A cache serves this user's files, or root's: one that another user owns or may write to is refused, by real users."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.canonical import sha256_hex
from kdcache.errors import InvalidInputError
from kdcache.places.cache import Cache
from kdcache.store.store import Store
from tests.kits.stores import make_case, write_store
from tests.kits.users import ATTACKER, VICTIM, as_user, open_to_all, require_root
from tests.kits.web import serving

GOOD, BAD = b"A" * 4096, b"B" * 4096
SHA256 = sha256_hex(GOOD)
LIMIT = 10**9
FILE = f"sha256/{SHA256[:2]}/{SHA256}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for caches, which is open to all."""
    require_root()
    with open_to_all() as folder:
        yield folder


def serve(cache: Path) -> bytes | None:
    """The bytes that a process gets from a cache."""
    with Cache(cache, LIMIT).opened(SHA256, len(GOOD)) as file:
        return None if file is None else file.part(0, len(GOOD))


def keep(cache: Path, data: bytes = GOOD) -> bool:
    Cache(cache, LIMIT).put(sha256_hex(data), [data], "a file")
    return True


def keeps(cache: Path) -> bool:
    return Cache(cache, LIMIT).keeps


def files(cache: Path) -> int:
    return Cache(cache, LIMIT).usage().files


def clear(cache: Path) -> int:
    return Cache(cache, LIMIT).clear().files


def lay(path: Path, mode: int = 0o644) -> None:
    """A file of the cache, put there by hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(GOOD)
    path.chmod(mode)


def own(path: Path, uid: int) -> None:
    os.chown(path, uid, uid)


@pytest.mark.parametrize("operation", [serve, keep, keeps, files, clear])
def test_a_cache_of_another_user_is_refused_by_name(folder: Path, operation: object) -> None:
    """He could change a file after it was hashed: what he serves is neither read nor counted, and nothing is put there
    or removed."""
    cache = folder / "his"
    as_user(ATTACKER, lay, cache / FILE)
    with pytest.raises(InvalidInputError) as caught:
        as_user(VICTIM, operation, cache)  # type: ignore[arg-type]
    for word in (str(cache), f"uid {ATTACKER}", f"uid {VICTIM}", "KDCACHE_CACHE"):
        assert word in str(caught.value)
    assert (cache / FILE).read_bytes() == GOOD


def read_around(cache: Path) -> tuple[bytes | None, bytes | None]:
    """What a cache serves before and after its owner has written through a map of the file, which changes no time."""
    victim, path = Cache(cache, LIMIT), cache / FILE
    served = []
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, len(GOOD)) as pages:
        pages[:] = GOOD
        for data in (GOOD, BAD):
            pages[:] = data
            with victim.opened(SHA256, len(GOOD)) as file:
                served.append(None if file is None else file.part(0, 1))
    os.close(descriptor)
    return served[0], served[1]


def test_a_file_that_others_may_write_is_not_served(folder: Path) -> None:
    """In a cache of this user's own: such a file is not his word, is removed, and is fetched again."""
    cache = folder / "mine"
    as_user(VICTIM, keep, cache)
    assert as_user(VICTIM, serve, cache) == GOOD
    (cache / FILE).chmod(0o666)
    assert as_user(VICTIM, read_around, cache) == (None, None)
    assert not (cache / FILE).exists()
    as_user(VICTIM, keep, cache)
    (cache / FILE).chmod(0o644)
    own(cache / FILE, ATTACKER)
    assert as_user(VICTIM, serve, cache) is None
    assert not (cache / FILE).exists()


@pytest.mark.parametrize("part", ["", "sha256", f"sha256/{SHA256[:2]}"])
def test_each_folder_of_a_cache_has_an_owner(folder: Path, part: str) -> None:
    cache = folder / "mine"
    as_user(VICTIM, keep, cache)
    own(cache / part, ATTACKER)
    (cache / part).chmod(0o755)
    for operation in (serve, keep):
        with pytest.raises(InvalidInputError, match=f"uid {ATTACKER}"):
            as_user(VICTIM, operation, cache)


@pytest.mark.parametrize("mode", [0o770, 0o1777])
@pytest.mark.parametrize("part", ["sha256", f"sha256/{SHA256[:2]}"])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, part: str, mode: int) -> None:
    cache = folder / "mine"
    as_user(VICTIM, keep, cache)
    (cache / part).chmod(mode)
    with pytest.raises(InvalidInputError, match=r"may be written by others .*KDCACHE_CACHE"):
        as_user(VICTIM, serve, cache)


@pytest.mark.parametrize("part", ["sha256", f"sha256/{SHA256[:2]}", FILE])
def test_links_in_a_cache_are_not_followed(folder: Path, part: str) -> None:
    """Not even to what is this user's own."""
    cache, real = folder / "mine", folder / "real"
    as_user(VICTIM, keep, real)
    (cache / part).parent.mkdir(parents=True, exist_ok=True)
    for path in (cache, *cache.rglob("*")):
        own(path, VICTIM)
        path.chmod(0o700)
    (cache / part).symlink_to(real / part)
    if part == FILE:
        assert as_user(VICTIM, serve, cache) is None
    else:
        with pytest.raises(InvalidInputError, match="cannot be opened"):
            as_user(VICTIM, serve, cache)
    assert as_user(VICTIM, serve, real) == GOOD


def test_the_folder_that_is_named_may_be_a_link_and_lie_anywhere(folder: Path) -> None:
    """Beneath a colleague's folder, or in one that all may write to: whoever exchanges it owns what he puts there."""
    colleague = folder / "project"
    colleague.mkdir()
    colleague.chmod(0o777)
    own(colleague, ATTACKER)
    as_user(VICTIM, keep, colleague / "mine")
    assert as_user(VICTIM, serve, colleague / "mine") == GOOD
    (folder / "link").symlink_to(colleague / "mine")
    assert as_user(VICTIM, serve, folder / "link") == GOOD
    (colleague / "mine").rename(colleague / "was")
    as_user(ATTACKER, lay, colleague / "mine" / FILE)
    with pytest.raises(InvalidInputError, match=f"uid {ATTACKER}"):
        as_user(VICTIM, serve, colleague / "mine")


def test_roots_cache_is_read_by_all_and_changed_by_none(folder: Path) -> None:
    """A team's: root owns it, and nobody else may write to it."""
    cache = folder / "team"
    lay(cache / FILE)
    lay(cache / f"sha256/{SHA256[:2]}/{sha256_hex(BAD)}", mode=0o666)
    assert as_user(VICTIM, serve, cache) == GOOD
    assert as_user(VICTIM, keeps, cache) is False
    assert as_user(VICTIM, files, cache) == 2
    for operation in (keep, clear):
        with pytest.raises(InvalidInputError, match=r"you alone may use|only root may clear it"):
            as_user(VICTIM, operation, cache)
    assert (cache / FILE).read_bytes() == GOOD
    (cache / "sha256").chmod(0o777)
    with pytest.raises(InvalidInputError, match="may be written by others"):
        as_user(VICTIM, serve, cache)


def read_rows(cache: Path, url: str) -> int:
    """The rows that a process reads of a far store, through the cache that its environment names."""
    os.environ["KDCACHE_CACHE"] = str(cache)
    os.environ.pop("KDCACHE_CACHE_LIMIT", None)
    return len(Store.open(url).load(0, np.arange(8)).arrays["classes"])


def test_a_far_store_is_read_with_an_own_cache_or_roots_and_not_with_anothers(folder: Path, tmp_path: Path) -> None:
    """Root's, which lacks the files, is left as it is."""
    case = make_case(rows=100)
    write_store(tmp_path / "a.kd", case).seal()
    (folder / "team/sha256").mkdir(parents=True)
    as_user(ATTACKER, keep, folder / "his")
    with serving(tmp_path) as site:
        url = f"{site.url}/a.kd"
        assert as_user(VICTIM, read_rows, folder / "mine", url) == 8
        assert as_user(VICTIM, read_rows, folder / "team", url) == 8
        with pytest.raises(InvalidInputError, match=f"uid {ATTACKER}"):
            as_user(VICTIM, read_rows, folder / "his", url)
    assert as_user(VICTIM, files, folder / "mine") > 0
    assert list((folder / "team/sha256").iterdir()) == []
