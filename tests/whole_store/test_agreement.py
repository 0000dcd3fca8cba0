"""agreement: KL is exact between full soft labels and a lower bound otherwise, on real logits and against brute force.

Shape letters: R rows, C classes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from kdcache.errors import InvalidInputError
from kdcache.labels.full import FullLabels
from kdcache.labels.reduction import centre
from kdcache.labels.tail_errors import stored_topk
from kdcache.labels.topk_labels import TopKLabels
from kdcache.whole_store.agreement import compare_rows, overlap_size

Array = npt.NDArray[Any]
STEP = 1 / 32  # quantising moves log-probabilities by up to this, and so a KL by about this times (1 + KL)


def full(logits_RC: Array, masked: tuple[int, ...] = ()) -> FullLabels:
    return FullLabels(centre(logits_RC, masked), np.full(len(logits_RC), np.nan), logits_RC.shape[1], masked)


def kl(logits_RC: Array, other_RC: Array, temperature: float) -> Array:
    log_p, log_q = (log_softmax(each.astype(np.float64) / temperature, axis=1) for each in (logits_RC, other_RC))
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))


def noisy(logits_RC: Array, noise: float) -> Array:
    return logits_RC + np.random.RandomState(7).normal(0, noise, logits_RC.shape)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_full_soft_labels_have_their_very_kl(real_logits: Array, temperature: float) -> None:
    other = noisy(real_logits, 0.5)
    found = compare_rows(full(real_logits), full(other), temperature)
    np.testing.assert_allclose(found.kl_ab, kl(real_logits, other, temperature), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.kl_ba, kl(other, real_logits, temperature), rtol=1e-5, atol=1e-9)
    assert np.array_equal(found.top, real_logits.argmax(axis=1) == other.argmax(axis=1))
    best = [np.argsort(-each, axis=1)[:, :5] for each in (real_logits, other)]
    shared = [len(set(a) & set(b)) / 5 for a, b in zip(*(each.tolist() for each in best), strict=True)]
    np.testing.assert_allclose(found.overlap, shared)


@pytest.mark.parametrize("k", [5, 20, 50])
@pytest.mark.parametrize("noise", [0.05, 1.0, 3.0])
def test_with_top_k_kl_is_a_lower_bound_that_is_near(real_logits: Array, k: int, noise: float) -> None:
    other = noisy(real_logits, noise)
    exact, back = kl(real_logits, other, 1.0), kl(other, real_logits, 1.0)
    kept, kept_other = stored_topk(real_logits, k), stored_topk(other, k)
    sides = [(kept, kept_other), (full(real_logits), kept_other), (kept, full(other))]
    means = []
    for a, b in sides:
        found = compare_rows(a, b, 1.0)
        assert (found.kl_ab - exact < STEP * (1 + exact)).all()
        assert (found.kl_ba - back < STEP * (1 + back)).all()
        means.append(found.kl_ab.mean() / exact.mean())
        assert np.array_equal(found.top, real_logits.argmax(axis=1) == other.argmax(axis=1))
    assert min(means) > {0.05: 0.4, 1.0: 0.35, 3.0: 0.25}[noise]
    assert max(means) < 1.0


def test_a_wider_store_knows_more(real_logits: Array) -> None:
    other = noisy(real_logits, 1.0)
    bounds = [compare_rows(stored_topk(real_logits, k), stored_topk(other, k), 2.0).kl_ab.mean() for k in (5, 20, 100)]
    assert bounds == sorted(bounds)
    everything = compare_rows(exact_topk(real_logits, 1000), exact_topk(other, 1000), 2.0).kl_ab
    np.testing.assert_allclose(everything, kl(real_logits, other, 2.0), rtol=1e-4, atol=1e-6)


def exact_topk(logits_RC: Array, k: int) -> TopKLabels:
    """Top k and sketch without quantising."""
    return full(logits_RC).prefix(k)


def test_the_bound_is_the_least_that_a_solver_finds() -> None:
    """Nine classes of which each side keeps three: the unknown ones are chosen by scipy, within what is known."""
    rng, tight = np.random.RandomState(3), 0
    for _ in range(20):
        logits, other = rng.normal(0, 1.5, (2, 1, 9))
        a, b = exact_topk(logits, 3), exact_topk(other, 3)
        known = (dict(zip(s.classes[0].tolist(), np.exp(s.log_probs(1.0)[0]), strict=True)) for s in (a, b))
        found, least = float(compare_rows(a, b, 1.0).kl_ab[0]), _least(*known)
        assert found <= min(least, kl(logits, other, 1.0)[0]) + 1e-7
        assert found > 0.9 * least
        tight += found > least - 1e-7
    assert tight >= 12  # in the others the limits overdraw a tail


def _least(p_known: dict[int, float], q_known: dict[int, float]) -> float:
    """min KL(p || q) over what nine classes may be, given three of each and the limits of those tails."""
    free = [[c for c in range(9) if c not in known] for known in (p_known, q_known)]
    limits = []  # of a class that the other side kept; classes that nobody kept count as one
    for known, classes, other in ((p_known, free[0], q_known), (q_known, free[1], p_known)):
        limits += [min(known.values()) * np.exp(1 / 32) if c in other else 1.0 for c in classes]

    def spread(values: Array) -> tuple[Array, Array]:
        p, q = np.zeros(9), np.zeros(9)
        for vector, known, classes, part in ((p, p_known, free[0], values[:6]), (q, q_known, free[1], values[6:])):
            vector[list(known)] = list(known.values())
            vector[classes] = part
        return p, q

    def objective(values: Array) -> float:
        p, q = spread(np.maximum(values, 1e-12))
        return float((p * np.log(p / q)).sum())

    masses = [1 - sum(known.values()) for known in (p_known, q_known)]
    begin = np.repeat([mass / 6 for mass in masses], 6)
    done = minimize(
        objective,
        begin,
        method="SLSQP",
        bounds=[(1e-12, limit) for limit in limits],
        constraints=[
            {"type": "eq", "fun": lambda values: values[:6].sum() - masses[0]},
            {"type": "eq", "fun": lambda values: values[6:].sum() - masses[1]},
        ],
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert done.success, done.message
    return float(done.fun)


def test_equal_soft_labels_are_nothing_apart(real_logits: Array) -> None:
    for soft in (full(real_logits), stored_topk(real_logits, 10), stored_topk(real_logits, 1)):
        found = compare_rows(soft, soft, 1.0)
        assert found.top.all()
        assert found.overlap.min() == 1.0
        assert found.kl_ab.max() == found.kl_ba.max() == 0.0


def test_teachers_without_a_common_class_are_apart(real_logits: Array) -> None:
    rolled = np.roll(real_logits, 500, axis=1)
    found = compare_rows(stored_topk(real_logits, 5), stored_topk(rolled, 5), 1.0)
    disjoint = found.overlap == 0
    assert disjoint.mean() > 0.9
    assert not found.top.any()
    assert found.kl_ab[disjoint].mean() > 1.0


def test_a_class_that_one_side_masks_is_infinitely_far(real_logits: Array) -> None:
    top = int(np.bincount(real_logits.argmax(axis=1)).argmax())
    hit = real_logits.argmax(axis=1) == top
    masked = real_logits.copy()
    masked[:, top] = -1e9
    for a, b in (
        (full(real_logits), full(masked, (top,))),
        (stored_topk(real_logits, 5), stored_topk(masked, 5, masked=(top,))),
        (full(real_logits), stored_topk(masked, 5, masked=(top,))),
    ):
        found = compare_rows(a, b, 1.0)
        assert np.isinf(found.kl_ab[hit]).all()
        assert np.isfinite(found.kl_ba).all()
        assert not np.isnan(found.kl_ab).any()


def test_extreme_rows_are_finite_numbers() -> None:
    logits = np.array([[0.0, -700.0, -710.0, -720.0, -65000.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    for a, b in (
        (full(logits), full(logits[::-1])),
        (full(logits), exact_topk(logits[::-1], 2)),
        (exact_topk(logits, 2), exact_topk(logits[::-1], 2)),
    ):
        found = compare_rows(a, b, 1.0)
        assert np.isfinite(found.kl_ab).all()
        assert np.isfinite(found.kl_ba).all()
        assert (found.kl_ba > 1.0).any() or (found.kl_ab > 1.0).any()


def test_what_top_k_cannot_answer_is_refused(real_logits: Array) -> None:
    with pytest.raises(InvalidInputError, match="1 or more"):
        compare_rows(full(real_logits), stored_topk(real_logits, 5), 0.5)
    assert overlap_size(stored_topk(real_logits, 20), stored_topk(real_logits, 3)) == 3
    assert overlap_size(full(real_logits), stored_topk(real_logits, 20)) == 20
    assert overlap_size(full(real_logits), full(real_logits)) == 5
