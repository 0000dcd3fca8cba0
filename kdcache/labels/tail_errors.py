"""What top-k and a tail leave of a teacher: the error in KL and in the gradient, by k, temperature and tail.

A student is needed to speak of gradients: here one at the start, which answers every class alike, and one half way,
whose logits are the mean of the teacher's for the row and the teacher's average row: it knows the classes, and half of
the picture. Shape letters: R rows, K kept classes, C classes.
"""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from kdcache.base.records import Record
from kdcache.labels.encoding import Encoding
from kdcache.labels.quantising import decode_logits, decode_tail, encode_topk
from kdcache.labels.reduction import centre, fill_at, logsumexp, reduce_topk, tail_sums
from kdcache.labels.soft_labels import Tail, TopKLabels

Array = npt.NDArray[Any]

TAILS: tuple[Tail, ...] = get_args(Tail)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)


class TailError(Record):
    """One k, temperature and tail, as means over rows.

    kl_error: |KL with this tail - KL of all logits| for the student half way, nats, without the factor T^2;
    angle_start, angle_half: between the two gradients with respect to the logits of the student at the start and half
    way, degrees; kl_lost: KL(teacher || what is reconstructed), nats, None where it is infinite (none) or the tail has
    no shape of its own (ghost).
    """

    k: int
    temperature: float
    tail: str
    kl_error: float
    angle_start: float
    angle_half: float
    kl_lost: float | None


def tail_errors(
    logits: Array,
    ks: Sequence[int],
    *,
    masked: tuple[int, ...] = (),
    quantisation: str = "default",
    temperatures: Sequence[float] = TEMPERATURES,
) -> list[TailError]:
    """Errors over logits [R, C], quantised as a store would; class means come from the rows' other half."""
    centred = centre(np.asarray(logits, dtype=np.float64), masked)
    half_way = _half_way(centred)
    start = np.where(np.isfinite(centred), 0.0, -np.inf)
    found = []
    for k in ks:
        kept = stored_topk(logits, k, masked=masked, quantisation=quantisation)
        for temperature in temperatures:
            log_p, *students = (_log_softmax(each / temperature) for each in (centred, half_way, start))
            found += [_error(kept, log_p, students, k, temperature, tail) for tail in TAILS]
    return found


def stored_topk(logits: Array, k: int, *, masked: tuple[int, ...] = (), quantisation: str = "default") -> TopKLabels:
    """Logits [R, C] as a top-k store gives them back, in f64, without labels; each half of the rows carries the class
    means of the other, so class_means is [R, C]."""
    classes = logits.shape[-1]
    rows = reduce_topk(logits, np.full((len(logits), 1), -1), k, masked)
    encoded = encode_topk(
        rows, Encoding.model_validate({"name": "topk", "k": k, "quantisation": quantisation}), classes
    )
    head = decode_logits(rows.classes, encoded.arrays.get("gaps"), quantisation).astype(np.float64)
    tail = np.moveaxis(decode_tail(encoded.arrays["tail"]), -2, -1).astype(np.float64)
    half = len(logits) // 2
    means = [_means(logits[part], rows.classes[part], masked) for part in (slice(half, None), slice(None, half))]
    crossed = np.repeat(np.stack(means), [half, len(logits) - half], axis=0)
    label = np.full(len(logits), np.nan)
    return TopKLabels(rows.classes, head, tail, label, classes, masked, crossed)


def _means(logits: Array, classes: Array, masked: tuple[int, ...]) -> Array:
    if not len(logits):
        return np.zeros(logits.shape[-1])
    sums, counts = tail_sums(logits.astype(np.float64), classes, masked)
    return np.asarray(sums / np.maximum(counts, 1))


def _half_way(centred: Array) -> Array:
    visible = np.isfinite(centred)
    mean = np.where(visible, centred, 0.0).mean(axis=0)
    return np.where(visible, 0.5 * (np.where(visible, centred, 0.0) + mean), -np.inf)


def _error(
    kept: TopKLabels, log_p: Array, students: Sequence[Array], k: int, temperature: float, tail: Tail
) -> TailError:
    reconstructed = [_reconstruct(kept, log_q, temperature, tail) for log_q in students]
    p = np.exp(log_p)
    angles = [
        float(_angle(np.exp(log_q) - p, np.exp(log_q) - np.exp(log_kept)).mean())
        for log_q, log_kept in zip(students, reconstructed, strict=True)
    ]
    half_way, log_kept = students[0], reconstructed[0]
    return TailError(
        k=k,
        temperature=temperature,
        tail=tail,
        kl_error=float(np.abs(_kl(log_kept, half_way) - _kl(log_p, half_way)).mean()),
        angle_start=angles[1],
        angle_half=angles[0],
        kl_lost=float(_kl(log_p, log_kept).mean()) if tail in ("uniform", "class-mean") else None,
    )


def _reconstruct(kept: TopKLabels, log_q: Array, temperature: float, tail: Tail) -> Array:
    """Log-probabilities [R, C] whose KL to log_q, and its gradient, are those with this tail."""
    return _ghost(kept, log_q, temperature) if tail == "ghost" else np.asarray(kept.log_dense(temperature, tail=tail))


def _ghost(kept: TopKLabels, log_q: Array, temperature: float) -> Array:
    """A ghost's loss and gradient are those of a tail that has the student's own shape and the teacher's mass."""
    outside = fill_at(log_q, kept.classes, -np.inf)
    dense = kept.tail_log_prob(temperature)[:, None] + outside - logsumexp(outside)[:, None]
    np.put_along_axis(dense, kept.classes, kept.log_probs(temperature), axis=-1)
    return np.asarray(dense)


def _kl(log_p: Array, log_q: Array) -> Array:
    """KL [R]; classes without probability on the left count as 0."""
    possible = np.isfinite(log_p)
    ratio = np.where(possible, log_p, 0.0) - np.where(possible, log_q, 0.0)
    return np.asarray((np.exp(log_p) * ratio).sum(axis=-1))


def _angle(left: Array, right: Array) -> Array:
    """Degrees [R] between rows."""
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    cosine = (left * right).sum(axis=-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _log_softmax(values: Array) -> Array:
    return np.asarray(values - logsumexp(values)[:, None])
