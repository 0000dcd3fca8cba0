"""A store of 10^8 generated tokens: how it opens, verifies and gives its first batch, in seconds and peak memory.

    python -m tests.benchmarks.text_scale --folder FOLDER [--tokens 100000000]
    python -m tests.benchmarks.text_scale --rewrite    # nothing measured: docs/language.md from text_scale.json

All whole blocks hold the same rows, so that the store is made in a minute; nothing that is measured knows. The tokens
lie in a file that is mapped. Each line is a process of its own.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.canonical import sha256_hex
from kdcache.base.memory import peak_rss_bytes
from kdcache.base.view_span import ViewSpan
from kdcache.labels.reduction import reduce_topk
from kdcache.labels.topk import TopKEncoding
from kdcache.store.commits import Commit, Counts, Shard
from kdcache.store.manifest import Identity, Provenance, TeacherIdentity
from kdcache.store.plan import TransformSpec, ViewPlan
from kdcache.store.shards import encode_shard
from kdcache.store.store import Store
from kdcache.store.whole_arrays import make_order
from kdcache.training.loader import Loader
from kdcache.training.loader_options import LabelOptions
from kdcache.views.data import Data
from kdcache.views.fingerprint import token_fingerprints
from kdcache.views.sources import open_data
from tests.benchmarks.blocks import marks, replace_block, table
from tests.kits.encoding import encode_topk

SEQUENCE, CLASSES, K, BLOCK = 512, 1024, 8, 8192
HERE = "tests.benchmarks.text_scale"
BLOCK_OF_PAGE = marks("large store", f"python -m {HERE}")


class Tokens:
    """Texts of a file of tokens [Q, S] that is mapped."""

    vocabulary = CLASSES

    def __init__(self, path: str) -> None:
        self.tokens = np.load(path, mmap_mode="r")


def data_of(folder: Path) -> Data:
    return open_data(f"{HERE}:Tokens", {"path": str(folder / "tokens.npy")})


def make(folder: Path, tokens: int) -> None:
    """The file of tokens, and a sealed store of made-up answers to them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    texts = -(-tokens // BLOCK) * BLOCK // SEQUENCE
    a_block = rng.integers(0, CLASSES, (BLOCK // SEQUENCE, SEQUENCE), dtype=np.int32)
    file = np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.int32, (texts, SEQUENCE))
    for start in range(0, texts, len(a_block)):
        file[start : start + len(a_block)] = a_block
    file.flush()
    data = data_of(folder)
    order, order_identity = make_order(len(data), "given", 0, sequence=SEQUENCE)
    identity = Identity(
        dataset=data.identity(),
        order=order_identity,
        views=ViewPlan(transform=TransformSpec(name="none")),
        teacher=TeacherIdentity(name="made-up", weights="w", classes=CLASSES),
        encoding=TopKEncoding(k=K, packing="residuals", contents="bytes", block_rule=2),
    )
    store = Store.create(
        str(folder / "text.kd"), identity, order=order, labels=data.labels, provenance=Provenance(device="benchmark")
    )
    layout = store.add_segment(ViewSpan(0, 1)).layout
    assert layout.block == BLOCK
    logits = rng.standard_normal((1, BLOCK, CLASSES)).astype(np.float32) * 2
    rows = reduce_topk(logits, data.labels[None, :BLOCK, None].astype(np.int64), K)
    arrays = dict(encode_topk(rows, identity.encoding, CLASSES).arrays)
    arrays["pixels"] = np.concatenate([token_fingerprints(text) for text in a_block])[None]
    contents = [int(_contents(data, text)) for text in range(len(a_block))]
    arrays["contents"] = np.repeat(np.array(contents, dtype=np.uint32), SEQUENCE)[None]
    shards = {name: encode_shard(layout.arrays[name], values) for name, values in arrays.items()}
    records = {name: Shard(sha256=sha256_hex(shard), size=len(shard)) for name, shard in shards.items()}
    for block in range(layout.blocks):
        for name, shard in shards.items():
            _put(folder / "text.kd" / layout.arrays[name].key(block), shard)
        commit = Commit(
            block=block, rows=BLOCK, shards=records, counts=Counts(), provenance=Provenance(device="benchmark")
        )
        _put(folder / "text.kd" / layout.commit_key(block), commit.to_bytes())
    store.seal()


def _contents(data: Data, text: int) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(data.probe(text)) & 0xFFFFFFFF


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def opens(folder: Path) -> None:
    """Open the store."""
    Store.open(folder / "text.kd")


def verifies(folder: Path) -> None:
    """Hold every file against its sha256."""
    from kdcache.pipelines.verify.settings import VerifySettings
    from kdcache.pipelines.verify.stage import verify

    assert verify(VerifySettings.model_validate({"store": str(folder / "text.kd")})).whole


def first_batch(folder: Path) -> None:
    """Open data and store, and compare and read the first batch of 8 texts, with 1 GB for soft labels."""
    store, data = Store.open(folder / "text.kd"), data_of(folder)
    loader = Loader(data, [store], batch_size=8, epochs=1, labels=LabelOptions(memory_bytes=10**9))
    batch = next(iter(loader))
    assert batch.teachers[0].logits.shape == (8, SEQUENCE, K)
    loader.close()


MEASURED: dict[str, Callable[[Path], None]] = {"opens": opens, "verifies": verifies, "first batch": first_batch}


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Seconds and the peak of resident memory of one of these in this process, over what its imports take."""
    before, start_time = peak_rss_bytes(), time.monotonic()
    MEASURED[name](folder)
    return {"what": name, "seconds": time.monotonic() - start_time, "peak": peak_rss_bytes(), "before": before}


def lines_of(record: dict[str, Any]) -> str:
    """The table, the store that was measured, and the conditions of the run."""
    rows = [
        [line["what"], f"{line['seconds']:.3g} s", f"{line['peak'] / 1e9:.2g} GB" if line["peak"] else ""]
        for line in record["lines"]
    ]
    store = (
        f"{record['tokens']:,} tokens in texts of {record['sequence']}, top {record['k']} of {record['classes']:,}: "
        f"{record['bytes'] / 1e9:.2f} GB in {record['blocks']:,} blocks. Imports of torch and others take "
        f"{record['lines'][-1]['before'] / 1e9:.2f} GB of the memory. {record['device']}; `{record['command']}`."
    )
    return f"{table(['measured', 'wall time', 'peak memory of the process'], rows)}\n\n{store}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tokens", type=int, default=10**8)
    parser.add_argument("--only", choices=list(MEASURED))
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the JSON")
    parser.add_argument("--out", type=Path, default=Path("docs/language.md"), help="page whose table is replaced")
    parser.add_argument("--rewrite", action="store_true", help="measure nothing: write the table from the JSON")
    given = parser.parse_args(arguments)
    if given.only:
        print(json.dumps(measured(given.only, given.folder)))  # noqa: T201
        return
    place = given.figures / "text_scale.json"
    if not given.rewrite:
        if given.folder is None:
            parser.error("give --folder, or --rewrite")
        place.write_text(json.dumps(record_of(given.folder, given.tokens), indent=1) + "\n")
    replace_block(given.out, BLOCK_OF_PAGE, lines_of(json.loads(place.read_text())))


def record_of(folder: Path, tokens: int) -> dict[str, Any]:
    """Seconds and memory of all that is measured, each in a process of its own, and the size of the store."""
    if not (folder / "text.kd").exists():
        make(folder, tokens)
    lines = []
    for name in MEASURED:
        command = [sys.executable, "-m", HERE, "--folder", str(folder), "--only", name]
        lines.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    store = Store.open(folder / "text.kd")
    return {
        "command": f"python -m {HERE} --folder FOLDER",
        "device": f"{platform.machine()} CPU, torch {version('torch')}, zarr {version('zarr')}",
        "tokens": store.rows, "sequence": SEQUENCE, "k": K, "classes": CLASSES,
        "blocks": store.segments[0].layout.blocks,
        "bytes": sum(path.stat().st_size for path in (folder / "text.kd").rglob("*") if path.is_file()),
        "lines": lines,
    }  # fmt: skip


if __name__ == "__main__":
    main()
