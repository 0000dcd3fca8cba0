"""Mutated records: bytes and values of good ones changed at random, and what the store side makes of them."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcache.errors import KdcacheError
from kdcache.store.inspection import describe_store
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.damage import FIRST, all_reads

DEAR = 100  # times the CPU seconds that the good store takes
RECORDS = (
    "kdcache/manifest.json",
    "kdcache/seals/",
    "kdcache/seals/latest",
    f"kdcache/{FIRST}/segment.json",
    f"kdcache/{FIRST}/commits/000/000001.json",
    f"kdcache/{FIRST}/commits-",
    "kdcache/card.json",
    f"{FIRST}/classes/zarr.json",
    f"{FIRST}/classes/c/0/1/0",
    f"{FIRST}/taps.0/c/0/1/0/0",
    "order/c/0",
)
DRAWN_RECORDS = ("kdcache/manifest.json", f"kdcache/{FIRST}/segment.json", f"{FIRST}/draws/c/0/1/0")
SPLINTERS = (
    b"NaN", b"-Infinity", b"1e999", b"9" * 40, b"-1", b"0", b"null", b"true", b'""', b"[]", b"{}", b"[" * 70,
    b'"\\ud800"', b"\xff", b"\x00", b"../", b"\\u0000", b"18446744073709551616", b"1.0", b"\r\n", b"\xef\xbb\xbf",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from(["../../outside", "\x1b[31m", "/dev/zero", "a" * 300]),
)  # fmt: skip


@st.composite
def bytes_of(draw: st.DrawFn, good: bytes) -> bytes:
    """A few bytes of a good file changed, cut out, doubled, or replaced by what parsers stumble over."""
    data = good
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        stop = min(start + draw(st.integers(0, 12)), len(data))
        middle = draw(st.one_of(st.binary(max_size=6), st.sampled_from(SPLINTERS), st.just(data[start:stop] * 2)))
        data = data[:start] + middle + data[stop:]
    return data


@st.composite
def values_of(draw: st.DrawFn, good: bytes) -> bytes:
    """A good JSON record with one value, somewhere, exchanged, added or taken away."""
    record = json.loads(good.splitlines()[0])
    here = record
    while isinstance(here, dict | list) and here:
        places = list(here) if isinstance(here, dict) else list(range(len(here)))
        place = draw(st.sampled_from(places))
        if not isinstance(here[place], dict | list) or not here[place] or draw(st.booleans()):
            action = draw(st.sampled_from(["exchange", "remove", "add"]))
            if action == "remove":
                del here[place]
            elif action == "add" and isinstance(here, dict):
                here[draw(st.text(max_size=5))] = draw(LEAVES)
            else:
                here[place] = draw(LEAVES)
            break
        here = here[place]
    return json.dumps(record).encode()


def try_all(path: Path, truth: str) -> None:
    """Reading is right or refused, and nothing raises anything but our own errors."""
    steps: tuple[Callable[[], Any], ...] = (
        lambda: all_reads(path),
        lambda: describe_store(Store.open(path)),
        lambda: inspect_files(str(path)),
        lambda: Store.open_for_writing(path),
    )
    for number, step in enumerate(steps):
        with suppress(KdcacheError):
            result = step()
            assert number or result == truth, "other data were read in silence"


def cpu_seconds(path: Path, truth: Any) -> float:
    """Settings that all steps take."""
    began = time.process_time()
    try_all(path, truth)
    return time.process_time() - began


def fuzz(path: Path, record: str, examples: int) -> None:
    """Mutations of one record of a store, which is as before at the end."""
    target = next(
        each for each in sorted(path.rglob("*")) if each.is_file() and str(each).startswith(f"{path}/{record}")
    )
    good, truth = target.read_bytes(), all_reads(path)
    usual = cpu_seconds(path, truth)
    shapes = [bytes_of(good)] + ([values_of(good)] if good.startswith(b"{") else [])

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(data=st.one_of(shapes))
    def mutate(data: bytes) -> None:
        target.write_bytes(data)
        assert cpu_seconds(path, truth) < DEAR * usual

    try:
        mutate()
    finally:
        target.write_bytes(good)
    assert all_reads(path) == truth
