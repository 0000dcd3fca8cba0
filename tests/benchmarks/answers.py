"""The results that users ask for first, one line each: for docs/performance.md and for the README's card of numbers.

A line is looked up in the JSONs of docs/figures. It is left out where these lack its figures.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.groups import BENCHMARKS
from tests.benchmarks.harness import Figure

Groups = dict[str, list[Figure]]  # by heading
KS = (10, 20, 50)
PEERS = {"np.memmap": "np.memmap: packed records", "TinyViT": "TinyViT: seek and read a sample"}
FKD = {"FKD": "FKD: a pickle an image"}


@dataclass(frozen=True)
class Answer:
    """A line of a table: the subject, kdcache's figure, and the figures beside it; `page`: the table with the rest."""

    subject: str
    ours: str
    beside: str
    page: str = ""


class Results:
    """The published results of a folder of JSONs."""

    def __init__(self, groups: Groups, folder: Path) -> None:
        self.groups, self.folder = groups, folder

    def record(self, name: str) -> Any:
        """A JSON of the folder. Raises LookupError where there is none."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            raise LookupError(name)
        return json.loads(path.read_text())

    def figure(self, benchmark: str, name: str, setting: str = "") -> Figure:
        """The first figure of that name whose setting has a part. Raises LookupError."""
        figures = self.groups.get(BENCHMARKS[benchmark], [])
        same = [each for each in figures if each.name == name and setting in each.setting]
        if not same:
            raise LookupError(name)
        return same[0]

    def sizes(self, name: str) -> list[float]:
        """Bytes a row at k 10, 20 and 50."""
        return [self.figure("sizes", name, f"k {k}").measured for k in KS]


def digits(value: float) -> str:
    """Two decimals below 10, one below 100, whole numbers above."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def spread(figure: Figure, scale: float = 1.0) -> str:
    """A measured value with its 95 % interval, where it has one."""
    interval = "" if figure.low == figure.high else f" ({digits(figure.low / scale)} to {digits(figure.high / scale)})"
    return f"{digits(figure.measured / scale)}{interval}"


def times(figure: Figure) -> str:
    """A ratio, as a multiple of the arm beside it."""
    return spread(figure).replace(" (", " times (", 1) if " (" in spread(figure) else f"{spread(figure)} times"


def slashed(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" if value < 99.95 else f"{value:.0f}" for value in values)


def bytes_a_row(results: Results, peers: dict[str, str] = PEERS) -> Answer:
    others = ", ".join(f"{title} {slashed(results.sizes(name))}" for title, name in peers.items())
    ours = f"{slashed(results.sizes('bytes a row on disk'))} bytes"
    return Answer("disk a row, top 10 / 20 / 50 of 1,000 classes", ours, others, "sizes")


def whole_stores(results: Results) -> Answer:
    figure = results.figure("libraries", "gather of 256 random rows, kdcache, view loaded / np.memmap")
    sizes = {row[0]: row[1] for row in figure.details["table"]["rows"]}
    titles = {"zarr with blosc": ", blosc", "parquet": "parquet", "Hugging Face datasets": "datasets ", "LMDB": "lmdb"}
    others = ", ".join(
        f"{title} {next(size for name, size in sizes.items() if part in name)}" for title, part in titles.items()
    )
    ours = f"{sizes['kdcache, from the files']} bytes"
    return Answer("disk a row, k 20, a whole store of 102,400 samples x 1 view", ours, others, "libraries")


def gather(results: Results) -> Answer:
    figure = results.figure("libraries", "gather of 256 random rows, kdcache, view loaded / np.memmap")
    seconds = figure.details["median_seconds"]
    ours, memmap, lmdb = (
        1e6 * next(each for name, each in seconds.items() if name.startswith(start))
        for start in ("kdcache, view loaded", "np.memmap", "lmdb")
    )
    beside = f"np.memmap {memmap:.0f} us, LMDB {lmdb:.0f} us; {spread(figure)} of np.memmap's time"
    return Answer("256 random rows from a view in memory", f"{ours:.1f} us", beside, "libraries")


def load(results: Results) -> Answer:
    ours = results.figure("reading", "load of a view by kdcache", "rows")
    zarrs = results.figure("reading", "load of a view by zarrs", "rows")
    beside = f"zarrs {spread(zarrs, 1e6)}, which checks nothing"
    return Answer("load of a view, million rows a second", spread(ours, 1e6), beside, "reading")


def loss(results: Results) -> Answer:
    name, classes = "KD on top-k / on a dense target", ("1,000", "32,000", "128,000")
    figures = [results.figure("losses", name, f"C {count}, k 20") for count in classes]
    ours = " / ".join(f"{figure.measured:.2f}" for figure in figures)
    interval = f"{figures[0].low:.2f} to {figures[0].high:.2f} at 1,000 classes"
    subject = f"KD loss on the top 20 of {' / '.join(classes)} classes, time"
    return Answer(subject, f"{ours} times", f"the same loss on dense targets at hand ({interval})", "losses")


def loss_memory(results: Results) -> Answer:
    name, classes = "memory of KD on top-k / on a dense target", ("1,000", "32,000", "128,000")
    figures = [results.figure("losses", name, f"C {count}, k 20") for count in classes]
    ours = " / ".join(f"{figure.details['in_logits']['top-k']:.1f}" for figure in figures)
    dense = " / ".join(f"{figure.details['in_logits']['dense']:.1f}" for figure in figures)
    return Answer("KD loss, memory in tensors of [batch, classes]", ours, f"dense targets: {dense}", "losses")


def epoch(results: Results) -> Answer:
    figure = results.figure("training", "epoch from a top-k store / bare cross-entropy", "JPEG")
    beside = "a hand-written loop with plain cross-entropy"
    return Answer("epoch from a store, ResNet-18 on JPEGs, time", times(figure), beside, "training")


def epoch_live(results: Results) -> Answer:
    figure = results.figure("training", "epoch from a top-k store / teacher in the loop", "JPEG")
    return Answer("the same epoch, time", times(figure), "a loop with the teacher (ResNet-50) in it", "training")


def epoch_cached(results: Results) -> Answer:
    figure = results.figure("view_cache", "epoch from a warm view cache / bare cross-entropy", "JPEGs")
    beside = "a hand-written loop with plain cross-entropy"
    return Answer("epoch from a warm view cache, small student on JPEGs, time", times(figure), beside, "view_cache")


def extraction(results: Results) -> Answer:
    one = results.figure("extracting", "extract, one view / bare loop", "EfficientNet-lite0")
    return Answer("extract of one view, time", times(one), "a bare loop of the teacher", "extracting")


def ten_views(results: Results) -> Answer:
    figure = results.figure("extracting", "extract, 10 views / 10 bare passes")
    return Answer("extract of ten views, time", times(figure), "ten bare passes of the teacher", "extracting")


def memory(results: Results) -> Answer:
    figures = [results.figure("opening", "memory of train's label side", f"1,048,576 rows, {n} views") for n in (2, 6)]
    assert figures[0].target is not None
    ours = " / ".join(f"{figure.measured:.0f} MB" for figure in figures)
    beside = f"stated bound {figures[0].target:.0f} MB, whatever the number of views"
    return Answer("soft labels in training, 1,048,576 rows x 2 / 6 views, memory", ours, beside, "opening")


def extract_memory(results: Results) -> Answer:
    figure = results.figure("extracting", "peak memory of extract / its stated bound", "k 20")
    peak, bound = (f"{figure.details[key] / 1e9:.2f} GB" for key in ("peak", "bound"))
    return Answer("extract, top 20 of 1,000, memory", peak, f"stated bound {bound}", "extracting")


def opening(results: Results) -> Answer:
    large, small = (results.figure("opening", "open", rows) for rows in ("100,000,000 rows", "10,000 rows"))
    beside = f"{small.measured:.2f} ms for 10,000 rows"
    return Answer("opening a sealed store of 100,000,000 rows", f"{large.measured:.2f} ms", beside, "opening")


def whole_store(results: Results) -> Answer:
    lines = {line["command"]: line for line in results.record("whole_store")["results"]}
    verify, stats = lines["verify"], lines["stats"]
    ours = " / ".join(f"{line['seconds']['1 worker']:.1f} s" for line in (verify, stats))
    beside = " / ".join(f"{line['seconds']['2 workers']:.1f} s" for line in (verify, stats)) + " with two workers"
    subject = f"`verify` of {verify['rows'] / 1e6:.0f} million rows / `stats` of {stats['rows']:,}"
    return Answer(subject, ours, beside, "whole_store")


def dask(results: Results) -> Answer:
    figure = results.figure("dask", "rows a second, two Dask workers / one")
    return Answer("two Dask workers on two cores, rows a second", times(figure), "one worker", "dask")


def sweep(results: Results) -> Answer:
    total = results.record("sweep_total_time")["total_seconds"]
    last = total["totals"][-1]
    beside = f"{last['live']:.0f} s with the teacher in the loop; break-even at {total['break_even']['one_by_one']:.2f}"
    subject = f"a sweep of {last['n']} students, extraction included"
    return Answer(subject, f"{last['store_together']:.0f} s", f"{beside} students", "sweeps")


def sharing(results: Results) -> Answer:
    push, pull = (results.figure("sharing", f"{name} by a plain parallel copy") for name in ("push", "pull"))
    ours = f"{push.measured:.2f} / {pull.measured:.2f} times"
    return Answer("`push` / `pull`, time", ours, "a plain parallel copy of the files", "sharing")


def summary(results: Results) -> str:
    """The answer in two sentences; nothing where figures lack."""
    try:
        shares = [a / b for a, b in zip(*map(results.sizes, ("bytes a row on disk", PEERS["np.memmap"])), strict=True)]
        plain = results.figure("training", "epoch from a top-k store / bare cross-entropy", "JPEG")
        live = results.figure("training", "epoch from a top-k store / teacher in the loop", "JPEG")
    except LookupError:
        return ""
    return (
        f"**Small:** a row takes {min(shares):.2f} to {max(shares):.2f} of the bytes of packed arrays. **Fast:** an "
        f"epoch from a store takes {plain.measured:.2f} of the time of an epoch without a teacher, and "
        f"{live.measured:.2f} of one with the teacher in the loop."
    )


ANSWERS = (
    lambda results: bytes_a_row(results, PEERS | FKD), whole_stores, gather, load, loss, loss_memory, epoch, epoch_live,
    epoch_cached, extraction, ten_views, memory, extract_memory, opening, whole_store, dask, sweep, sharing,
)  # fmt: skip


def answered(results: Results, answers: tuple[Any, ...] = ANSWERS) -> list[Answer]:
    """The lines whose figures are there."""
    lines = []
    for answer in answers:
        try:
            lines.append(answer(results))
        except LookupError:
            continue
    return lines
