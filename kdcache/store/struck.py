"""Struck rows: a sample that cannot be decoded has no answer in any view, and its mixing partner none where they pair.

A commit lists the struck samples, and the ticket marks every row without an answer: class id C in every rank, or NaN.
Shape letters: Vs views, R rows of a block, S struck samples.
"""

from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.base.limits import STRUCK_MAX
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, InvalidInputError, StoreError
from kdcache.store.array_spec import ArraySpec
from kdcache.store.layout import SegmentLayout
from kdcache.store.plan import ViewPlan, without_answer

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]

SHOWN = 8  # positions that a message lists


def struck_rows(
    plan: ViewPlan, layout: SegmentLayout, block: int, struck: Sequence[int], views: ViewSpan | None = None
) -> Flags:
    """[Vs, R] true for the rows of a block without an answer, in `views` (None: all of the segment), where the samples
    at positions `struck` [S] are struck."""
    views, (start, stop) = views or layout.views, layout.block_rows(block)
    flags = np.zeros((len(views), stop - start), dtype=bool)
    for row, view in enumerate(views if len(struck) else ()):
        flags[row, without_answer(plan, np.asarray(struck, dtype=np.int64), view, layout.rows) - start] = True
    return flags


def require_strikable(layout: SegmentLayout, block: int, struck: Sequence[int]) -> tuple[int, ...]:
    """The positions to strike in a block, ascending. Raises InvalidInputError for positions that are not its own, for
    too many, and where the ticket's integers are too narrow for the mark."""
    start, stop = layout.block_rows(block)
    positions = tuple(sorted({int(position) for position in struck}))
    if positions and not start <= positions[0] <= positions[-1] < stop:
        problem = f"positions {shown(positions)} were struck in block {block} of {layout.name}"
        raise InvalidInputError(f"{problem}, which holds {start} to {stop - 1}; strike them in their own blocks")
    if len(positions) > STRUCK_MAX:
        problem = f"{len(positions)} samples of block {block} cannot be decoded, allowed are {STRUCK_MAX} a block"
        raise StoreError(f"{problem}; mend the data set: positions {shown(positions)} are among them")
    ticket = next(iter(layout.arrays.values()))
    is_id = np.issubdtype(np.dtype(ticket.dtype), np.integer)
    if positions and (not ticket.struck or (is_id and ticket.struck > np.iinfo(ticket.dtype).max)):
        problem = f"{ticket.path} has no number that marks a struck row: it holds {ticket.dtype}, and the mark would be"
        raise InvalidInputError(f"{problem} {ticket.struck}; leave the samples out of the data set")
    return positions


def strike(spec: ArraySpec, values: Array, struck: Flags) -> Array:
    """A block's values [Vs, ..., R, ...] of one array, those of struck rows [Vs, R] as the format has them."""
    if spec.struck is None or not struck.any():
        return values
    values = values.copy()
    by_row = np.moveaxis(values, spec.block_axis or 1, 1)  # the canary's rows are the block's first
    by_row[struck[:, : by_row.shape[1]]] = spec.struck
    return values


def check_ticket(spec: ArraySpec, values: Array, struck: Flags, *, classes: int, path: object) -> None:
    """Raises DamagedError where a ticket's values [Vs, ..., R, ...] mark other rows than those that are struck
    [Vs, R], or hold a class id that is not below `classes` elsewhere."""
    by_row = np.moveaxis(values, spec.block_axis or 1, 1).reshape(*struck.shape, -1)
    if np.issubdtype(values.dtype, np.integer) and int(by_row.max(initial=0)) >= classes:
        highest = int(by_row[~struck].max(initial=0))
        if highest >= classes:
            problem = f"{path} holds class id {highest}, allowed are 0 to {classes - 1}"
            raise DamagedError(f"{problem}; fetch the store again")
    if not spec.struck:
        return
    wrong = np.zeros_like(struck)
    wrong[struck] = ~_is_mark(spec, by_row[struck]).all(axis=-1)
    wrong |= _is_mark(spec, by_row[..., 0]) & ~struck
    if wrong.any():
        view, row = np.argwhere(wrong)[0].tolist()
        state = "is struck by the commit and holds an answer" if struck[view, row] else "is marked and not struck"
        raise DamagedError(f"{path}: row {row} of the block, view {view} of those read, {state}; fetch the store again")


def require_answers(
    plan: ViewPlan, layout: SegmentLayout, view: int, positions: IntArray, struck: Sequence[int]
) -> None:
    """Raises InvalidInputError where one of `positions` [B] has no answer in a view, since the samples at positions
    `struck` could not be decoded."""
    samples = np.array(struck, dtype=np.int64)
    absent = np.intersect1d(positions, without_answer(plan, samples, view, layout.rows)) if len(samples) else ()
    if len(absent):
        raise InvalidInputError(
            f"{layout.name}: view {view} has no answer at positions {shown(absent)}, which are struck: their "
            f"sample, or its mixing partner, could not be decoded; leave out those that Store.struck({view}) lists"
        )


def adopted(
    spec: ArraySpec, values: Array, struck: Flags, plan: ViewPlan, layout: SegmentLayout, block: int
) -> tuple[int, ...]:
    """The positions [S] that another writer has struck, whose ticket `values` this one adopts.

    A sample that is struck has no answer in any view, and all samples without one together strike the same rows.
    Raises StoreError where that writer has an answer for a row that is struck [Vs, R] here, and DamagedError for marks
    that no strikes give.
    """
    by_row = np.moveaxis(values, spec.block_axis or 1, 1).reshape(*struck.shape, -1)
    marked = _is_mark(spec, by_row).all(axis=-1) if spec.struck else np.zeros_like(struck)
    start = layout.block_rows(block)[0]
    positions = tuple((np.flatnonzero(marked.all(axis=0)) + start).tolist())
    if not np.array_equal(struck_rows(plan, layout, block, positions), marked):
        raise DamagedError(f"{spec.key(block)} marks rows that no struck samples give; delete this file, extract again")
    if (lost := np.flatnonzero((struck & ~marked).any(axis=0))).size:
        problem = f"another writer could decode positions {shown(lost + start)} of block {block}, this one could not"
        raise StoreError(f"{problem}: mend this copy of the data set, or delete {spec.key(block)}; then extract again")
    return positions


def shown(positions: Sequence[int] | IntArray) -> str:
    """Positions as text, the first few of many."""
    rest = f" and {len(positions) - SHOWN} more" if len(positions) > SHOWN else ""
    return ", ".join(str(int(position)) for position in positions[:SHOWN]) + rest


def _is_mark(spec: ArraySpec, values: Array) -> Flags:
    """True where numbers are the mark of a struck row."""
    assert spec.struck is not None
    return np.asarray(np.isnan(values) if isnan(spec.struck) else values == spec.struck)
