"""Soft labels of two stores on the rows that they share: agreement and KL by view, and the rows that differ most."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kdcache.agreement import RowAgreement, compare_rows, overlap_size
from kdcache.common_rows import CommonRows, Pairing, gather, groups
from kdcache.inspection import class_name
from kdcache.manifest import Record
from kdcache.progress import Progress, silent
from kdcache.rows import EncodedRows
from kdcache.softlabels import FullLabels, SoftLabels, check_temperature
from kdcache.store import Store
from kdcache.tally import Spread, Tally

PIECE = 2**18  # log-probabilities [rows, classes] in f64 at a time
WORST = 10
PER_DECADE = 5  # bins of the histogram that is drawn


class WorstRow(Record):
    """A row: dataset index, view, its position in either store, hard label and top classes by name, KL in nats (None:
    infinite)."""

    index: int
    view: int
    position_a: int
    position_b: int
    label: str
    top_a: str
    top_b: str
    kl_ab: float | None
    kl_ba: float | None


class ViewAgreement(Record):
    """Rows of one view: shares of 1 with equal top classes, and of equal classes among the top k; of equal pixel
    fingerprints where positions are equal (None: other orders); KL in nats; mean mass of the tails."""

    view: int
    rows: int
    agreement: float
    overlap: float
    pixels: float | None
    kl_ab: Spread
    kl_ba: Spread
    tail_a: float
    tail_b: float


class RowComparison(Record):
    """All views together and one by one. `exact`: both stores hold all logits; else KL is a lower bound, see
    `kdcache.agreement`. `histogram`: rows by KL, per direction, in bins of a fifth of a decade from 1e-9 to 1e3, with
    one below and one above. `worst`: the rows of largest KL in either direction."""

    temperature: float
    top_k: int
    exact: bool
    rows: int
    agreement: float
    overlap: float
    kl_ab: Spread
    kl_ba: Spread
    tail_a: float
    tail_b: float
    views: tuple[ViewAgreement, ...]
    worst: tuple[WorstRow, ...]
    histogram_ab: tuple[int, ...]
    histogram_ba: tuple[int, ...]


@dataclass
class _Sums:
    """What is added up over the rows of a view."""

    rows: int = 0
    equal: int = 0
    overlap: float = 0.0
    pixels: int = 0
    tails: list[float] = field(default_factory=lambda: [0.0, 0.0])
    ab: Tally = field(default_factory=Tally)
    ba: Tally = field(default_factory=Tally)

    def add(self, found: RowAgreement) -> None:
        self.rows += len(found.top)
        self.equal += int(found.top.sum())
        self.overlap += float(found.overlap.sum())
        self.ab.add(found.kl_ab)
        self.ba.add(found.kl_ba)

    def view(self, view: int, aligned: bool) -> ViewAgreement:
        return ViewAgreement(
            view=view,
            rows=self.rows,
            agreement=self.equal / self.rows,
            overlap=self.overlap / self.rows,
            pixels=self.pixels / self.rows if aligned else None,
            kl_ab=self.ab.spread(),
            kl_ba=self.ba.spread(),
            tail_a=self.tails[0] / self.rows,
            tail_b=self.tails[1] / self.rows,
        )


def compare_common_rows(
    a: Store, b: Store, views: Sequence[int], *, temperature: float, limit: int, progress: Progress = silent
) -> RowComparison | None:
    """Compare at most `limit` rows (0: all) of each of some common views of two stores of one data set.

    None where no row of these views is committed in both. Raises InvalidInputError for a temperature that a store does
    not answer, and MissingBlockError or DamagedError as `Store.read`.
    """
    full = [store.identity.encoding.k is None for store in (a, b)]
    check_temperature(temperature, full=all(full))
    pairing = Pairing(a, b)
    chosen = {view: pairing.rows_of(view, limit) for view in views}
    work = _Comparison(a, b, temperature, pairing.aligned, sum(map(len, chosen.values())), progress)
    sums = {view: work.view(view, rows) for view, rows in chosen.items() if len(rows)}
    return work.result(sums, all(full)) if sums else None


class _Comparison:
    """One pass over the common rows."""

    def __init__(self, a: Store, b: Store, temperature: float, aligned: bool, total: int, progress: Progress) -> None:
        self.a, self.b = a, b
        self.temperature, self.aligned = temperature, aligned
        self.progress, self.done, self.total = progress, 0, total
        self.top_k = 0
        self.worst: list[tuple[float, int, int, WorstRow]] = []  # ascending

    def view(self, view: int, rows: CommonRows) -> _Sums:
        sums = _Sums()
        for group in groups(rows, self.a, self.b, view):
            encoded_a, encoded_b = gather(self.a, view, group.a), gather(self.b, view, group.b)
            sums.pixels += int((encoded_a.arrays["pixels"] == encoded_b.arrays["pixels"]).sum())
            step = max(PIECE // self.a.identity.teacher.classes, 1)
            for first in range(0, len(group), step):
                part = np.arange(first, min(first + step, len(group)))
                self._piece(view, group, part, (encoded_a, encoded_b), sums)
        return sums

    def _piece(
        self, view: int, group: CommonRows, part: np.ndarray, encoded: tuple[EncodedRows, EncodedRows], sums: _Sums
    ) -> None:
        soft_a, soft_b = (each.take(part).soft_labels() for each in encoded)
        found = compare_rows(soft_a, soft_b, self.temperature)
        sums.add(found)
        for side, soft in enumerate((soft_a, soft_b)):
            sums.tails[side] += float(np.asarray(soft.tail_mass(self.temperature)).sum())
        self.top_k = overlap_size(soft_a, soft_b)
        self._keep_worst(view, group, part, found, soft_a, soft_b)
        self.done += len(part)
        self.progress("comparing rows", self.done, self.total)

    def _keep_worst(
        self, view: int, group: CommonRows, part: np.ndarray, found: RowAgreement, a: SoftLabels, b: SoftLabels
    ) -> None:
        larger = np.maximum(found.kl_ab, found.kl_ba)
        for row in np.argsort(-larger, kind="stable")[:WORST].tolist():
            at = int(part[row])
            index, position = int(group.index[at]), int(group.a[at])
            key = (float(larger[row]), -view, -index)
            if larger[row] <= 0 or (len(self.worst) == WORST and key <= self.worst[0][:3]):
                continue
            names = self.a.identity.dataset.class_names
            named = WorstRow(
                index=index,
                view=view,
                position_a=position,
                position_b=int(group.b[at]),
                label=class_name(names, int(self.a.labels[position])),
                top_a=class_name(names, _top(a, row)),
                top_b=class_name(self.b.identity.dataset.class_names, _top(b, row)),
                kl_ab=_finite(found.kl_ab[row]),
                kl_ba=_finite(found.kl_ba[row]),
            )
            self.worst = sorted([*self.worst, (*key, named)], key=lambda each: each[:3])[-WORST:]

    def result(self, sums: dict[int, _Sums], exact: bool) -> RowComparison:
        ab, ba = Tally(), Tally()
        for each in sums.values():
            ab.join(each.ab)
            ba.join(each.ba)
        rows = sum(each.rows for each in sums.values())
        return RowComparison(
            temperature=self.temperature,
            top_k=self.top_k,
            exact=exact,
            rows=rows,
            agreement=sum(each.equal for each in sums.values()) / rows,
            overlap=sum(each.overlap for each in sums.values()) / rows,
            kl_ab=ab.spread(),
            kl_ba=ba.spread(),
            tail_a=sum(each.tails[0] for each in sums.values()) / rows,
            tail_b=sum(each.tails[1] for each in sums.values()) / rows,
            views=tuple(each.view(view, self.aligned) for view, each in sums.items()),
            worst=tuple(row for *_, row in reversed(self.worst)),
            histogram_ab=ab.coarse(PER_DECADE),
            histogram_ba=ba.coarse(PER_DECADE),
        )


def _top(soft: SoftLabels, row: int) -> int:
    return int(soft.logits[row].argmax() if isinstance(soft, FullLabels) else soft.classes[row, 0])


def _finite(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
