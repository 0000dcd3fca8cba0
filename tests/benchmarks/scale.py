"""docs/scale.md: what very large stores take, from the layout, and whether generated ones grow as it says.

python -m tests.benchmarks.scale [--quick] [--out docs/scale.md]
python -m tests.benchmarks.scale --rewrite    # nothing measured: the page from its JSONs

On paper, files, blocks, records and requests are counted by the functions that write them; bytes a row are those that
the benchmark `sizes` measured. Generated stores of up to 1e8 rows then show how opening, finding a pass again, sealing
and loading a view grow; they go to scale.json, beside performance.json. Prices are a public price list's and only an
example.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from kdcache.base.view_span import ViewSpan
from kdcache.store.array_spec import BLOCK_MAX
from kdcache.store.commits import Commit, Counts, Shard
from kdcache.store.manifest import Provenance
from kdcache.store.sealed_segment import SealedSegment
from kdcache.store.seals import Seal
from kdcache.store.segment_layout import segment_layout
from kdcache.store.store import Store
from kdcache.views.provenance import provenance
from tests.benchmarks.report import line_of_conditions
from tests.benchmarks.rowstores import Shape, files_of, identity_of, write_row_store
from tests.benchmarks.scale_page import Row, write_page

PUT, GET, GB_MONTH, GB_OUT = 5e-6, 4e-7, 0.023, 0.09  # dollars: a request, a request, kept, sent to the internet
RATES = (1_000, 5_000, 20_000)  # views a second of a teacher
INDEX_AND_CHUNK = 2  # requests for a view of a shard


@dataclass(frozen=True)
class Plan:
    """A data set and how it is extracted: `views` in passes of `a_pass`."""

    name: str
    rows: int
    classes: int
    views: int
    a_pass: int
    k: int

    @property
    def shape(self) -> Shape:
        return Shape(rows=self.rows, views=self.a_pass, k=self.k, classes=self.classes)

    @property
    def passes(self) -> list[tuple[int, int]]:
        return [(start, min(start + self.a_pass, self.views)) for start in range(0, self.views, self.a_pass)]


PLANS = (
    Plan("ImageNet-1k, 300 views in one pass", 1_281_167, 1_000, 300, 300, 20),
    Plan("ImageNet-1k, 300 views in passes of 10", 1_281_167, 1_000, 300, 10, 20),
    Plan("ImageNet-22k, 90 views in passes of 10", 14_197_122, 21_841, 90, 10, 20),
    Plan("a billion images, 10 views, 21,841 classes", 10**9, 21_841, 10, 10, 10),
)


def bytes_a_row(plan: Plan, measured: dict[str, float]) -> float:
    """As measured over 1,000 classes; class ids drop to as many bits as the classes need."""
    ids = plan.k * ceil(log2(plan.classes)) / 8
    return measured["classes"] / (plan.k * 10 / 8) * ids + sum(
        size for name, size in measured.items() if name not in ("classes", "once a segment", "commits")
    )


def on_paper(plan: Plan, measured: dict[str, float], core: float, provenance: Provenance) -> Row:
    """One column of the page's table."""
    layouts = [segment_layout(identity_of(plan.shape), ViewSpan(*views)) for views in plan.passes]
    blocks = sum(layout.blocks for layout in layouts)
    arrays = layouts[0].rowwise
    files, line = files_of(plan.shape, plan.passes), len(_commit(plan, arrays, provenance).to_bytes())
    rows, a_row = plan.rows * plan.views, bytes_a_row(plan, measured)
    view_requests = INDEX_AND_CHUNK * layouts[0].blocks * len(arrays)
    size = rows * a_row + 2 * line * blocks + 8 * plan.rows
    return {
        "rows (samples x views)": f"{rows:,}",
        "bytes a row": f"{a_row:.1f}",
        "size": _size(size),
        "one view, loaded": _size(plan.rows * a_row),
        "block, samples": f"{layouts[0].block:,}",
        "blocks, each a commit": f"{blocks:,}",
        "files": f"{files:,}",
        "most files in one folder": f"{max(1000, layouts[0].blocks):,}",
        "a commit": f"{line:,} bytes",
        "commits of a pass, in one file at seal": _size(line * layouts[0].blocks),
        "seal": f"{len(_seal(len(layouts)).to_bytes()):,} bytes",
        "order and labels": _size(8 * plan.rows),
        **{f"teacher at {rate:,} views/s": f"{rows / rate / 3600:,.0f} hours" for rate in (round(core), *RATES)},
        "push: requests to write": f"{files:,} ({_dollars(files * PUT)})",
        "pull: requests to read": f"{files:,} ({_dollars(files * GET)})",
        "one view read in place: requests": f"{view_requests:,} ({_dollars(view_requests * GET)})",
        "kept for a month": _dollars(size / 1e9 * GB_MONTH),
        "sent out of the cloud once": _dollars(size / 1e9 * GB_OUT),
    }


def _commit(plan: Plan, arrays: list[str], provenance: Provenance) -> Commit:
    shards = {name: Shard(sha256=64 * "0", size=10_000_000) for name in arrays}
    counts = Counts(labelled=plan.a_pass * BLOCK_MAX, correct=plan.a_pass * BLOCK_MAX)
    return Commit(block=0, rows=plan.a_pass * BLOCK_MAX, shards=shards, counts=counts, provenance=provenance)


def _seal(segments: int) -> Seal:
    digest = 64 * "0"
    sealed = [SealedSegment(views=ViewSpan.of(view), commits=digest, digest=digest) for view in range(segments)]
    return Seal(format=1, identity=digest, order=digest, labels=digest, segments=tuple(sealed))


def simulate(folder: Path, rows: int, trials: int) -> Row:
    """Seconds of CPU, medians, of what grows and of what must not; k 1 and two views, so that blocks are small."""
    path, shape = folder / f"{rows}.kd", Shape(rows=rows, views=2, k=1, classes=100, alike=True)
    store = write_row_store(path, shape)
    blocks, everything = store.segments[0].layout.blocks, np.arange(rows)
    del store
    opened = _cpu(lambda: Store.open(path), 20 * trials)
    view = _cpu(lambda: Store.open(path).load(1, everything), trials)
    known = _cpu(lambda: len(Store.open(path).segments[0].commits()), trials)
    _unseal(path)
    found = _cpu(lambda: Store.open(path).segments[0].commits(), trials)
    sealed = []
    for _ in range(trials):
        _unseal(path)
        sealed.append(_cpu(lambda: Store.open_for_writing(path).seal(), 1))
    shutil.rmtree(path)
    return {
        "blocks": f"{blocks:,}",
        "open, sealed": f"{1e3 * opened:.2f} ms",
        "its commits, from one file": f"{1e3 * known:.1f} ms",
        "finding an unsealed pass again": f"{found:.3f} s",
        "of it a block": f"{1e6 * found / blocks:.0f} us",
        "seal": f"{median(sealed):.3f} s",
        "of it a block ": f"{1e6 * median(sealed) / blocks:.0f} us",
        "load of a view": f"{view:.3f} s",
        "of it a row": f"{1e9 * view / rows:.0f} ns",
    }


def _unseal(path: Path) -> None:
    shutil.rmtree(path / "kdcache/seals", ignore_errors=True)
    for each in path.glob("kdcache/*/commits-*.jsonl"):
        each.unlink()


def _cpu(call: Callable[[], Any], trials: int) -> float:
    seconds = []
    for _ in range(trials):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return median(seconds)


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount < 100 else f"${amount:,.0f}"


def measured_arrays(figures: dict[str, list[dict[str, Any]]]) -> dict[int, dict[str, float]]:
    """k -> bytes a row by array, from the figures that `make bench` left."""
    return {
        int(each["setting"].split(",")[0].removeprefix("k ")): each["details"]["arrays"]
        for each in figures["Bytes a row"]
        if each["name"] == "bytes a row on disk" and each["target"] is not None
    }


def measured_rate(figures: dict[str, list[dict[str, Any]]]) -> float:
    """Views a second of a CPU core that extracts with EfficientNet-lite0 at 224 pixels."""
    each = next(each for each in figures["Extracting"] if each["name"] == "extract, one view / bare loop")
    return float(each["details"]["rows"] / each["details"]["median_seconds"]["extract"])


def grown_stores(sizes: tuple[int, ...], trials: int) -> dict[str, Any]:
    """The record of generated stores, with the conditions of the run."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        grown = {f"{rows:,} rows": simulate(Path(folder), rows, trials) for rows in sizes}
    present = provenance("cpu")
    return {
        "device": f"shared CPU cores ({present.cpu_capability}), CPU time, medians of {trials}",
        "versions": present.versions,
        "command": "python -m tests.benchmarks.scale",
        "minutes": (time.monotonic() - began) / 60,
        "cpu_capability": present.cpu_capability,
        "grown": grown,
    }


def rewrite(figures: Path, page: Path) -> None:
    """Write the page's blocks from performance.json and scale.json."""
    measured = json.loads((figures / "performance.json").read_text())["figures"]
    record = json.loads((figures / "scale.json").read_text())
    sizes, core = measured_arrays(measured), measured_rate(measured)
    noted = Provenance(versions=record["versions"], device="cpu", cpu_capability=record["cpu_capability"])
    paper = {plan.name: on_paper(plan, sizes[plan.k], core, noted) for plan in PLANS}
    write_page(page, paper, record["grown"], line_of_conditions(record))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 1e5 rows: to see that it runs")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the JSONs")
    parser.add_argument("--out", type=Path, default=Path("docs/scale.md"), help="page whose tables are replaced")
    parser.add_argument("--rewrite", action="store_true", help="measure nothing: write the page from the JSONs")
    given = parser.parse_args(arguments)
    if not given.rewrite:
        sizes = (10_000, 100_000) if given.quick else (10**4, 10**6, 10**8)
        record = json.dumps(grown_stores(sizes, given.trials), indent=1)
        (given.figures / "scale.json").write_text(record + "\n")
    rewrite(given.figures, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
