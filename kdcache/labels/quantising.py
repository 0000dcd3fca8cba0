"""Soft labels become the integers that a store holds, and those become soft labels again; on numpy.

Every bound on the error is stated here:

    quantisation   step of a gap   a kept logit is off by   mean KL added: on real logits   on any row
    default        1/16 nat        at most 1/32             below 1e-4                      below 4.9e-4
    high           1/64 nat        at most 1/128            below 1e-5                      below 3.1e-5

The last column is range^2 / 8, where the range is the step (Hoeffding's lemma), and holds for rows without clamped
gaps. The tail is in steps of 1/128 nat, label distances in steps of 1/64.

The tail is packed as residuals: its integers less a prediction from the row's gaps and the number of tail classes.

Packing is lossless whatever the values. Let t1, t2, t4 be the tail's integers (steps of 1/128), `last` the last kept
logit's distance to the top in the same steps (0 where K = 1), and l0 = rint(128 log n) for n tail classes (0 where
n = 0):

    r1 = t1 + last                             against the last kept logit
    r2 = t2 - ((l0 + t1) >> 1)                 against the chord from b = 0 to 1, at b = 1/T = 1/2
    r4 = t4 - ((l0 + t2) >> 1) - (r2 >> 2)     against the chord from b = 0 to 1/2, and a quarter of r2, its curvature

t1, t2, t4 and r1, r2, r4 are integers from -32768 to 32767: each r is taken modulo 2^16. All else is exact, and `>>`
rounds down. Each line adds to its own t only numbers that a reader knows by then: `last` and l0 from the start, t1
before the second line, t2 and r2 before the third. Adding modulo 2^16 is undone by subtracting, so any three integers
come back, -32768 (no tail) and clipped ones too. Where the tail is known at T = 1 alone, r1 stands alone.

Shape letters: Vs views, N rows, K kept classes, L labels a row (the axis is absent where L = 1), C classes.
"""

from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GAPS_A_NAT = {"default": 16, "high": 64}
GAP_DTYPE: dict[str, Any] = {"default": np.uint8, "high": np.uint16}
TAIL_STEPS = 128
NO_TAIL = -32768
LABEL_STEPS = 64
NO_LABEL = 65535


def quantise_gaps(distances: Array, quantisation: str) -> tuple[Array, Array]:
    """Gaps [..., K-1] and a mask [...] of clamped rows, from distances [..., K]; one view (the first axis of three)
    after another, since the work is done in arrays 32 times as wide as the gaps."""
    if distances.ndim < 3 or len(distances) < 2:
        return _quantise_gaps(distances, quantisation)
    views = len(distances)
    results: tuple[Array, Array] | None = None
    for view in range(views):
        gaps, clamped = _quantise_gaps(distances[view], quantisation)
        if results is None:
            results = np.empty((views, *gaps.shape), gaps.dtype), np.empty((views, *clamped.shape), clamped.dtype)
        results[0][view], results[1][view] = gaps, clamped
    assert results is not None
    return results


def _quantise_gaps(distances: Array, quantisation: str) -> tuple[Array, Array]:
    """Gaps to the class before, clamped against the running sum, so that errors never add up.

    gap_j = clip(round(s d_j) - (sum of the gaps stored so far), 0, largest), with s steps a nat and d_j the distance of
    logit j to the top. One huge gap does not shift those after it. The second array is true for rows that do not fit.
    """
    dtype, largest = GAP_DTYPE[quantisation], int(np.iinfo(GAP_DTYPE[quantisation]).max)
    steps = np.multiply(distances, GAPS_A_NAT[quantisation], dtype=np.float64)
    np.rint(steps, out=steps)
    gaps = np.diff(steps, axis=-1)
    wide_rows = (gaps > largest).any(axis=-1)
    if wide_rows.any():
        gaps[wide_rows] = _clamp_running(steps[wide_rows], largest)
    errors = np.cumsum(gaps, axis=-1)
    errors -= steps[..., 1:]
    return gaps.astype(dtype), np.asarray(errors.any(axis=-1))


def _clamp_running(steps: Array, largest: int) -> Array:
    gaps = np.empty_like(steps[..., 1:])
    total = np.zeros(steps.shape[:-1])
    for column in range(gaps.shape[-1]):
        gaps[..., column] = np.clip(steps[..., column + 1] - total, 0, largest)
        total += gaps[..., column]
    return gaps


def quantise_tail(tail: Array) -> Array:
    """The tail's logsumexp in steps of 1/128 nat, i16; NO_TAIL for -inf."""
    present = np.isfinite(tail)
    steps = np.clip(np.rint(np.where(present, tail, 0.0).astype(np.float64) * TAIL_STEPS), NO_TAIL + 1, 32767)
    return np.where(present, steps, NO_TAIL).astype(np.int16)


def quantise_label(label: Array) -> tuple[Array, Array]:
    """Label distances in steps of 1/64, at most 65,534 (1,024 nats), and true where a label is farther than that."""
    none = np.isnan(label)
    steps = np.rint(np.where(none, 0.0, label).astype(np.float64) * LABEL_STEPS)
    too_far = steps > NO_LABEL - 1
    return np.where(none, NO_LABEL, np.minimum(steps, NO_LABEL - 1)).astype(np.uint16), too_far


def decode_logits(classes: Array, gaps: Array | None, quantisation: str) -> Array:
    """Logits [..., K] f32 of the kept classes, less the top one: 0, then minus the running sum of the gaps."""
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


def class_dtype(classes: int) -> str:
    """Class ids are u16, above 65,536 classes u32."""
    return "uint16" if classes <= 2**16 else "uint32"


def pack(tail: Array, last: Array | int, tail_classes: int) -> Array:
    """Residuals i16 of a tail i16, [..., 3], or [..., 1] where T = 1 alone is known. `last` [...] holds any integers;
    their low 16 bits count."""
    if tail.shape[-1] == 1:
        return _wrapped(tail.astype(np.int32) + np.asarray(last)[..., None])
    l0 = _log_steps(tail_classes)
    t1, t2, t4 = (tail[..., part].astype(np.int32) for part in range(3))
    r2 = _wrapped(t2 - ((l0 + t1) >> 1))
    r4 = t4 - ((l0 + t2) >> 1) - (r2 >> 2)
    return np.stack([_wrapped(t1 + last), r2, _wrapped(r4)], axis=-1)


def unpack(residuals: Array, last: Array | int, tail_classes: int) -> Array:
    """The tail [..., 3] or [..., 1] i16 that `pack` was given."""
    if residuals.shape[-1] == 1:
        return _wrapped(residuals.astype(np.int32) - np.asarray(last)[..., None])
    l0 = _log_steps(tail_classes)
    r1, r2, r4 = (residuals[..., part].astype(np.int32) for part in range(3))
    t1 = _wrapped(r1 - last)
    t2 = _wrapped(r2 + ((l0 + t1.astype(np.int32)) >> 1))
    t4 = _wrapped(r4 + ((l0 + t2.astype(np.int32)) >> 1) + (r2 >> 2))
    return np.stack([t1, t2, t4], axis=-1)


def _log_steps(tail_classes: int) -> int:
    return round(TAIL_STEPS * log(tail_classes)) if tail_classes else 0


def _wrapped(values: Array) -> Array:
    return values.astype(np.int16)  # modulo 2^16, as C has it
