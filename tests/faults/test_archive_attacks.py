"""Hostile zip files: refused by name before an entry is opened, with little memory, and never read as other data."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcache.base.limits import ZIP_DIRECTORY_LIMIT, ZIP_ENTRIES_MAX
from kdcache.errors import FormatError, KdcacheError
from kdcache.places.archive import Archive
from kdcache.places.parts import in_memory
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.attacks import DEAR, SHARD, Outcome, in_child, read_digest, usual_seconds, visit
from tests.kits.stores import make_case, write_store
from tests.kits.zips import Raw, build, entry_of, open_in_little_memory, raw_entries

CLAIMED = 2**32 - 2
FULL = 2**32 - 1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_store(tmp_path_factory.mktemp("good") / "good.kd", make_case())
    return tmp_path_factory.getbasetemp() / "good0/good.kd"


@pytest.fixture(scope="module")
def truth(store: Path) -> str:
    return read_digest(Store.open(store), everything=True)


def entry(name: str = SHARD, **changes: Any) -> Callable[[list[Raw]], bytes]:
    """A good archive with one entry that lies."""

    def make(entries: list[Raw]) -> bytes:
        found = entry_of(entries, name)
        for key, value in changes.items():
            setattr(found, key, value)
        return build(entries)

    return make


def more(*names: str, **fields: Any) -> Callable[[list[Raw]], bytes]:
    """A good archive with further entries."""
    return lambda entries: build([*entries, *(Raw(name.encode("latin-1"), b"data", **fields) for name in names)])


def folder_of(name: str) -> Raw:
    return Raw(name.encode(), b"", mode=0o40755)


def whole(**given: Any) -> Callable[[list[Raw]], bytes]:
    """Good entries in an archive that lies as a whole."""
    return lambda entries: build(entries, **given)


def twice(entries: list[Raw]) -> bytes:
    """The same bytes under two names: the central directory leads to one header twice."""
    at = build(entries).index(SHARD.encode()) - 30
    return build([*entries, Raw(SHARD.replace("classes", "gaps").encode() + b"x", b"", header=at)])


def nested(entries: list[Raw]) -> bytes:
    """A header inside of another entry's bytes."""
    outer = Raw(b"outer", struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 5, 0) + b"inner")
    at = sum(30 + len(each.name) + len(each.data) for each in entries) + 30 + len("outer")
    return build([*entries, outer, Raw(b"inner", b"", header=at)])


def of_64(**lies: int) -> Callable[[list[Raw]], bytes]:
    """An archive with 64-bit records of which one lies."""

    def make(entries: list[Raw]) -> bytes:
        data = build(entries)
        _, _, _, _, count, _, first, _ = struct.unpack("<4s4H2IH", data[-22:])
        return with_64(data[:first], data[first:-22], count, **lies)

    return make


def with_64(body: bytes, directory: bytes, entries: int, **lies: int) -> bytes:
    end = len(body) + len(directory)
    given = {"size": 44, "count": entries, "length": len(directory), "first": len(body), "at": end, "disks": 1} | lies
    numbers = (given["count"], given["count"], given["length"], given["first"])
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", given["size"], 45, 45, 0, 0, *numbers)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, given["at"], given["disks"])
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, FULL, FULL, 0)
    return body + directory + record + locator + last


def cut(amount: int) -> Callable[[list[Raw]], bytes]:
    return lambda entries: build(entries)[:-amount]


NAMES = (
    "/etc/passwd",
    "../outside",
    "a/../../outside",
    "a//b",
    "a/./b",
    "",
    "a\\b",
    "a\0b",
    "\xff\xfe",
    "\x1b[31m",
    "a" * 9 * 2,
)
HOSTILE: dict[str, Callable[[list[Raw]], bytes]] = {
    **{f"an entry named {name[:12]!r}": more(name) for name in NAMES[:-1]},
    "an entry nine folders deep": more("/".join("abcdefghij")),
    "an entry twice": more(SHARD),
    "an entry twice, once as a folder": lambda entries: build([*entries, folder_of(f"{SHARD}/")]),
    "an entry within an entry's name": more(f"{SHARD}/0"),
    "one header for two names": twice,
    "a header inside of another's bytes": nested,
    "bytes that no entry has": entry(listed=False),
    "a symbolic link": entry(mode=0o120777),
    "a device": entry(mode=0o020666),
    "a folder with bytes": more("folder/", mode=0o040755),
    "an encrypted entry": entry(flags=1),
    "a deflated entry": entry(method=8, size=10**9),
    "an entry with its sizes behind it": entry(flags=8, local={"size": 0, "packed": 0, "crc": 0}),
    "an entry that claims 4 GB": entry(size=CLAIMED, packed=CLAIMED),
    "an entry that unpacks to 4 GB": entry(size=CLAIMED),
    "an entry of 64 bits without them": entry(size=FULL, packed=FULL),
    "an entry of 2^63 bytes": entry(size=FULL, packed=FULL, extra=struct.pack("<2H2Q", 1, 16, 2**63, 2**63)),
    "an extra field that is cut off": entry(extra=b"\1\0\x10\0"),
    "another name in its own header": entry(local={"name": SHARD.encode()[:-1] + b"9"}),
    "a longer name in its own header": entry(local={"name": SHARD.encode() + b"9"}),
    "another method in its own header": entry(local={"method": 8}),
    "another size in its own header": entry(local={"size": 10, "packed": 10}),
    "another crc in its own header": entry(local={"crc": 1}),
    "flags in its own header": entry(local={"flags": 1}),
    "an entry far outside": entry(header=2**31),
    "a file before the first entry": whole(before=b"#!/bin/sh\n"),
    "bytes behind the end": whole(behind=b"more"),
    "a comment": whole(comment=b"hello"),
    "a comment that is an end": whole(comment=struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)),
    "a part of several": whole(disk=1),
    "fewer entries than there are": whole(count=3),
    "more entries than there are": whole(count=60_000),
    "a central directory of 4 GB": whole(size=CLAIMED),
    "a central directory elsewhere": whole(first=7),
    "64-bit fields without records": whole(count=65535),
    "2^40 entries": of_64(count=2**40),
    "a central directory of 2^62 bytes": of_64(length=2**62),
    "a central directory at 2^63": of_64(first=2**63),
    "64-bit records elsewhere": of_64(at=0),
    "64-bit records of another size": of_64(size=2**60),
    "64-bit records on several disks": of_64(disks=2),
    "an end that is cut": cut(1),
    "half": lambda entries: (data := build(entries))[: len(data) // 2],
    "nothing": lambda entries: b"",
    "an end alone": lambda entries: build([]),
    "noise": lambda entries: bytes(range(256)) * 40,
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_archive_is_refused_by_name(store: Path, tmp_path: Path, name: str) -> None:
    """Before any entry is opened; where an entry's own header lies, before that entry is."""
    path = tmp_path / "hostile.zip"
    path.write_bytes(HOSTILE[name](raw_entries(store)))
    with pytest.raises(KdcacheError, match=r"hostile\.zip[ /]") as found:
        read_digest(Store.open(path), everything=True)
    assert isinstance(found.value, FormatError) or name in ("an end alone", "bytes that no entry has")
    assert "\x1b" not in str(found.value)


def test_sound_archives_of_other_tools_are_read(store: Path, truth: str, tmp_path: Path) -> None:
    """64-bit records where none are needed, folders, extra fields, an UTF-8 flag: all that stored entries may have."""
    entries = raw_entries(store)
    folders = [folder_of("kdcache/"), folder_of("notes/")]
    entry_of(entries, SHARD).extra = struct.pack("<2HBI", 0x5455, 5, 1, 10**9)
    entry_of(entries, SHARD).flags = 0x800
    for number, data in enumerate((of_64()(entries), build([*folders, *entries]), build(entries[::-1]))):
        (tmp_path / f"{number}.zip").write_bytes(data)
        assert read_digest(Store.open(tmp_path / f"{number}.zip"), everything=True) == truth
        assert inspect_files(str(tmp_path / f"{number}.zip")).whole


def of_many(count: int) -> bytes:
    """An archive of empty files, as many as an archive may have."""
    names = [f"{number:07d}".encode() for number in range(count)]
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 7, 0)
    central = struct.pack("<4s6H3I5HI", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 7, 0, 0, 0, 0, 0)
    body = b"".join(local + name for name in names)
    directory = b"".join(central + struct.pack("<I", 37 * at) + name for at, name in enumerate(names))
    return with_64(body, directory, count)


LARGEST = min(ZIP_ENTRIES_MAX, ZIP_DIRECTORY_LIMIT // 53)


@pytest.mark.parametrize("name", ["2^40 entries", "another size in its own header"])
def test_a_stranger_s_archive_costs_little_and_opens_nothing_else(store: Path, tmp_path: Path, name: str) -> None:
    """In a process with 512 MB that writes down what it opens."""
    path = tmp_path / "hostile.zip"
    path.write_bytes(HOSTILE[name](raw_entries(store)))
    found: Outcome = in_child(visit, str(path))
    assert found.crashed == ""
    assert found.seconds < DEAR * usual_seconds(store), found.seconds
    assert "everything" in found.refused, found.text
    assert {opened for opened in found.opened if opened != str(path)} == set()


def test_as_many_entries_as_there_may_be_fit_in_little_memory(store: Path, tmp_path: Path) -> None:
    (tmp_path / "many.zip").write_bytes(of_many(LARGEST))
    said, seconds = in_child(open_in_little_memory, str(tmp_path / "many.zip"), seconds=200.0)
    assert said == f"{tmp_path}/many.zip holds no kdcache/manifest.json"
    assert seconds < 4 * DEAR * usual_seconds(store)


EXAMPLES = 150


def test_mutated_archives_are_right_or_refused(store: Path, truth: str, tmp_path: Path) -> None:
    """Bytes of headers, of the central directory and of anything changed at random: our errors or the same data."""
    good = build(raw_entries(store))
    first = good.index(b"PK\1\2")
    path = tmp_path / "mutated.zip"

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(data=mutations(good, first))
    def mutate(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(KdcacheError):
            assert read_digest(Store.open(path), everything=True) == truth, "other data were read in silence"
        with suppress(KdcacheError):
            inspect_files(str(path))
        with suppress(KdcacheError):
            assert len(list(Archive("x", lambda: in_memory(data)).keys(""))) <= good.count(b"PK\1\2")

    mutate()


@st.composite
def mutations(draw: st.DrawFn, good: bytes, first: int) -> bytes:
    """One to three changes: a few bytes overwritten, cut out or doubled, mostly in the central directory."""
    data = good
    for _ in range(draw(st.integers(1, 3))):
        low = draw(st.sampled_from([0, first, first, len(good) - 22]))
        start = draw(st.integers(low, max(len(data) - 1, low)))
        stop = start + draw(st.integers(0, 8))
        number = st.sampled_from([0, 1, 8, 65535, FULL, CLAIMED, len(good)]).map(lambda value: struct.pack("<I", value))
        middle = draw(st.one_of(st.binary(max_size=8), number, st.just(data[start:stop] * 2), st.just(b"PK\1\2")))
        data = data[:start] + middle + data[start + len(middle) if draw(st.booleans()) else stop :]
    return data
