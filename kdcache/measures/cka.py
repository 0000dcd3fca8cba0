"""CKA compares two networks' features of the same rows, up to rotation and scale: linear, and debiased for few rows.

Shape letters: B rows, D features of the student, E of the teacher. A linear kernel's HSIC is a polynomial of sums over
rows in feature space, so the value does not depend on batches: with K = X X', L = Y Y', diagonals removed for HSIC_1,

    tr KL    = |X'Y|^2 - sum_i |x_i|^2 |y_i|^2
    1'K1     = |sx|^2 - sum_i |x_i|^2,  sx = sum_i x_i
    1'KL1    = sx'(X'Y)sy - sx'(sum_i x_i |y_i|^2) - sy'(sum_i y_i |x_i|^2) + sum_i |x_i|^2 |y_i|^2
"""

from typing import Any

import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.measures.facts import Facts, Value

WIDEST = 4096  # features: three tables of their squares, 400 MB in f64
KORNBLITH = "Kornblith et al. 2019"
SONG = "Song et al. 2012, HSIC_1"
FACTS = {
    "cka": Facts("share", "HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) on centred linear kernels", KORNBLITH, ("taps",)),
    "cka_debiased": Facts(
        "share", "the same with the unbiased HSIC_1 over all rows", f"{SONG}; Nguyen et al. 2021", ("taps",)
    ),
    "cka_minibatch": Facts(
        "share",
        "sum over batches of HSIC_1(K, L), over sqrt(sum HSIC_1(K, K) sum HSIC_1(L, L))",
        f"Nguyen et al. 2021; {SONG}",
        ("taps",),
        topk="estimate",
        full="estimate",
    ),
}
Pair = tuple[str, str]
PAIRS: tuple[Pair, ...] = (("x", "y"), ("x", "x"), ("y", "y"))


class FeatureTally:
    """A tally of features holds sums over rows of two networks' features, exact for any batches; at most 4,096 features
    on either side. Tallies add up.

    Examples:
        >>> from kdcache.measures.cka import FeatureTally
        >>> tally = FeatureTally()
        >>> tally.update(features[0], features[1])
        >>> round(tally.result()["cka"].value, 3)
        1.0
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Count features [B, ...] of either side, which are flattened to [B, D] and [B, E], in f64 on the CPU. Raises
        InvalidInputError for unequal rows, NaN, too many features, or widths other than before."""
        sides = dict(zip("xy", features_of(student, teacher), strict=True))
        for noun, values in zip(("student", "teacher"), sides.values(), strict=True):
            if values.shape[1] > WIDEST:
                raise InvalidInputError(
                    f"the {noun}'s tap has {values.shape[1]} features, at most {WIDEST} can be summed: "
                    "pool the tap, or use BatchTally"
                )
        squares = {name: values.square().sum(dim=1) for name, values in sides.items()}
        sums = {f"s{name}": values.sum(dim=0) for name, values in sides.items()}
        sums |= {f"n{name}": values.sum() for name, values in squares.items()}
        for a, b in PAIRS:
            sums[a + b] = sides[a].T @ sides[b]
            sums[f"n{a}{b}"] = squares[a] @ squares[b]
        for a in "xy":
            for b in "xy":
                sums[f"{a}|{b}|"] = squares[b] @ sides[a]
        self._sums = _added(self._sums, sums)
        self.rows += len(student)

    def __add__(self, other: "FeatureTally") -> "FeatureTally":
        total = FeatureTally()
        total.rows = self.rows + other.rows
        total._sums = _added(self._sums, other._sums)
        return total

    def result(self) -> dict[str, Value]:
        """`cka`, and from 4 rows `cka_debiased`; without either where features do not vary. Raises InvalidInputError
        for fewer than 2 rows.
        """
        if self.rows < 2:
            raise InvalidInputError(f"CKA was asked of {self.rows} rows; it compares rows: give 2 or more")
        values = {"cka": _cosine(*(self._biased(*pair) for pair in PAIRS))}
        if self.rows >= 4:
            values["cka_debiased"] = _cosine(*(self._unbiased(*pair) for pair in PAIRS))
        return {
            name: Value(value=value, unit="share", rows=self.rows) for name, value in values.items() if value == value
        }

    def _biased(self, a: str, b: str) -> float:
        """|Xc'Yc|^2, HSIC_0 times (n - 1)^2."""
        centred = self._sums[a + b] - torch.outer(self._sums[f"s{a}"], self._sums[f"s{b}"]) / self.rows
        return float(centred.square().sum())

    def _unbiased(self, a: str, b: str) -> float:
        n, sums = self.rows, self._sums
        sa, sb, both = sums[f"s{a}"], sums[f"s{b}"], sums[f"n{a}{b}"]
        trace = sums[a + b].square().sum() - both
        totals = (sa @ sa - sums[f"n{a}"]) * (sb @ sb - sums[f"n{b}"])
        mixed = sa @ sums[a + b] @ sb - sa @ sums[f"{a}|{b}|"] - sb @ sums[f"{b}|{a}|"] + both
        return _hsic_1(trace, totals, mixed, n)


class BatchTally:
    """A tally of batches holds sums over batches of HSIC_1 [B, B], for features of any width. The estimate depends on
    the batches, which need 4 rows or more.

    Examples:
        >>> from kdcache.measures.cka import BatchTally
        >>> tally = BatchTally()
        >>> tally.update(maps[1].reshape(12, 6), maps[1].reshape(12, 6))
        >>> round(tally.result()["cka_minibatch"].value, 3)
        1.0
    """

    def __init__(self) -> None:
        self.rows = 0
        self._hsic = (0.0, 0.0, 0.0)

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Count features [B, ...] of either side; a batch without rows is nothing. Raises InvalidInputError for 1 to 3
        rows, unequal rows or NaN.
        """
        sides = features_of(student, teacher)
        n = len(student)
        if not n:
            return
        if n < 4:
            raise InvalidInputError(f"CKA by batches was given a batch of {n} rows; HSIC_1 needs 4 or more")
        grams = {name: values @ values.T for name, values in zip("xy", sides, strict=True)}
        for gram in grams.values():
            gram.fill_diagonal_(0.0)
        hsic = []
        for a, b in PAIRS:
            rows_a, rows_b = grams[a].sum(dim=1), grams[b].sum(dim=1)
            trace, totals = (grams[a] * grams[b]).sum(), rows_a.sum() * rows_b.sum()
            hsic.append(_hsic_1(trace, totals, rows_a @ rows_b, n))
        self._add(hsic, n)

    def _add(self, hsic: Any, rows: int) -> None:
        self._hsic = tuple(total + value for total, value in zip(self._hsic, hsic, strict=True))
        self.rows += rows

    def __add__(self, other: "BatchTally") -> "BatchTally":
        total = BatchTally()
        for part in (self, other):
            total._add(part._hsic, part.rows)
        return total

    def result(self) -> dict[str, Value]:
        """`cka_minibatch`; nothing where features do not vary. Raises InvalidInputError without rows."""
        if not self.rows:
            raise InvalidInputError("CKA was asked of 0 rows; it compares rows: give batches of 4 or more")
        value = _cosine(*self._hsic)
        record = Value(value=value, unit="share", rows=self.rows, exactness="estimate", inexact_rows=self.rows)
        return {"cka_minibatch": record} if value == value else {}


def features_of(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """[B, D] and [B, E] in f64 on the CPU. Raises InvalidInputError for unequal rows and for NaN or infinity."""
    if len(student) != len(teacher):
        raise InvalidInputError(f"the student has features of {len(student)} rows and the teacher of {len(teacher)}")
    sides = [values.detach().flatten(1).to("cpu", torch.float64) for values in (student, teacher)]
    for noun, values in zip(("student", "teacher"), sides, strict=True):
        if not bool(values.isfinite().all()):
            row = int((~values.isfinite()).any(dim=1).nonzero()[0])
            raise InvalidInputError(
                f"the {noun}'s features of row {row} hold NaN or infinity; CKA takes finite numbers"
            )
    return sides[0], sides[1]


def _hsic_1(trace: Tensor, totals: Tensor, mixed: Tensor, n: int) -> float:
    """tr KL + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 / (n - 2), over n (n - 3)."""
    return float((trace + totals / ((n - 1) * (n - 2)) - 2.0 * mixed / (n - 2)) / (n * (n - 3)))


def _cosine(xy: float, xx: float, yy: float) -> float:
    """NaN where one side does not vary."""
    return float(xy / (xx * yy) ** 0.5) if xx > 0 and yy > 0 else float("nan")


def _added(sums: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
    if not sums or not more:
        return sums or more
    widths = [[len(part[name]) for name in ("sx", "sy")] for part in (sums, more)]
    if widths[0] != widths[1]:
        raise InvalidInputError(f"taps of {widths[0]} features (student, teacher) were counted, and now of {widths[1]}")
    return {name: sums[name] + more[name] for name in sums}
