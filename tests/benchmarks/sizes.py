"""Bytes a row of format 1 on disk for a real teacher's rows, array by array, and of other layouts.

Rows come from 19 photographs (see `rows`), which show few of the 1,000 classes: class ids have a lower order-0 entropy
here than on ImageNet. The codec makes nothing of that, since it only drops bits that are always zero. What stands once
a segment is counted as in a store 64 times as large; commits are counted twice, as files and in the sealed list; order
and labels have a line of their own. KL by quantising is over the kept classes and the tail as one more class.

Peers hold no tail, no label's logit, no fingerprint and no checksum; TinyViT's list of keys is left out, and FKD shares
a pickle among 500 crops where these rows have 10. Reads are batches of 256 random rows out of the page cache.

Tried to take fewer bytes at k 20 (41.1 bytes a row, plain, in that probe): the tail as residuals of the last kept logit
and gaps rank by rank were taken (`packing residuals`), and packed gaps are coded in frames of 8,192 bytes of one rank.
Ids as ranks in view 0's list save 6 %, but no view could then be read without view 0. Ids as ranks in a table of
neighbours of the top class save 3 % from the teacher's classifier and nothing from correlations, tested on other
photographs. A tail in steps of 1/32 saves 2 %, equal gaps ordered by id at most 1 %. All of these were left.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.labels.encoding import Encoding
from kdcache.labels.encodings import BLOCK_RULE
from kdcache.labels.full import FullEncoding
from kdcache.labels.topk import TopKEncoding
from tests.benchmarks.harness import Bench, Figure, alternate, exact, timed_rate
from tests.benchmarks.peers import PEERS, Kept, Peer
from tests.benchmarks.rows import Rows, fashion_folder, fashion_rows, imagenet_rows
from tests.benchmarks.stored import (
    Stored,
    bytes_a_sample,
    bytes_by_array,
    entropy_by_array,
    quantising_kl,
    reduced_rows,
    shared_ids,
    stored,
    write_store,
)

TARGETS = {10: 24.0, 20: 40.0, 50: 85.0}
READ_K, BATCH = 20, 256


def encoding(k: int, **changes: Any) -> Encoding:
    """As extract writes a top-k store."""
    return TopKEncoding.model_validate(
        {"k": k, "class_means": True, "packing": "residuals", "block_rule": BLOCK_RULE, **changes}
    )


def measure(bench: Bench) -> Iterator[Figure]:
    rows = imagenet_rows(bench)
    kept = {k: stored(rows, encoding(k)) for k in TARGETS}
    for k, each in kept.items():
        yield _size(each, f"k {k}", TARGETS[k])
        yield _kl(each, f"k {k}", 1e-4)
    yield exact("order and labels, which stand once for all views", bytes_a_sample(kept[READ_K]), "bytes/sample")
    plain = {k: stored(rows, encoding(k, packing="plain")) for k in TARGETS}
    for k, each in plain.items():
        yield _size(each, f"k {k}, packing plain")
    for k in TARGETS:
        high = stored(rows, encoding(k, quantisation="high"))
        yield _size(high, f'k {k}, "high"')
        yield _kl(high, f'k {k}, "high"', 1e-5)
    yield exact(
        "ids that two views share", shared_ids(kept[READ_K]), f"of {READ_K}", better="higher",
        table=_by_array(kept, plain),
    )  # fmt: skip
    store = write_store(kept[READ_K], bench.scratch / "ours.kd")
    yield exact("a whole store of these rows, with all records", _folder(store.folder.root) / _count(rows), "bytes/row",
                setting=f"k {READ_K}, {rows.logits.shape[1]:,} samples x {rows.logits.shape[0]} views")  # fmt: skip
    peers = {}
    for k in TARGETS:
        for name, peer in _written(bench.scratch / f"peers{k}", rows, k).items():
            written = rows.logits.shape[1] if name == "torchdistill" else _count(rows)
            yield exact(peer.title, peer.bytes_on_disk / written, "bytes/row", setting=f"k {k}", peer=name)
            if k == READ_K:
                peers[name] = peer
    yield from _reads(bench, store, peers)
    yield from _fashion(bench)


def _count(rows: Rows) -> int:
    return rows.logits.shape[0] * rows.logits.shape[1]


def _folder(path: Path) -> int:
    return sum(each.stat().st_size for each in Path(path).rglob("*") if each.is_file())


def _size(kept: Stored, setting: str, target: float | None = None) -> Figure:
    parts = bytes_by_array(kept)
    setting = f"{setting}, C {kept.rows.classes}, {_count(kept.rows):,} rows"
    entropies = entropy_by_array(kept)
    return exact(
        "bytes a row on disk", sum(parts.values()), "bytes/row", target=target, setting=setting, arrays=parts,
        entropy=entropies, packing=getattr(kept.encoding, "packing", "plain"),
    )  # fmt: skip


def _kl(kept: Stored, setting: str, target: float) -> Figure:
    others = {f"T {t:g}": quantising_kl(kept, t) for t in (2.0, 4.0)}
    return exact("mean KL by quantising", quantising_kl(kept, 1.0), "nats", target=target, setting=setting, **others)


def _by_array(kept: dict[int, Stored], plain: dict[int, Stored]) -> dict[str, Any]:
    """Rows of a table for the page: bytes on disk, plain and packed, and at the order-0 entropy of what is packed."""
    cells: dict[str, list[str]] = {}
    for k, each in kept.items():
        for found in (bytes_by_array(plain[k]), bytes_by_array(each), entropy_by_array(each)):
            for name in (*bytes_by_array(each), "all"):
                size = sum(found.values()) if name == "all" else found.get(name)
                cells.setdefault(name, []).append("" if size is None else f"{size:.2f}")
    columns = ["array", *(f"k {k}: {what}" for k in kept for what in ("plain", "residuals", "their entropy"))]
    title = "Bytes a row by array and packing, and at the order-0 entropy of the numbers (one distribution an array)"
    return {"title": title, "columns": columns, "rows": [[name, *values] for name, values in cells.items()]}


def _written(folder: Path, rows: Rows, k: int) -> dict[str, Peer]:
    reduced = reduced_rows(rows, k)
    log_z = np.logaddexp(np.logaddexp.reduce(-reduced.distances, axis=-1), reduced.tail[..., 0])
    kept = Kept(reduced.classes, -reduced.distances, log_z, rows.logits)
    peers = {}
    for name, kind in PEERS.items():
        if name == "torchdistill" and k != READ_K:  # all logits, whatever k
            continue
        (folder / name).mkdir(parents=True)
        peers[name] = kind(folder / name)
        peers[name].write(kept)
    return peers


def _reads(bench: Bench, store: Any, peers: dict[str, Peer]) -> Iterator[Figure]:
    """Random batches of 256 rows of a view; ours from a view that was loaded, as training holds it."""
    rng, samples = np.random.RandomState(0), store.rows
    batches = [rng.permutation(samples)[:BATCH] for _ in range(64)]
    loaded = store.load(0, np.arange(samples))
    arms: dict[str, Callable[[], Any]] = {
        "kdcache, loaded view": lambda: [loaded.take(batch).soft_labels() for batch in batches],
        "kdcache, loading the view": lambda: type(store).open(store.folder.root).load(0, np.arange(samples)),
    }
    counts = {"kdcache, loaded view": len(batches) * len(batches[0]), "kdcache, loading the view": samples}
    titles = dict.fromkeys(arms, "")
    for name, peer in peers.items():
        some = batches if name == "memmap" else batches[: 8 if name == "TinyViT" else 1]
        arms[name] = lambda peer=peer, some=some: [peer.batch(0, batch) for batch in some]  # type: ignore[misc]
        counts[name], titles[name] = len(some) * len(some[0]), peer.title
    times = alternate(arms, bench.trials)
    for name in arms:
        yield timed_rate(
            f"random batches: {titles[name] or name}" if name != "kdcache, loading the view" else name, times, name,
            counts[name], "rows/s", setting=f"k {READ_K}, {samples:,} rows a view",
        )  # fmt: skip


def _fashion(bench: Bench) -> Iterator[Figure]:
    if not fashion_folder().is_dir():
        sys.stderr.write(f"sizes: no Fashion-MNIST in {fashion_folder()}, so its figures are left out\n")
        return
    rows = fashion_rows(bench)
    for setting, kept in {
        "Fashion-MNIST, full": FullEncoding(),
        "Fashion-MNIST, k 5": encoding(5),
    }.items():
        yield _size(stored(rows, kept), setting)
