"""Soft labels of two stores are compared on their common rows: agreement and KL by view, and the rows that differ most.

`compare_common_rows` is the entry. It cuts the common rows into groups and compares each group on an engine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from kdcache.base.engine import LOCAL, Engine
from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.records import Record
from kdcache.labels.soft_labels import SoftLabels
from kdcache.store.inspection import class_name
from kdcache.store.store import Store
from kdcache.whole_store.agreement import RowAgreement, compare_rows, overlap_size
from kdcache.whole_store.common_rows import CommonRows, Pairing, gather
from kdcache.whole_store.engines import in_order, shared_stores
from kdcache.whole_store.output_values import OutputDifference, OutputSums, compare_outputs, shape_of
from kdcache.whole_store.store_address import StoreAddress
from kdcache.whole_store.tally import Spread, Tally

PIECE = 2**18  # log-probabilities [rows, classes] in f64 at a time
WORST = 10
PER_DECADE = 5  # bins of the histogram that is drawn


class WorstRow(Record):
    """A row of large KL: dataset index, view, its position in either store, hard label and top classes by name, and KL
    in nats (None: infinite)."""

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
    """Rows of one view. `agreement`: share of rows with equal top classes. `overlap`: mean share of equal classes among
    the top k. `pixels`: share of rows with equal pixel fingerprints (None: the orders differ, and so do the positions).
    KL is in nats; `tail_a` and `tail_b` are the mean masses of the tails."""

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
    """All views together and one by one; fields are as in `ViewAgreement`. `outputs`: features and taps that both keep.

    `exact`: both stores hold all logits; else KL is a lower bound, see agreement.py. `histogram_ab` and `histogram_ba`:
    rows by KL, one a direction, in bins of a fifth of a decade from 1e-9 to 1e3, with one bin below and one above.
    `worst`: the rows of largest KL in either direction."""

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
    outputs: tuple[OutputDifference, ...] = ()


@dataclass
class _ViewSums:
    """Sums over rows of one view."""

    rows: int = 0
    equal: int = 0
    overlap: float = 0.0
    pixels: int = 0
    tails: list[float] = field(default_factory=lambda: [0.0, 0.0])
    ab: Tally = field(default_factory=Tally)
    ba: Tally = field(default_factory=Tally)

    def add(self, agreement: RowAgreement) -> None:
        self.rows += len(agreement.top)
        self.equal += int(agreement.top.sum())
        self.overlap += float(agreement.overlap.sum())
        self.ab.add(agreement.kl_ab)
        self.ba.add(agreement.kl_ba)

    def join(self, other: "_ViewSums") -> None:
        self.rows += other.rows
        self.equal += other.equal
        self.overlap += other.overlap
        self.pixels += other.pixels
        self.tails = [mine + theirs for mine, theirs in zip(self.tails, other.tails, strict=True)]
        self.ab.join(other.ab)
        self.ba.join(other.ba)

    def summary(self, view: int, aligned: bool) -> ViewAgreement:
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


@dataclass(frozen=True)
class Comparison:
    """The task of comparing two stores at a temperature, on at most `limit` rows of each view (0: all)."""

    a: StoreAddress
    b: StoreAddress
    temperature: float
    limit: int

    @property
    def pairing(self) -> Pairing:
        """The common rows of both stores, worked out once a process."""
        return self.a.kept(self.b, lambda: Pairing(self.a.store(), self.b.store()))


@dataclass(frozen=True)
class _Group:
    """Group number `number` of the common rows of a view."""

    view: int
    number: int
    rows: int


@dataclass
class _ComparisonSums:
    """Sums over some rows: by view, with the rows of largest KL in ascending order, and k of the top k."""

    by_view: dict[int, _ViewSums] = field(default_factory=dict)
    worst: list[tuple[float, int, int, WorstRow]] = field(default_factory=list)
    top_k: int = 0
    outputs: dict[str, OutputSums] = field(default_factory=dict)

    def keep(self, *rows: tuple[float, int, int, WorstRow]) -> None:
        self.worst = sorted([*self.worst, *rows], key=lambda row: row[:3])[-WORST:]

    def join(self, other: "_ComparisonSums") -> None:
        for view, sums in other.by_view.items():
            self.by_view.setdefault(view, _ViewSums()).join(sums)
        self.keep(*other.worst)
        for name, output_sums in other.outputs.items():
            self.outputs.setdefault(name, OutputSums()).join(output_sums)
        self.top_k = other.top_k


def compare_common_rows(
    a: Store,
    b: Store,
    view_numbers: Sequence[int],
    *,
    temperature: float,
    limit: int,
    engine: Engine = LOCAL,
    progress: Progress = silent,
) -> RowComparison | None:
    """Compare two stores of one data set on at most `limit` rows (0: all) of each of some common views.

    Returns None where no row of these views is committed in both. Raises InvalidInputError for a temperature that a
    store does not answer, and MissingBlockError or DamagedError as `Store.read`.
    """
    encodings = [store.identity.encoding for store in (a, b)]
    for encoding in encodings:
        encoding.require_temperature(temperature)
    exact = all(encoding.COMPLETE for encoding in encodings)
    sums, done = _ComparisonSums(), 0
    with shared_stores(engine, a, b) as (address_a, address_b):
        comparison = Comparison(address_a, address_b, temperature, limit)
        tasks = [
            _Group(view, number, len(rows))
            for view in view_numbers
            for number, rows in enumerate(comparison.pairing.groups_of(view, limit))
        ]
        total = sum(group.rows for group in tasks)
        results = in_order(engine, partial(compare_group, comparison), tasks)
        for group, result in zip(tasks, results, strict=True):
            sums.join(result)
            done += group.rows
            progress(Activity("comparing", "rows"), done, total)
    aligned = a.identity.order.sha256 == b.identity.order.sha256
    if not sums.by_view:
        return None
    outputs = tuple(each.difference(name, shape_of(encodings[0], name)) for name, each in sums.outputs.items())
    return _result(sums, temperature, exact=exact, aligned=aligned).model_copy(update={"outputs": outputs})


def compare_group(comparison: Comparison, group: _Group) -> _ComparisonSums:
    """Compare one group of rows. On a worker."""
    a, b = comparison.a.store(), comparison.b.store()
    rows = comparison.pairing.groups_of(group.view, comparison.limit)[group.number]
    temperature = comparison.temperature
    result, sums = _ComparisonSums(), _ViewSums()
    encoded_a, encoded_b = gather(a, group.view, rows.a), gather(b, group.view, rows.b)
    sums.pixels += int((encoded_a.arrays["pixels"] == encoded_b.arrays["pixels"]).sum())
    step = max(PIECE // a.identity.teacher.classes, 1)
    for start in range(0, len(rows), step):
        piece = np.arange(start, min(start + step, len(rows)))
        soft_a, soft_b = (rows_of.take(piece).soft_labels().by_class() for rows_of in (encoded_a, encoded_b))
        agreement = compare_rows(soft_a, soft_b, temperature)
        sums.add(agreement)
        for side, soft in enumerate((soft_a, soft_b)):
            sums.tails[side] += float(np.asarray(soft.tail_mass(temperature)).sum())
        result.top_k = overlap_size(soft_a, soft_b)
        result.keep(*_worst(a, b, group.view, rows.take(piece), agreement, soft_a, soft_b))
    result.by_view[group.view] = sums
    result.outputs = compare_outputs(a, b, group.view, rows.a, rows.b)
    return result


def _worst(
    a: Store, b: Store, view: int, rows: CommonRows, agreement: RowAgreement, soft_a: SoftLabels, soft_b: SoftLabels
) -> Iterator[tuple[float, int, int, WorstRow]]:
    """The rows of a piece with the largest KL, as (KL, -view, -dataset index, row): the first three sort them."""
    kl = np.maximum(agreement.kl_ab, agreement.kl_ba)
    top_a, top_b = soft_a.top_class, soft_b.top_class
    for row in np.argsort(-kl, kind="stable")[:WORST].tolist():
        if kl[row] <= 0:
            continue
        index, position = int(rows.index[row]), int(rows.a[row])
        worst_row = WorstRow(
            index=index,
            view=view,
            position_a=position,
            position_b=int(rows.b[row]),
            label=class_name(a.identity.dataset.class_names, int(a.labels[position])),
            top_a=class_name(a.identity.dataset.class_names, int(top_a[row])),
            top_b=class_name(b.identity.dataset.class_names, int(top_b[row])),
            kl_ab=_finite(agreement.kl_ab[row]),
            kl_ba=_finite(agreement.kl_ba[row]),
        )
        yield float(kl[row]), -view, -index, worst_row


def _result(sums: _ComparisonSums, temperature: float, *, exact: bool, aligned: bool) -> RowComparison:
    total = _ViewSums()
    for view_sums in sums.by_view.values():
        total.join(view_sums)
    return RowComparison(
        temperature=temperature,
        top_k=sums.top_k,
        exact=exact,
        rows=total.rows,
        agreement=total.equal / total.rows,
        overlap=total.overlap / total.rows,
        kl_ab=total.ab.spread(),
        kl_ba=total.ba.spread(),
        tail_a=total.tails[0] / total.rows,
        tail_b=total.tails[1] / total.rows,
        views=tuple(view_sums.summary(view, aligned) for view, view_sums in sums.by_view.items()),
        worst=tuple(row for *_, row in reversed(sums.worst)),
        histogram_ab=total.ab.coarse(PER_DECADE),
        histogram_ba=total.ba.coarse(PER_DECADE),
    )


def _finite(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
