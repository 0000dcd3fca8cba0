"""Hostile stores: made from a good one, opened in a process with little memory, and all that it opens written down."""

import json
import os
import resource
import shutil
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import array_api_compat.numpy  # noqa: F401 (else a child imports it, and files that it opens count)
import google_crc32c
import numpy as np

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.errors import KdcacheError
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.forks import forks
from tests.kits.stores import make_case, write_store

MEMORY = 384 * 2**20
DEAR = 100  # times the CPU seconds that a good store takes; the dearest of all attacks takes 30
SEGMENT = "views-00000-00002"
SHARD = f"{SEGMENT}/classes/c/0/1/0"
COMMIT = f"kdcache/{SEGMENT}/commits/000/000001.json"
ROWS = 200
STRUCK = (70, 90)  # of block 1
FORBIDDEN = {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect", "ctypes.dlopen"}


@dataclass(frozen=True)
class Outcome:
    """What came of each step (an error's text, or what was seen), and what it took."""

    steps: dict[str, str]
    refused: frozenset[str]
    opened: tuple[str, ...]
    seconds: float
    crashed: str = ""

    @property
    def text(self) -> str:
        return "\n".join(f"{name}: {said}" for name, said in self.steps.items())


def read_digest(store: Store, *, everything: bool = False) -> str:
    """sha256 over all that is read of two views: at the first and the last position, or at the first 200."""
    positions = np.setdiff1d(np.arange(min(ROWS, store.rows)), STRUCK) if everything else [0, store.rows - 1]
    rows = [store.load(view, positions) for view in store.every_view[:2]]
    decoded = [each.soft_labels() for each in rows]
    assert len(decoded) == len(rows)
    return sha256_hex(b"".join(each.arrays[name].tobytes() for each in rows for name in sorted(each.arrays)))


def steps_of(path: str) -> dict[str, Callable[[], str]]:
    """What a person may do with a store that somebody sent."""
    return {
        "open": lambda: str(len(Store.open(path).every_view)),
        "inspect": lambda: json.dumps(describe_store(Store.open(path))),
        "rows": lambda: str(describe_rows(Store.open(path), 3, None)),
        "read": lambda: read_digest(Store.open(path)),
        "everything": lambda: read_digest(Store.open(path), everything=True),
        "card": lambda: str(Store.open(path).card),
        "order": lambda: str(Store.open(path).labels[:3]),
        "verify": lambda: "whole" if (found := inspect_files(path)).whole else "FOUND " + str(found.findings),
    }


def visit(path: str) -> Outcome:
    """Every step, each an error of ours or a result; run in a process of its own (see `attack`)."""
    limit_memory()
    opened, steps, refused, crashed = watch(), {}, set(), ""
    began = time.process_time()
    for name, step in steps_of(path).items():
        try:
            steps[name] = step()[:10_000]
            if steps[name].startswith("FOUND"):
                refused.add(name)
        except KdcacheError as error:
            steps[name] = str(error)[:10_000]
            refused.add(name)
        except BaseException as error:  # noqa: BLE001
            crashed += f"{name}: {type(error).__name__}: {str(error)[:500]}\n"
    return Outcome(steps, frozenset(refused), tuple(opened), time.process_time() - began, crashed)


@cache
def usual_seconds(good: Path) -> float:
    """CPU seconds of every step with a good store, here and now."""
    found: Outcome = in_child(visit, str(good))
    return found.seconds


def limit_memory() -> None:
    """So that this process cannot get more than MEMORY beside what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (room, room))


def watch() -> list[str]:
    """Real paths of all files that are opened from now on, and every forbidden event."""
    opened: list[str] = []
    real = os.open

    def recording(*given: Any, **more: Any) -> int:
        descriptor = real(*given, **more)
        opened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return descriptor

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event in FORBIDDEN or (event == "import" and "evil" in str(given[0])):
            opened.append(f"{event} {given}")
        elif event == "open" and given[1] is not None and not str(given[0]).startswith((sys.prefix, sys.base_prefix)):
            opened.append(os.path.realpath(str(given[0])) if isinstance(given[0], str | bytes) else str(given[0]))

    os.open = recording  # type: ignore[assignment]
    sys.addaudithook(hook)
    return opened


def in_child(function: Callable[..., Any], *given: Any, seconds: float = 60) -> Any:
    """Call in a fresh process; its result, or TimeoutError where it hangs."""
    receiving, sending = forks.Pipe(duplex=False)
    process = forks.Process(target=_send, args=(sending, function, given))
    process.start()
    sending.close()
    try:
        if not receiving.poll(seconds):
            raise TimeoutError(f"{function.__name__}{given} hangs")
        return receiving.recv()
    finally:
        process.kill()
        process.join()
        receiving.close()


def _send(sending: Any, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    sending.send(function(*given))


def good_store(path: Path) -> Path:
    """The store that attacks start from, not sealed: who forges a store forges its commits too."""
    write_store(path, make_case(ROWS, struck=STRUCK))
    shutil.rmtree(path / "kdcache/seals")
    return path


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file; `change` alters the record, or returns another."""
    record = json.loads(path.read_bytes())
    changed = change(record)
    path.write_bytes(json.dumps(record if changed is None else changed).encode())


def set_identity(store: Path, field: str, value: Any) -> None:
    """Change a field of the identity, named by its path."""
    *parents, name = field.split(".")

    def change(manifest: Any) -> None:
        record = manifest["identity"]
        for parent in parents:
            record = record[parent]
        record[name] = value

    edit(store / "kdcache/manifest.json", change)


def rewrite_segment(store: Path) -> None:
    """Make segment.json what the changed identity predicts."""
    from kdcache.store.layout import describe_segment
    from kdcache.store.manifest import parse_manifest
    from kdcache.store.segment_layout import segment_layout

    identity = parse_manifest((store / "kdcache/manifest.json").read_bytes(), "manifest").identity
    layout = segment_layout(identity, ViewSpan(0, 2))
    (store / layout.record).write_bytes(canonical_json(describe_segment(layout, identity.digest)))
    for spec in layout.arrays.values():
        (store / spec.path / "zarr.json").write_bytes(spec.metadata_bytes())


def put_shard(store: Path, data: bytes | None, size: int | None = None) -> None:
    """Replace a shard, and say so in its commit; with a size alone, by a file of holes."""
    path = store / SHARD
    if data is not None:
        path.write_bytes(data)
    if size is not None:
        os.truncate(path, size)
    digest = sha256_hex(path.read_bytes()) if size is None else "0" * 64

    def change(commit: Any) -> None:
        commit["shards"]["classes"] = {"sha256": digest, "size": path.stat().st_size}

    edit(store / COMMIT, change)


def shard_of(chunks: list[bytes], entries: list[tuple[int, int]] | None = None) -> bytes:
    """A shard with a valid index: chunks one after the other, or where `entries` say."""
    ends = np.cumsum([len(chunk) for chunk in chunks]).tolist()
    placed = entries or [(end - len(chunk), len(chunk)) for end, chunk in zip(ends, chunks, strict=True)]
    return b"".join(chunks) + checked(b"".join(struct.pack("<QQ", *entry) for entry in placed))


def chunks_of(store: Path) -> list[bytes]:
    """The chunks of the good shard."""
    data = (store / SHARD).read_bytes()
    entries = struct.unpack("<QQQQ", data[-36:-4])
    return [data[entries[at] : entries[at] + entries[at + 1]] for at in (0, 2)]


def checked(data: bytes) -> bytes:
    """Bytes and their crc32c."""
    return data + struct.pack("<I", google_crc32c.value(data))


def attacked(good: Path, tmp_path: Path, make: Callable[[Path], Any]) -> Outcome:
    """What comes of a store that was made hostile, in a process with 512 MB."""
    store = Path(shutil.copytree(good, tmp_path / "hostile.kd", symlinks=True))
    (tmp_path / "evil.py").write_text("raise SystemExit('a store ran code')")
    make(store)
    found: Outcome = in_child(visit, str(store))
    assert found.crashed == ""
    assert found.seconds < DEAR * usual_seconds(good), found
    inside = tuple(f"{store}{end}" for end in ("", "/"))
    assert [path for path in found.opened if path != inside[0] and not path.startswith(inside[1])] == []
    return found


def swapped(key: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def make(store: Path) -> None:
        data = (store / key).read_bytes()
        assert old in data
        (store / key).write_bytes(data.replace(old, new, 1))

    return make


def whole_file(key: str, data: bytes) -> Callable[[Path], None]:
    def make(store: Path) -> None:
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).write_bytes(data)

    return make
