"""The cache of far stores: by content, checked, bounded, this user's alone, and safe for many at once."""

import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.canonical import sha256_hex
from kdcache.errors import DamagedError, InvalidInputError
from kdcache.places.cache import USED, Cache, open_cache
from tests.kits.forks import forks

DATA = [bytes([number]) * 1000 for number in range(40)]


def keep(cache: Cache, data: bytes) -> str:
    sha256 = sha256_hex(data)
    cache.put(sha256, [data[:10], data[10:]], "file")
    return sha256


def kept(cache: Cache, data: bytes) -> bytes | None:
    with cache.opened(sha256_hex(data), len(data)) as file:
        return None if file is None else file.part(0, len(data))


def test_what_is_kept_is_read_back_and_nobody_else_may_look(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**6)
    assert kept(cache, DATA[1]) is None
    sha256 = keep(cache, DATA[1])
    assert kept(cache, DATA[1]) == kept(Cache(tmp_path / "cache", 10**6), DATA[1]) == DATA[1]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").rglob("*")}
    assert set(modes.values()) == {0o700, 0o600}
    assert (cache.usage().files, cache.usage().bytes) == (1, 1000)
    with cache.opened(sha256, 999) as file:
        assert file is None


def test_other_bytes_are_neither_kept_nor_served(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**6)
    with pytest.raises(DamagedError, match=r"file has sha256 .*, committed was"):
        cache.put(sha256_hex(DATA[1]), [DATA[2]], "file")
    assert cache.usage().files == 0
    sha256 = keep(cache, DATA[3])
    path = tmp_path / "cache/sha256" / sha256[:2] / sha256
    path.write_bytes(DATA[3][:-1] + b"!")  # same size
    fresh = Cache(tmp_path / "cache", 10**6)
    assert kept(fresh, DATA[3]) is None
    assert not path.exists()
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(DATA[3])
    assert kept(Cache(tmp_path / "cache", 10**6), DATA[3]) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 20_000)
    for number, data in enumerate(DATA[:20]):
        sha256 = keep(cache, data)
        os.utime(cache.folder / sha256[:2] / sha256, (number, number))
    fresh = Cache(tmp_path / "cache", 20_000)
    assert kept(fresh, DATA[0]) == DATA[0]  # used now
    keep(fresh, DATA[20])
    assert fresh.usage().bytes <= 18_000
    assert kept(fresh, DATA[0]) == DATA[0]
    assert kept(fresh, DATA[1]) is None
    assert kept(fresh, DATA[20]) == DATA[20]


def test_use_is_noted_now_and_then_in_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache", 20_000)
    path = cache.folder / keep(cache, DATA[0])[:2] / sha256_hex(DATA[0])
    assert kept(cache, DATA[0]) == DATA[0]
    first, now = path.stat().st_mtime_ns, time.time()
    for later, noted in ((60, False), (USED + 60, True)):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        assert kept(cache, DATA[0]) == DATA[0]
        assert (path.stat().st_mtime_ns > first) == noted


def test_a_folder_that_others_may_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache/sha256").mkdir(parents=True)
    (tmp_path / "cache/sha256").chmod(0o755)
    with pytest.raises(InvalidInputError, match=r"is not a folder that you alone may use \(mode 0700\); move it away"):
        keep(Cache(tmp_path / "cache", 10**6), DATA[0])


def test_the_environment_says_where_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "named"))
    monkeypatch.setenv("KDCACHE_CACHE_LIMIT", "3 GB".replace(" ", ""))
    assert (open_cache().folder, open_cache().limit) == (tmp_path / "named/sha256", 3 * 10**9)
    monkeypatch.delenv("KDCACHE_CACHE")
    monkeypatch.delenv("KDCACHE_CACHE_LIMIT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_cache().folder == tmp_path / "xdg/kdcache/sha256"
    assert 0 < open_cache().limit <= 20 * 10**9
    monkeypatch.setenv("KDCACHE_CACHE_LIMIT", "much")
    with pytest.raises(InvalidInputError, match="KDCACHE_CACHE_LIMIT=much is no size; write 20GB"):
        open_cache()


def _churn(folder: str, seed: int) -> None:
    cache, rng = Cache(Path(folder), 15_000), np.random.RandomState(seed)
    for number in rng.randint(0, len(DATA), 300).tolist():
        found = kept(cache, DATA[number])
        assert found in (None, DATA[number])
        if found is None:
            keep(cache, DATA[number])


def test_many_processes_at_once(tmp_path: Path) -> None:
    """Four that write, read and evict the same files: each sees right bytes or none, and the bound holds."""
    processes = [forks.Process(target=_churn, args=(str(tmp_path / "cache"), seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    usage = Cache(tmp_path / "cache", 15_000).usage()
    assert 0 < usage.bytes <= 15_000 + 4 * 1000
    assert not list((tmp_path / "cache").rglob(".tmp-*"))
