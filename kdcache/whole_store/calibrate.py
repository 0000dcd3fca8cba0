"""Temperature scaling finds the T* at which soft labels have the least NLL on hard labels, and ECE at T = 1 and at T*.

Guo et al. 2017, "On Calibration of Modern Neural Networks": one temperature, fitted on held-out rows by NLL. A store is
read block by block and is never in memory as a whole. `fit_temperature` is the entry.

Shape letters: B rows of a piece, K classes a row holds, T temperatures.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kdcache.base.calibration_bins import BINS, calibration_error, calibration_sums
from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.store.store import Store
from kdcache.whole_store.labelled_pieces import PIECE, labelled_pieces, require_one_label

CALIBRATING = Activity("calibrating", "rows")
Floats = npt.NDArray[np.float64]

FULL_RANGE, TOPK_RANGE = (0.05, 100.0), (1.0, 100.0)
GRID = 16  # temperatures a pass; a pass leaves 2 / 17 of the interval's logarithm
SEARCHES = 5  # passes over the rows: 7.6 nats of T end as 2 x 9.1e-5, so T* is known to 1e-4 of itself
TOP_ENDS = (
    "NLL still falls at T = 100: the teacher knows little of these labels; compare its class order with the data's"
)
BOTTOM_ENDS = {
    True: "NLL still falls at T = 0.05: the teacher hardly errs on these rows; use rows that it was not trained on",
    False: "the least NLL is at T = 1 or below, where a top-k store's tail sketch ends: extract these rows with "
    "--encoding full to fit a lower T",
}


class ReliabilityBin(Record):
    """Rows whose top probability is in [low, high), or is exactly 1: their count, the mean of that probability
    (`confidence`), and the share whose top class is the hard label (`accuracy`)."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


class Calibration(Record):
    """A calibration is a fitted temperature with the errors at T = 1 (before) and at T* (after).

    Attributes:
        store: The place of the store.
        content_id: The content id of its seal; None without one.
        view: The view whose rows were read.
        rows: The number of rows with a hard label.
        rows_without_label: The number of rows without one, which were left out.
        accuracy: Top-1 accuracy, as a share of 1.
        temperature: T*.
        at_bound: True where T* is an end of the range of temperatures; `note` says why and what to do.
        nll_before: NLL at T = 1, in nats a row.
        nll_after: NLL at T*.
        ece_before: ECE at T = 1, as a share of 1.
        ece_after: ECE at T*.
        note: A remark for people.
        curve: (T, NLL) of T = 1 and of every temperature that was tried.
        bins_before: The bins of the reliability diagram at T = 1 that hold rows.
        bins_after: The same at T*.
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
    """The temperature T* is fitted to hard labels: it has the least mean of -log p(hard label), the NLL, over all
    positions of one view (the first by default). Guo et al. 2017.

    NLL over all logits is convex in 1 / T (a logsumexp less a line), so in log T it falls and then rises, once. A grid
    is narrowed to the neighbours of its best point until they are 1e-4 apart. T is 0.05 to 100, from a top-k store 1
    to 100. Rows without a hard label, or with a masked one, and struck rows are left out.

    Raises InvalidInputError for soft labels that are known at one temperature alone, mixed views, a view that the
    store lacks, or no labelled row; MissingBlockError and DamagedError as `Store.read`.

    Examples:
        >>> calibration = fit_temperature(store)
        >>> calibration.nll_after <= calibration.nll_before
        True
    """
    store.identity.encoding.require_sketch("a fitted temperature")
    require_one_label(store, advice="calibrate on an unmixed store of held-out rows")
    view = store.every_view[0] if view is None else view
    full = store.identity.encoding.COMPLETE
    low, high = FULL_RANGE if full else TOPK_RANGE
    passes = _Passes(store, view, progress)
    temperatures = np.geomspace(low, high, GRID + 2)
    curve = dict(zip(temperatures.tolist(), passes.nll(temperatures), strict=True))
    for _ in range(SEARCHES - 1):
        temperatures = np.geomspace(*_best_neighbours(curve), GRID + 2)[1:-1]
        curve |= zip(temperatures.tolist(), passes.nll(temperatures), strict=True)
    best = min(curve, key=lambda temperature: curve[temperature])
    sums_at_1, sums_at_best = passes.measure(1.0, best)
    ends = {low: BOTTOM_ENDS[full], high: TOP_ENDS}
    return Calibration(
        store=str(store.folder.root),
        content_id=store.content_id,
        view=view,
        rows=sums_at_1.rows,
        rows_without_label=store.rows - len(store.struck(view)) - sums_at_1.rows,
        accuracy=sums_at_1.correct / sums_at_1.rows,
        temperature=best,
        at_bound=best in ends,
        nll_before=sums_at_1.loss / sums_at_1.rows,
        nll_after=sums_at_best.loss / sums_at_best.rows,
        ece_before=sums_at_1.ece(),
        ece_after=sums_at_best.ece(),
        note=ends.get(best, ""),
        curve=tuple(sorted({**curve, 1.0: sums_at_1.loss / sums_at_1.rows}.items())),
        bins_before=sums_at_1.bins(),
        bins_after=sums_at_best.bins(),
    )


def _best_neighbours(curve: dict[float, float]) -> tuple[float, float]:
    """The neighbours of the temperature with the least NLL; at an end of the range, that end and its neighbour."""
    temperatures = sorted(curve)
    best = min(range(len(temperatures)), key=lambda place: curve[temperatures[place]])
    return temperatures[max(best - 1, 0)], temperatures[min(best + 1, len(temperatures) - 1)]


class TemperatureSums:
    """Sums over rows at one temperature, from which NLL, accuracy and ECE follow."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.rows = self.correct = 0
        self.loss = 0.0
        self.sums = np.zeros((3, BINS + 1))  # rows, confidence, correct rows; by bin

    def add(self, soft: SoftLabels, correct: npt.NDArray[np.bool_]) -> None:
        """Count rows [B] whose hard label is known; `correct` [B] where the top class is the hard label."""
        self.rows += len(correct)
        self.correct += int(correct.sum())
        self.loss -= float(soft.label_log_prob(self.temperature).sum())
        confidence = np.exp(-soft.log_normalizer(self.temperature))  # the top logit is 0
        self.sums += calibration_sums(confidence, correct)

    def ece(self) -> float:
        """Expected calibration error, Guo et al. 2017, equation 3: sum over bins of |correct - confidence| / rows."""
        return calibration_error(self.sums)

    def bins(self) -> tuple[ReliabilityBin, ...]:
        """The bins that hold rows, ascending."""
        return reliability_bins(self.sums)


def reliability_bins(sums: Floats) -> tuple[ReliabilityBin, ...]:
    """The bins of sums [3, 16] that hold rows, ascending."""
    return tuple(
        ReliabilityBin(
            low=place / BINS,
            high=min(place + 1, BINS) / BINS,
            rows=int(rows),
            confidence=confidence / rows,
            accuracy=correct / rows,
        )
        for place, (rows, confidence, correct) in enumerate(sums.T.tolist())
        if rows
    )


class _Passes:
    """Passes over the labelled rows of one view. Progress is reported over all passes together."""

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
        return [float(loss) for loss in sums / rows]

    def measure(self, *temperatures: float) -> list[TemperatureSums]:
        """The sums at each temperature, in one pass."""
        sums = [TemperatureSums(temperature) for temperature in temperatures]
        for soft, correct in self._pieces():
            for temperature_sums in sums:
                temperature_sums.add(soft, correct)
        return sums

    def _pieces(self) -> Iterator[tuple[SoftLabels, npt.NDArray[np.bool_]]]:
        """Labelled rows [B] in f64, and a mask [B] of those whose top class is the hard label."""
        self.progress(CALIBRATING, self.done, self.total)
        for _, soft, hard in labelled_pieces(self.store, self.view, piece=PIECE, passed=self._passed):
            yield soft, np.asarray(soft.top_class == hard)

    def _passed(self, rows: int) -> None:
        self.done += rows
        self.progress(CALIBRATING, self.done, self.total)
