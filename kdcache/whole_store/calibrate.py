"""Temperature scaling: the T* at which soft labels have the least NLL on hard labels, and ECE before and after.

Guo et al. 2017, "On Calibration of Modern Neural Networks": one temperature, fitted on held-out rows by NLL. A store is
read block by block and never held whole. Shape letters: B rows of a piece, K classes a row holds, T temperatures.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import FullLabels, SoftLabels, TopKLabels
from kdcache.store.store import Store

Floats = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FULL_RANGE, TOPK_RANGE = (0.05, 100.0), (1.0, 100.0)
BINS = 15
GRID = 16  # temperatures a pass; a pass leaves 2 / 17 of the interval's logarithm
SEARCHES = 5  # passes over the rows: 7.6 nats of T end as 2 x 9.1e-5, so T* is known to 1e-4 of itself
PIECE = 2**18  # logits in f64 at a time
TOP_ENDS = (
    "NLL still falls at T = 100: the teacher knows little of these labels; compare its class order with the data's"
)
BOTTOM_ENDS = {
    True: "NLL still falls at T = 0.05: the teacher hardly errs on these rows; use rows that it was not trained on",
    False: "the least NLL is at T = 1 or below, where a top-k store's tail sketch ends: extract these rows with "
    "--encoding full to fit a lower T",
}


class ReliabilityBin(Record):
    """Rows whose top probability is in [low, high), or exactly 1: how many, its mean, and the share that is right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


class Calibration(Record):
    """A fitted temperature. NLL in nats a row, ECE and accuracy (top-1) as shares of 1; before is T = 1, after is T*.

    `rows` had a hard label, `rows_without_label` had none and were left out. `at_bound`: T* is an end of what may be
    tried, and `note` says why and what to do. `curve` holds (T, NLL) of all that were tried and T = 1; `bins_before`
    and `bins_after` the reliability diagram's bins that hold rows.
    """

    store: str
    content_id: str | None
    view: int
    rows: int
    rows_without_label: int
    accuracy: float
    temperature: float
    at_bound: bool
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    note: str
    curve: tuple[tuple[float, float], ...]
    bins_before: tuple[ReliabilityBin, ...]
    bins_after: tuple[ReliabilityBin, ...]


def fit_temperature(store: Store, view: int | None = None, *, progress: Progress = silent) -> Calibration:
    """Fit T* over all positions of one view (the first by default) by the mean of -log p(hard label).

    NLL is convex in 1 / T for all logits (a logsumexp less a line), and falls and rises once in log T: a grid is
    narrowed to the neighbours of its best point until they are 1e-4 apart. T is 0.05 to 100, from a top-k store 1 to
    100. Rows without a hard label, or with a masked one, are left out.

    Raises InvalidInputError for mixed views, a view that is not there, or no labelled row; MissingBlockError and
    DamagedError as `Store.read`.
    """
    chosen = _usable_view(store, view)
    full = store.identity.encoding.k is None
    low, high = FULL_RANGE if full else TOPK_RANGE
    passes = _Passes(store, chosen, progress)
    tried = np.geomspace(low, high, GRID + 2)
    curve = dict(zip(tried.tolist(), passes.nll(tried), strict=True))
    for _ in range(SEARCHES - 1):
        tried = np.geomspace(*_around_best(curve), GRID + 2)[1:-1]
        curve |= zip(tried.tolist(), passes.nll(tried), strict=True)
    best = min(curve, key=lambda temperature: curve[temperature])
    before, after = passes.measure(1.0, best)
    ends = {low: BOTTOM_ENDS[full], high: TOP_ENDS}
    return Calibration(
        store=str(store.folder.root),
        content_id=store.content_id,
        view=chosen,
        rows=before.rows,
        rows_without_label=store.rows - before.rows,
        accuracy=before.correct / before.rows,
        temperature=best,
        at_bound=best in ends,
        nll_before=before.loss / before.rows,
        nll_after=after.loss / after.rows,
        ece_before=before.ece(),
        ece_after=after.ece(),
        note=ends.get(best, ""),
        curve=tuple(sorted({**curve, 1.0: before.loss / before.rows}.items())),
        bins_before=before.bins(),
        bins_after=after.bins(),
    )


def _usable_view(store: Store, view: int | None) -> int:
    if (mix := store.identity.plan.mix) != "none":
        raise InvalidInputError(
            f"the views of {store.folder.root} are mixed by {mix}: a row has two hard labels, and no NLL of one; "
            "calibrate on an unmixed store of held-out rows (kdcache extract --mix none)"
        )
    if not store.every_view:
        raise InvalidInputError(f"{store.folder.root} has no views yet; run kdcache extract")
    return store.every_view[0] if view is None else view


def _around_best(curve: dict[float, float]) -> tuple[float, float]:
    """The neighbours of the temperature with the least NLL; at an end of the range, that end and its neighbour."""
    tried = sorted(curve)
    best = min(range(len(tried)), key=lambda place: curve[tried[place]])
    return tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]


class Measured:
    """Sums over rows at one temperature, from which NLL, accuracy and ECE follow."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.rows = self.correct = 0
        self.loss = 0.0
        self.sums = np.zeros((3, BINS + 1))  # rows, confidence, right ones; by bin

    def add(self, soft: SoftLabels, right: npt.NDArray[np.bool_]) -> None:
        """Count rows [B] whose hard label is known; `right` [B] where the top class is the hard label."""
        self.rows += len(right)
        self.correct += int(right.sum())
        self.loss -= float(soft.label_log_prob(self.temperature).sum())
        confidence = np.exp(-soft.log_normalizer(self.temperature))  # the top logit is 0
        self.sums += calibration_sums(confidence, right)

    def ece(self) -> float:
        """Expected calibration error, Guo et al. 2017, equation 3: sum over bins of |right - confidence| / rows."""
        return calibration_error(self.sums)

    def bins(self) -> tuple[ReliabilityBin, ...]:
        """The bins that hold rows, ascending."""
        return reliability_bins(self.sums)


def calibration_error(sums: Floats) -> float:
    """ECE of sums [3, 16] as `calibration_sums` counts them, over at least one row."""
    return float(np.abs(sums[2] - sums[1]).sum() / sums[0].sum())


def reliability_bins(sums: Floats) -> tuple[ReliabilityBin, ...]:
    """The bins of sums [3, 16] that hold rows, ascending."""
    return tuple(
        ReliabilityBin(
            low=place / BINS,
            high=min(place + 1, BINS) / BINS,
            rows=int(rows),
            confidence=confidence / rows,
            accuracy=right / rows,
        )
        for place, (rows, confidence, right) in enumerate(sums.T.tolist())
        if rows
    )


def calibration_sums(confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> Floats:
    """[3, 16] rows, summed confidence and right ones in 15 equal bins of `confidence` [B], and at exactly 1.

    Bins are [low, high) on f32 values, and a probability that rounds to 1 has a bin of its own: so counts
    torchmetrics' MulticlassCalibrationError, which validation uses, and the two agree on saturated networks too.
    """
    narrow = confidence.astype(np.float32)
    edges = np.linspace(0, 1, BINS + 1, dtype=np.float32)
    places = np.searchsorted(edges, narrow, side="right") - 1
    weights = (np.ones(len(narrow)), narrow, right)
    return np.stack([np.bincount(places, weights=each, minlength=BINS + 1) for each in weights])


class _Passes:
    """Passes over the labelled rows of one view, each reporting how far all of them have come."""

    def __init__(self, store: Store, view: int, progress: Progress) -> None:
        self.store, self.view, self.progress = store, view, progress
        self.done, self.total = 0, (SEARCHES + 1) * store.rows

    def nll(self, temperatures: Floats) -> list[float]:
        """Mean of -log p(hard label) at each of `temperatures` [T], f64. Raises InvalidInputError without labels."""
        sums, rows = np.zeros(len(temperatures)), 0
        for soft, _ in self._pieces():
            rows += soft.label.shape[0]
            sums -= [soft.label_log_prob(temperature).sum() for temperature in temperatures.tolist()]
        if not rows:
            raise InvalidInputError(
                f"{self.store.folder.root} has no row with a hard label: there is nothing to fit to; calibrate on a "
                "labelled data set"
            )
        return [float(each) for each in sums / rows]

    def measure(self, *temperatures: float) -> list[Measured]:
        """All measures at each temperature, in one pass."""
        measured = [Measured(temperature) for temperature in temperatures]
        for soft, right in self._pieces():
            for each in measured:
                each.add(soft, right)
        return measured

    def _pieces(self) -> Iterator[tuple[SoftLabels, npt.NDArray[np.bool_]]]:
        """Labelled rows [B] in f64, and whether their top class is the hard label; at most PIECE logits at once."""
        block = self.store.segment_of(self.view).layout.block
        step = max(1, PIECE // (self.store.identity.encoding.k or self.store.identity.teacher.classes))
        self.progress("calibrating", self.done, self.total)
        for first, last in _spans(self.store.rows, max(block, step // block * block)):
            positions = np.arange(first, last, dtype=np.int64)
            rows = self.store.load(self.view, positions)
            hard = self.store.hard_labels(self.view, positions)
            for start, stop in _spans(len(positions), step):
                soft = rows.take(np.arange(start, stop)).soft_labels()
                yield _labelled(soft, hard[start:stop])
            self.done += len(positions)
            self.progress("calibrating", self.done, self.total)


def _spans(count: int, step: int) -> list[tuple[int, int]]:
    """0 to count cut into pieces of `step`, the last one shorter."""
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _labelled(soft: SoftLabels, hard: IntArray) -> tuple[SoftLabels, npt.NDArray[np.bool_]]:
    """The rows that have a hard label, in f64; and for each whether its top class is that label."""
    kept = ~np.isnan(soft.label)
    top = soft.logits.argmax(axis=-1) if isinstance(soft, FullLabels) else soft.classes[:, 0]
    fields = {"logits": soft.logits[kept].astype(np.float64), "label": soft.label[kept].astype(np.float64)}
    if isinstance(soft, TopKLabels):
        fields |= {"classes": soft.classes[kept], "tail": soft.tail[kept].astype(np.float64)}
    return replace(soft, **fields), (top == hard)[kept]
