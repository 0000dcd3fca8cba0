"""Soft labels of two stores on the rows that they share: agreement and KL by view, and the rows that differ most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np

from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.labels.soft_labels import FullLabels, SoftLabels, check_temperature
from kdcache.store.inspection import class_name
from kdcache.store.store import Store
from kdcache.whole_store.agreement import RowAgreement, compare_rows, overlap_size
from kdcache.whole_store.common_rows import CommonRows, Pairing, gather, groups
from kdcache.whole_store.engines import HERE, Engine
from kdcache.whole_store.store_address import Source, shared
from kdcache.whole_store.tally import Spread, Tally

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
    `agreement`. `histogram`: rows by KL, per direction, in bins of a fifth of a decade from 1e-9 to 1e3, with
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

    def join(self, other: "_Sums") -> None:
        self.rows += other.rows
        self.equal += other.equal
        self.overlap += other.overlap
        self.pixels += other.pixels
        self.tails = [own + more for own, more in zip(self.tails, other.tails, strict=True)]
        self.ab.join(other.ab)
        self.ba.join(other.ba)

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


@dataclass(frozen=True)
class Compared:
    """What is compared: two stores, at a temperature, at most `limit` rows of each view (0: all)."""

    a: Source
    b: Source
    temperature: float
    limit: int


@dataclass(frozen=True)
class _Group:
    """Group number `number` of the common rows of a view."""

    view: int
    number: int
    rows: int


@dataclass
class _Found:
    """What came of some rows: sums by view, the rows of largest KL in ascending order, and k of the top k."""

    sums: dict[int, _Sums] = field(default_factory=dict)
    worst: list[tuple[float, int, int, WorstRow]] = field(default_factory=list)
    top_k: int = 0

    def keep(self, *rows: tuple[float, int, int, WorstRow]) -> None:
        self.worst = sorted([*self.worst, *rows], key=lambda each: each[:3])[-WORST:]

    def join(self, other: "_Found") -> None:
        for view, sums in other.sums.items():
            self.sums.setdefault(view, _Sums()).join(sums)
        self.keep(*other.worst)
        self.top_k = other.top_k


def compare_common_rows(
    a: Store,
    b: Store,
    views: Sequence[int],
    *,
    temperature: float,
    limit: int,
    engine: Engine = HERE,
    progress: Progress = silent,
) -> RowComparison | None:
    """Compare at most `limit` rows (0: all) of each of some common views of two stores of one data set.

    None where no row of these views is committed in both. Raises InvalidInputError for a temperature that a store does
    not answer, and MissingBlockError or DamagedError as `Store.read`.
    """
    full = [store.identity.encoding.k is None for store in (a, b)]
    check_temperature(temperature, full=all(full))
    found, done = _Found(), 0
    with shared(a) as one, shared(b) as other:
        engine.ready(one, other)
        compared = Compared(one, other, temperature, limit)
        parts = [
            _Group(view, number, len(rows)) for view in views for number, rows in enumerate(_groups(compared, view))
        ]
        total = sum(part.rows for part in parts)
        for part, result in zip(parts, engine.each(partial(compare_group, compared), parts), strict=True):
            found.join(result)
            done += part.rows
            progress("comparing rows", done, total)
    _groups.cache_clear()
    _pairing.cache_clear()
    aligned = a.identity.order.sha256 == b.identity.order.sha256
    return _result(found, temperature, exact=all(full), aligned=aligned) if found.sums else None


@lru_cache(maxsize=1)
def _pairing(compared: Compared) -> Pairing:
    return Pairing(compared.a.store(), compared.b.store())


@lru_cache(maxsize=2)
def _groups(compared: Compared, view: int) -> tuple[CommonRows, ...]:
    """The common rows of a view in groups: every process finds the same."""
    rows = _pairing(compared).rows_of(view, compared.limit)
    return tuple(groups(rows, compared.a.store(), compared.b.store(), view))


def compare_group(compared: Compared, part: _Group) -> _Found:
    """Compare one group of rows. On a worker."""
    a, b, group = compared.a.store(), compared.b.store(), _groups(compared, part.view)[part.number]
    found, sums = _Found(), _Sums()
    encoded_a, encoded_b = gather(a, part.view, group.a), gather(b, part.view, group.b)
    sums.pixels += int((encoded_a.arrays["pixels"] == encoded_b.arrays["pixels"]).sum())
    step = max(PIECE // a.identity.teacher.classes, 1)
    for first in range(0, len(group), step):
        piece = np.arange(first, min(first + step, len(group)))
        soft_a, soft_b = (each.take(piece).soft_labels() for each in (encoded_a, encoded_b))
        agreement = compare_rows(soft_a, soft_b, compared.temperature)
        sums.add(agreement)
        for side, soft in enumerate((soft_a, soft_b)):
            sums.tails[side] += float(np.asarray(soft.tail_mass(compared.temperature)).sum())
        found.top_k = overlap_size(soft_a, soft_b)
        found.keep(*_worst(a, b, part.view, group.take(piece), agreement, soft_a, soft_b))
    found.sums[part.view] = sums
    return found


def _worst(
    a: Store, b: Store, view: int, rows: CommonRows, found: RowAgreement, soft_a: SoftLabels, soft_b: SoftLabels
) -> Iterator[tuple[float, int, int, WorstRow]]:
    """The rows of a piece of largest KL, with what they are sorted by."""
    larger = np.maximum(found.kl_ab, found.kl_ba)
    for row in np.argsort(-larger, kind="stable")[:WORST].tolist():
        if larger[row] <= 0:
            continue
        index, position = int(rows.index[row]), int(rows.a[row])
        named = WorstRow(
            index=index,
            view=view,
            position_a=position,
            position_b=int(rows.b[row]),
            label=class_name(a.identity.dataset.class_names, int(a.labels[position])),
            top_a=class_name(a.identity.dataset.class_names, _top(soft_a, row)),
            top_b=class_name(b.identity.dataset.class_names, _top(soft_b, row)),
            kl_ab=_finite(found.kl_ab[row]),
            kl_ba=_finite(found.kl_ba[row]),
        )
        yield float(larger[row]), -view, -index, named


def _result(found: _Found, temperature: float, *, exact: bool, aligned: bool) -> RowComparison:
    total = _Sums()
    for each in found.sums.values():
        total.join(each)
    return RowComparison(
        temperature=temperature,
        top_k=found.top_k,
        exact=exact,
        rows=total.rows,
        agreement=total.equal / total.rows,
        overlap=total.overlap / total.rows,
        kl_ab=total.ab.spread(),
        kl_ba=total.ba.spread(),
        tail_a=total.tails[0] / total.rows,
        tail_b=total.tails[1] / total.rows,
        views=tuple(each.view(view, aligned) for view, each in found.sums.items()),
        worst=tuple(row for *_, row in reversed(found.worst)),
        histogram_ab=total.ab.coarse(PER_DECADE),
        histogram_ba=total.ba.coarse(PER_DECADE),
    )


def _top(soft: SoftLabels, row: int) -> int:
    return int(soft.logits[row].argmax() if isinstance(soft, FullLabels) else soft.classes[row, 0])


def _finite(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
