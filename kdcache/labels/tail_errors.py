"""Top-k soft labels err in KL and in its gradient; the errors are measured here by k, temperature and tail.

A gradient needs a student, and two stand in for it. The one at the start gives every class the same logit. The one half
way has the mean of the teacher's logits for the row and the teacher's average row: it knows the classes, and half of
the picture.

Shape letters: R rows, K kept classes, C classes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from kdcache.base.records import Record
from kdcache.labels.quantising import decode_logits, decode_tail, quantise_gaps, quantise_tail
from kdcache.labels.reduction import centre, fill_at, logsumexp, reduce_topk, tail_sums
from kdcache.labels.soft_labels import Tail
from kdcache.labels.topk_labels import TopKLabels, read_topk

Array = npt.NDArray[Any]

TAILS: tuple[Tail, ...] = get_args(Tail)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)


class TailError(Record):
    """The errors of one k, temperature and tail, as means over rows.

    kl_error: |KL with this tail - KL of all logits| for the student half way, in nats, without the factor T^2.
    angle_start, angle_half: the angle between the two gradients by the student's logits, at the start and half way, in
    degrees. kl_lost: KL(teacher || reconstructed teacher), in nats; None where it is infinite (tail none), or where the
    tail has no shape of its own (ghost).
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
    """Errors over logits [R, C], quantised as in a store; see `stored_topk` for the class means."""
    centred = centre(np.asarray(logits, dtype=np.float64), masked)
    half_way = _half_way(centred)
    start = np.where(np.isfinite(centred), 0.0, -np.inf)
    errors = []
    for k in ks:
        soft = stored_topk(logits, k, masked=masked, quantisation=quantisation)
        for temperature in temperatures:
            log_p, *students = (_log_softmax(values / temperature) for values in (centred, half_way, start))
            errors += [_error(soft, log_p, students, k, temperature, tail) for tail in TAILS]
    return errors


def stored_topk(logits: Array, k: int, *, masked: tuple[int, ...] = (), quantisation: str = "default") -> TopKLabels:
    """Soft labels of logits [R, C], quantised and read back as from a top-k store, in f64 and without hard labels.

    Each half of the rows carries the class means of the other, so class_means is [R, C].
    """
    classes = logits.shape[-1]
    rows = reduce_topk(logits, np.full((len(logits), 1), -1), k, masked)
    head = decode_logits(rows.classes, quantise_gaps(rows.distances, quantisation)[0], quantisation)
    tail = decode_tail(quantise_tail(rows.tail))
    half = len(logits) // 2
    means = [_means(logits[part], rows.classes[part], masked) for part in (slice(half, None), slice(None, half))]
    class_means = np.repeat(np.stack(means), [half, len(logits) - half], axis=0)
    stored = replace(rows, distances=-head.astype(np.float64), tail=tail.astype(np.float64))
    return read_topk(stored, classes, masked).with_class_means(class_means)


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
    soft: TopKLabels, log_p: Array, students: Sequence[Array], k: int, temperature: float, tail: Tail
) -> TailError:
    teachers = [_reconstruct(soft, log_q, temperature, tail) for log_q in students]
    p = np.exp(log_p)
    angles = [
        float(_angle(np.exp(log_q) - p, np.exp(log_q) - np.exp(log_kept)).mean())
        for log_q, log_kept in zip(students, teachers, strict=True)
    ]
    half_way, log_kept = students[0], teachers[0]
    return TailError(
        k=k,
        temperature=temperature,
        tail=tail,
        kl_error=float(np.abs(_kl(log_kept, half_way) - _kl(log_p, half_way)).mean()),
        angle_start=angles[1],
        angle_half=angles[0],
        kl_lost=float(_kl(log_p, log_kept).mean()) if tail in ("uniform", "class-mean") else None,
    )


def _reconstruct(soft: TopKLabels, log_q: Array, temperature: float, tail: Tail) -> Array:
    """Log-probabilities [R, C] of a teacher. Its KL to log_q, and the gradient of that, are those with this tail."""
    return _ghost(soft, log_q, temperature) if tail == "ghost" else np.asarray(soft.log_dense(temperature, tail=tail))


def _ghost(soft: TopKLabels, log_q: Array, temperature: float) -> Array:
    """A ghost tail has the loss and gradient of a tail with the student's shape and the teacher's mass."""
    log_tail = fill_at(log_q, soft.classes, -np.inf)
    dense = soft.tail_log_prob(temperature)[:, None] + log_tail - logsumexp(log_tail)[:, None]
    np.put_along_axis(dense, soft.classes, soft.log_probs(temperature), axis=-1)
    return np.asarray(dense)


def _kl(log_p: Array, log_q: Array) -> Array:
    """KL [R]; a class whose probability on the left is 0 adds nothing."""
    possible = np.isfinite(log_p)
    ratio = np.where(possible, log_p, 0.0) - np.where(possible, log_q, 0.0)
    return np.asarray((np.exp(log_p) * ratio).sum(axis=-1))


def _angle(left: Array, right: Array) -> Array:
    """The angle [R] between rows, in degrees."""
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    cosine = (left * right).sum(axis=-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _log_softmax(values: Array) -> Array:
    return np.asarray(values - logsumexp(values)[:, None])
