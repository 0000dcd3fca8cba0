"""Quantising: reduced rows to the integers that a store holds and back, on numpy; every bound is stated here.

Default: gaps in steps of 1/16 nat, so a kept logit is off by at most 1/32; mean KL added is below 1e-4 on
real logits and below 4.9e-4 (range^2 / 8 with range 1/16, Hoeffding's lemma) for any row without clamped gaps. "high":
1/64 nat, 1/128, 1e-5 and 3.1e-5. The tail is in steps of 1/128, label distances in steps of 1/64.

Shape letters: Vs views, N rows, K kept classes, L labels a row (the axis is absent where L = 1), C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.errors import BadLogitsError
from kdcache.labels.encoding import Encoding, class_dtype
from kdcache.labels.reduction import TopK
from kdcache.labels.tail_packing import TAIL_STEPS, pack

Array = npt.NDArray[Any]

GAPS_A_NAT = {"default": 16, "high": 64}
GAP_DTYPE: dict[str, Any] = {"default": np.uint8, "high": np.uint16}
NO_TAIL = -32768
LABEL_STEPS = 64
NO_LABEL = 65535
LOWEST_F16 = -65504.0


@dataclass(frozen=True)
class Encoded:
    """Arrays by name, as the store holds them, and `clamped` [Vs, N]: rows whose gaps did not fit their integers."""

    arrays: dict[str, Array]
    clamped: Array


def encode_topk(rows: TopK, encoding: Encoding, classes: int, masked: Sequence[int] = ()) -> Encoded:
    """Quantise reduced rows (numpy, leading axes [Vs, N]) of `classes` classes, of which some are masked."""
    if int(rows.classes.max(initial=0)) >= classes:
        raise BadLogitsError(f"class id {int(rows.classes.max())} does not fit {classes} classes")
    gaps, clamped = _by_view(partial(_quantise_gaps, quantisation=encoding.quantisation), rows.distances)
    label, far = _quantise_label(rows.label)
    arrays, tail = {"classes": rows.classes.astype(class_dtype(classes))}, _quantise_tail(rows.tail)
    residuals = encoding.packing == "residuals"
    if residuals:
        left = classes - len(masked) - rows.classes.shape[-1]
        tail = pack(tail, last_steps(gaps, encoding.quantisation), left)
    if encoding.k != 1:
        arrays["gaps"] = np.moveaxis(gaps, -1, -2) if residuals else gaps
    arrays["tail"] = np.moveaxis(tail, -1, -2)
    arrays["label"] = label[..., 0] if label.shape[-1] == 1 else label
    return Encoded(arrays, np.asarray(clamped | far.any(axis=-1)))


def encode_full(centred_VNC: Array) -> Encoded:
    """Max-centred f32 logits as f16; masked classes stay -inf, anything else is kept above f16's lowest value."""
    masked = np.isneginf(centred_VNC)
    low = ~masked & (centred_VNC < LOWEST_F16)
    logits = np.where(masked, -np.inf, np.maximum(centred_VNC, LOWEST_F16)).astype(np.float16)
    return Encoded({"logits": logits}, np.asarray(low.any(axis=-1)))


def _by_view(quantise: Callable[[Array], tuple[Array, Array]], values: Array) -> tuple[Array, Array]:
    """`quantise` one view after another: what it needs on the way is 32 times as wide as the gaps that it gives."""
    if values.ndim < 3 or len(values) < 2:
        return quantise(values)
    found: tuple[Array, Array] | None = None
    for view, own in enumerate(values):
        one, other = quantise(own)
        if found is None:
            found = np.empty((len(values), *one.shape), one.dtype), np.empty((len(values), *other.shape), other.dtype)
        found[0][view], found[1][view] = one, other
    assert found is not None
    return found


def _quantise_gaps(distances: Array, quantisation: str) -> tuple[Array, Array]:
    """Gaps to the class before, clamped against the running sum, so that errors never add up.

    gap_j = clip(round(s d_j) - (gaps stored so far), 0, largest); one huge gap does not shift those after it.
    """
    dtype, largest = GAP_DTYPE[quantisation], int(np.iinfo(GAP_DTYPE[quantisation]).max)
    steps = np.multiply(distances, GAPS_A_NAT[quantisation], dtype=np.float64)
    np.rint(steps, out=steps)
    gaps = np.diff(steps, axis=-1)
    wide = (gaps > largest).any(axis=-1)
    if wide.any():
        gaps[wide] = _clamp_running(steps[wide], largest)
    off = np.cumsum(gaps, axis=-1)
    off -= steps[..., 1:]
    return gaps.astype(dtype), np.asarray(off.any(axis=-1))


def _clamp_running(steps: Array, largest: int) -> Array:
    gaps = np.empty_like(steps[..., 1:])
    stored = np.zeros(steps.shape[:-1])
    for column in range(gaps.shape[-1]):
        gaps[..., column] = np.clip(steps[..., column + 1] - stored, 0, largest)
        stored += gaps[..., column]
    return gaps


def _quantise_tail(tail: Array) -> Array:
    present = np.isfinite(tail)
    steps = np.clip(np.rint(np.where(present, tail, 0.0).astype(np.float64) * TAIL_STEPS), NO_TAIL + 1, 32767)
    return np.where(present, steps, NO_TAIL).astype(np.int16)


def _quantise_label(label: Array) -> tuple[Array, Array]:
    """Steps of 1/64 up to 65,534 (1,024 nats), and which labels were farther than that."""
    none = np.isnan(label)
    steps = np.rint(np.where(none, 0.0, label).astype(np.float64) * LABEL_STEPS)
    far = steps > NO_LABEL - 1
    return np.where(none, NO_LABEL, np.minimum(steps, NO_LABEL - 1)).astype(np.uint16), far


def decode_logits(classes: Array, gaps: Array | None, quantisation: str) -> Array:
    """Logits [..., K] f32 of the kept classes less the top one: 0 first, then minus the running sum of the gaps."""
    logits = np.zeros(classes.shape, dtype=np.float32)
    if gaps is not None:
        np.cumsum(gaps, axis=-1, dtype=np.float32, out=logits[..., 1:])
        logits[..., 1:] /= -GAPS_A_NAT[quantisation]
    return logits


def last_steps(gaps: Array | None, quantisation: str) -> Array | int:
    """Distance [...] i32 of the last kept logit to the top in the tail's steps, modulo 2^32; gaps [..., K-1]."""
    if gaps is None:
        return 0
    return np.asarray(gaps.sum(axis=-1, dtype=np.int32) * np.int32(TAIL_STEPS // GAPS_A_NAT[quantisation]))


def decode_tail(tail: Array) -> Array:
    """Logsumexp f32 of the tail at the sketch's temperatures less the top logit; -inf where there is no tail."""
    return np.where(tail == NO_TAIL, -np.inf, tail.astype(np.float32) / TAIL_STEPS).astype(np.float32)


def decode_label(label: Array) -> Array:
    """The hard label's logit f32 less the top one; NaN where there is no label."""
    return np.where(label == NO_LABEL, np.nan, label.astype(np.float32) / -LABEL_STEPS).astype(np.float32)
