"""Damage to every kind of file of a store, and what comes of it: found by verify, refused by reading, or harmless."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.canonical import sha256_hex
from kdcache.errors import KdcacheError
from kdcache.labels.encoding import Encoding, Tap
from kdcache.labels.topk import TopKEncoding
from kdcache.store.manifest import Card
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.stores import all_files, create_store, make_case, write_views

ROWS, FIRST, SECOND = 130, "views-00000-00002", "views-00002-00003"
STRUCK = (70, 129)
ANSWERED = np.setdiff1d(np.arange(ROWS), STRUCK)
ARRAYS = ("classes", "gaps", "tail", "label", "features", "taps.0", "pixels", "canary", "contents")
OUTPUTS: dict[str, Any] = {"features": 6, "head": 6, "taps": (Tap(name="layer1", shape=(2, 3)),), "contents": "bytes"}
KINDS = (
    *(f"{segment}/{name}/c/" for segment in (FIRST, SECOND) for name in ARRAYS),
    *(f"{FIRST}/{name}/zarr.json" for name in ARRAYS),
    f"{FIRST}/zarr.json",
    "order/c/", "order/zarr.json", "labels/c/", "labels/zarr.json",
    "head/weight/", "head/bias/", "head/zarr.json", "zarr.json",
    "kdcache/manifest.json", "kdcache/card.json", "kdcache/seals/latest", "kdcache/seals/",
    f"kdcache/{FIRST}/segment.json", f"kdcache/{FIRST}/commits/", f"kdcache/{FIRST}/commits-",
)  # fmt: skip
UNCOVERED = ("kdcache/card.json", "kdcache/manifest.json", "kdcache/seals/")  # see docs/format.md, Limits and notes


def flip(data: bytes, rng: np.random.RandomState) -> bytes:
    at = rng.randint(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randint(8)]) + data[at + 1 :]


def zero(data: bytes, rng: np.random.RandomState) -> bytes:
    at = rng.randint(max(len(data) - 4096, 1))
    return data[:at] + bytes(min(4096, len(data) - at)) + data[at + 4096 :]


HARMS: dict[str, Callable[[bytes, np.random.RandomState], bytes] | None] = {
    "flip": flip,
    "zero": zero,
    "truncate": lambda data, rng: data[: rng.randint(len(data))],
    "empty": lambda data, rng: b"",
    "delete": None,
}


def rich_store(path: Path, encoding: Encoding | None = None) -> Path:
    """A store of two segments and two seals with features, a tap, contents, a head, a card and struck rows: every kind
    of file; of a teacher with a class map that answered probabilities."""
    case = make_case(ROWS, views=3, encoding=encoding or TopKEncoding(k=5, **OUTPUTS))
    keys = {"class_map": (*range(29, -1, -1), -1), "answers": "probs"}
    teacher = case.identity.teacher.model_copy(update=keys)
    case = replace(case, identity=case.identity.model_copy(update={"teacher": teacher}))
    head = {"weight": np.arange(180, dtype="f4").reshape(30, 6), "bias": np.ones(30, dtype="f4")}
    store = create_store(path, case, head)
    write_views(store, 0, case.logits[:2], struck=STRUCK)
    store.seal()
    write_views(store, 2, case.logits[2:], struck=STRUCK)
    store.seal()
    store.write_card(Card(name="rich", notes="every kind of file"))
    return path


def all_reads(path: Path) -> str:
    """sha256 over everything that can be read of a store."""
    store = Store.open(path)
    rows = [store.load(view, ANSWERED, features=True, taps=["layer1"]).arrays for view in (0, 1, 2)]
    rows += [segment.read(segment.views.start, np.arange(ROWS), ["contents"]).arrays for segment in store.segments]
    arrays = [each[name] for each in rows for name in sorted(each)]
    arrays += [store.order, store.labels, *store.head().values()]
    arrays += [store.segment_of(view).canary(view) for view in (0, 2)]
    return sha256_hex(b"".join(array.tobytes() for array in arrays))


def outcome(path: Path, truth: str) -> str:
    """found: verify sees it. refused: reading raises. equal: what is read is right. SILENT: none of these."""
    try:
        read = "equal" if all_reads(path) == truth else "SILENT"
    except KdcacheError:
        read = "refused"
    try:
        found = not inspect_files(str(path)).whole
    except KdcacheError:
        found = True
    if read == "SILENT":
        return read  # also where verify would have seen it: nobody verifies before each read
    return "found" if found else read


def damages(path: Path, count: int, seed: int) -> Counter[tuple[str, str, str]]:
    """(kind, harm, outcome) of `count` damages, one at a time, each undone after it."""
    rng, truth, harms = np.random.RandomState(seed), all_reads(path), list(HARMS)
    files, seen = all_files(path), Counter[tuple[str, str, str]]()
    for number in range(count):
        kind, harm = KINDS[number % len(KINDS)], harms[number // len(KINDS) % len(harms)]
        names = [name for name in files if name.startswith(kind)]
        name = names[rng.randint(len(names))]
        change, target = HARMS[harm], path / name
        target.unlink() if change is None else target.write_bytes(change(files[name], rng))
        if change is None or target.read_bytes() != files[name]:
            seen[kind, harm, outcome(path, truth)] += 1
        target.write_bytes(files[name])
    assert all_files(path) == files
    assert outcome(path, truth) == "equal"
    return seen


def unseen(seen: Counter[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Damages that nobody noticed, though a hash covers the file."""
    quiet = [key for key in seen if key[2] not in ("found", "refused")]
    return [key for key in quiet if key[2] == "SILENT" or not key[0].startswith(UNCOVERED)]
