"""Dense logits are reduced to the part that a store keeps: top-k and tail; on numpy or torch, on the teacher's device.

Shape letters: B any leading axes, C classes, K kept classes, L labels a row, M masked classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace

from kdcache.errors import InvalidInputError

Array = Any  # a numpy array or a torch tensor; every function returns the kind that it was given

SKETCH_TEMPERATURES = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class TopK:
    """The top k of B rows of logits and the sketch of their tail, before quantising.

    classes [B, K]: ids, best first (equal logits by id). distances [B, K] f32: nats below the top logit, ascending from
    0. tail [B, 3] f32: logsumexp at T = 1, 2, 4 of the logits outside the top k, less the top logit; -inf where there
    are none; [B, 1] where T = 1 alone is known.
    label [B, L] f32: distance of the hard label's logit to the top; NaN where there is no label.
    """

    classes: Array
    distances: Array
    tail: Array
    label: Array


def reduce_topk(logits_BC: Array, labels_BL: Array, k: int, masked: tuple[int, ...] = ()) -> TopK:
    """Keep the k best classes of each row, and the sketch of its tail.

    `labels_BL` holds class ids, -1 for none. Classes in `masked` count as absent, and a masked label as no label. The
    work is done in the dtype of the logits, f32 at least.
    """
    xp = array_namespace(logits_BC)
    visible_BC = _visible(logits_BC, masked)
    classes_BK = best_classes(visible_BC, k)  # before centring: under a huge top it rounds near logits to equal ones
    centred_BC = centre(visible_BC)
    values_BK = xp.take_along_axis(centred_BC, classes_BK, axis=-1)
    rest_BC = fill_at(centred_BC, classes_BK, -xp.inf)
    return TopK(classes_BK, -values_BK, _sketch(rest_BC), label_distances(centred_BC, labels_BL))


def _sketch(rest_BC: Array) -> Array:
    """[B, 3] logsumexp at SKETCH_TEMPERATURES, -inf for a row of -inf: one exponential at T = 4, squared twice."""
    xp = array_namespace(rest_BC)
    top_B1 = xp.max(rest_BC, axis=-1, keepdims=True)
    top_B1 = xp.where(xp.isfinite(top_B1), top_B1, xp.zeros_like(top_B1))
    power_BC = xp.exp((rest_BC - top_B1) / SKETCH_TEMPERATURES[-1])
    logs = []
    for temperature in reversed(SKETCH_TEMPERATURES):
        total_B = xp.sum(power_BC, axis=-1)  # the largest term is 1
        logs.append(_log(total_B) + xp.squeeze(top_B1, axis=-1) / temperature)
        if temperature > 1.0:
            power_BC = power_BC * power_BC
    return xp.stack(logs[::-1], axis=-1)


def topk_of_log_probs(
    classes_BK: Array, log_probs_BK: Array, labels_BL: Array, tail_classes: int, label_log_probs_BL: Array | None = None
) -> TopK:
    """Rows of which the k best classes and their log-probabilities are known and no more, as answers come from outside.

    Numpy: ids [B, K], finite log-probabilities [B, K], hard labels [B, L]. The tail [B, 1] is what is left of 1, at
    least 1e-12, and -inf where it has no classes: for `tail` "mass". A hard label outside the k classes has the
    log-probability in `label_log_probs_BL`; it counts as none without these, and where they are NaN.
    """
    ranks_BK = np.argsort(-log_probs_BK, axis=-1, kind="stable")
    classes_BK, logs_BK = (np.take_along_axis(v, ranks_BK, axis=-1) for v in (classes_BK, log_probs_BK))
    logs_BK = logs_BK.astype(np.float64)
    top_B1 = logs_BK[..., :1]
    rest_B1 = 1.0 - np.exp(logs_BK).sum(axis=-1, keepdims=True)
    tail_B1 = np.log(np.maximum(rest_B1, 1e-12)) - top_B1 if tail_classes else np.full_like(top_B1, -np.inf)
    distances_BK = top_B1 - logs_BK
    at_BLK = classes_BK[..., None, :] == labels_BL[..., None]
    inside_BL = np.where(at_BLK, distances_BK[..., None, :], 0.0).sum(axis=-1)
    known_BL = np.full(labels_BL.shape, np.nan) if label_log_probs_BL is None else top_B1 - label_log_probs_BL
    outside_BL = np.where(labels_BL >= 0, np.maximum(known_BL, 0.0), np.nan)
    return TopK(classes_BK, distances_BK, tail_B1, np.where(at_BLK.any(axis=-1), inside_BL, outside_BL))


def tail_sums(logits_BC: Array, classes_BK: Array, masked: tuple[int, ...] = ()) -> Array:
    """[2, C] f32 or wider, for the class means: sums of each class's tail logits, and their counts.

    A class's logit counts in the rows in which it lies outside the top k, less the mean of that row's tail. Every row
    needs a class outside its top k; masked classes count nowhere.
    """
    xp = array_namespace(logits_BC)
    centred_BC = centre(logits_BC, masked)
    outside_BC = xp.isfinite(fill_at(centred_BC, classes_BK, -xp.inf))
    values_BC = xp.where(outside_BC, centred_BC, xp.zeros_like(centred_BC))
    counted_BC = xp.astype(outside_BC, values_BC.dtype)
    means_B1 = xp.sum(values_BC, axis=-1, keepdims=True) / xp.sum(counted_BC, axis=-1, keepdims=True)
    sums_C = xp.sum(values_BC - means_B1 * counted_BC, axis=0)
    return xp.stack([sums_C, xp.sum(counted_BC, axis=0)])


def centre(logits_BC: Array, masked: tuple[int, ...] = ()) -> Array:
    """Logits less their row's maximum, f32 or wider, masked classes at -inf."""
    visible_BC = _visible(logits_BC, masked)
    return visible_BC - array_namespace(visible_BC).max(visible_BC, axis=-1, keepdims=True)


def _visible(logits_BC: Array, masked: tuple[int, ...]) -> Array:
    """Logits in f32 or wider, masked classes at -inf."""
    xp = array_namespace(logits_BC)
    if logits_BC.dtype != xp.float64:
        logits_BC = xp.astype(logits_BC, xp.float32)
    if masked:
        ids = xp.asarray(list(masked), device=device(logits_BC))
        ids_BM = xp.broadcast_to(ids, (*logits_BC.shape[:-1], len(masked)))
        logits_BC = fill_at(logits_BC, ids_BM, -xp.inf)
    return logits_BC


def label_distances(centred_BC: Array, labels_BL: Array) -> Array:
    """Distance [B, L] of each label's logit to the top; NaN for label -1 and for a masked label."""
    xp = array_namespace(centred_BC)
    known_BL = labels_BL >= 0
    ids_BL = xp.where(known_BL, labels_BL, xp.zeros_like(labels_BL))
    distances_BL = -xp.take_along_axis(centred_BC, xp.astype(ids_BL, xp.int64), axis=-1)
    usable_BL = known_BL & xp.isfinite(distances_BL)
    return xp.where(usable_BL, distances_BL, xp.full_like(distances_BL, xp.nan))


def finite_rows(logits_BC: Array, masked: tuple[int, ...] = ()) -> Array:
    """[B] True where every logit that is not masked is a finite number."""
    xp = array_namespace(logits_BC)
    finite_BC = xp.isfinite(logits_BC)
    if masked:
        finite_BC = xp.asarray(finite_BC, copy=True)
        finite_BC[..., list(masked)] = True
    return xp.all(finite_BC, axis=-1)


def class_logits(logits_BC: Array, subclasses: int) -> Array:
    """The logits [B, C / S] of classes are made of logits [B, C] of subclasses, numpy or torch, S = `subclasses`.

    That of class c is the logsumexp of the entries c S to c S + S - 1, so that a class has the probability of its
    subclasses together: Müller, Kornblith & Hinton 2020 (arXiv 2002.03936). With S = 1 the logits themselves. Raises
    InvalidInputError for a number that does not fit.

    Examples:
        >>> class_logits(torch.tensor([[0.0, 0.0, 1.0, 2.0]]), 2)
        tensor([[0.6931, 2.3133]])
    """
    if subclasses == 1:
        return logits_BC
    count = int(logits_BC.shape[-1])
    if subclasses < 1 or count % subclasses or count < 2 * subclasses:
        raise InvalidInputError(
            f"{count} logits are not those of two classes or more with {subclasses} subclasses each; give a number of "
            "subclasses that divides them"
        )
    return logsumexp(logits_BC.reshape(*logits_BC.shape[:-1], count // subclasses, subclasses))


def logsumexp(values_BC: Array) -> Array:
    """log sum exp over the last axis, -inf where every value is -inf."""
    xp = array_namespace(values_BC)
    top = xp.max(values_BC, axis=-1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    return _log(xp.sum(xp.exp(values_BC - top), axis=-1)) + xp.squeeze(top, axis=-1)


def _log(total_B: Array) -> Array:
    """The logarithm, -inf for 0, without numpy's warning."""
    xp = array_namespace(total_B)
    floor = xp.finfo(total_B.dtype).smallest_normal
    logs_B = xp.log(xp.where(total_B > 0, total_B, xp.full_like(total_B, floor)))
    return xp.where(total_B > 0, logs_B, xp.full_like(logs_B, -xp.inf))


def best_classes(values_BC: Array, k: int) -> Array:
    """Ids [B, K] of the k largest values, descending; equal values among them by ascending id."""
    xp = array_namespace(values_BC)
    if is_numpy_namespace(xp):
        return np.argsort(-values_BC, axis=-1, kind="stable")[..., :k].astype(np.int64)
    ids_BK = values_BC.topk(k, dim=-1).indices.sort(dim=-1).values
    ranks_BK = xp.argsort(xp.take_along_axis(values_BC, ids_BK, axis=-1), descending=True, stable=True)
    return xp.take_along_axis(ids_BK, ranks_BK, axis=-1)


def fill_at(values_BC: Array, ids_BK: Array, fill: float) -> Array:
    """A copy of the values [B, C] with `fill` at the given ids [B, K]."""
    xp = array_namespace(values_BC)
    if is_numpy_namespace(xp):
        copy_BC = values_BC.copy()
        np.put_along_axis(copy_BC, ids_BK, fill, axis=-1)
        return copy_BC
    return values_BC.scatter(-1, ids_BK, fill)
