"""A store of two taps, copies without them, and what is read of either."""

from pathlib import Path
from typing import Any

from kdcache.labels.encoding import Tap
from kdcache.labels.topk import TopKEncoding
from kdcache.sharing.push_pull import pull
from kdcache.store.store import Store
from tests.kits.damage import ANSWERED, OUTPUTS, rich_store
from tests.kits.stores import all_files

BOTH: Any = {**OUTPUTS, "taps": (Tap(name="layer1", shape=(2, 3)), Tap(name="layer2.0@1x1", shape=(4, 1, 1)))}
FILES = 44  # shards of three blocks and two segments, without those of taps
NOTES = tuple(
    f"this is a copy without taps layer1, layer2.0@1x1 of views {views}: they were not copied"
    for views in ("0:2", "2:3")
)


def two_taps(path: Path) -> Path:
    """A store of two segments, each with a seal, of 130 rows with two taps; every kind of file."""
    return rich_store(path, TopKEncoding(k=5, **BOTH))


def labels_of(url: str | Path) -> list[str]:
    """All that is read of a store but its taps."""
    store = Store.open(url)
    rows = [store.load(view, ANSWERED, features=True).arrays for view in store.every_view]
    return [arrays[name].tobytes().hex() for arrays in rows for name in sorted(arrays)]


def taps_of(url: str | Path, view: int = 0, name: str = "layer1") -> list[Any]:
    taken: list[Any] = Store.open(url).load(view, ANSWERED, taps=[name]).tap(name).tolist()
    return taken


def tap_files(keys: dict[str, bytes]) -> dict[str, bytes]:
    return {key: data for key, data in keys.items() if "/taps." in key}


def shard_bytes(path: Path, *names: str) -> int:
    return sum(len(data) for key, data in all_files(path).items() if any(f"/{name}/c/" in f"/{key}" for name in names))


def copied(source: Path, target: Path, *without: str) -> Path:
    pull(str(source), str(target), without=without)
    return target
