"""tail and class means: what the sketch says of a real teacher's tail, and sums over it against a plain loop."""

from typing import Any

import numpy as np
import pytest
import torch

from kdcache.labels.reduction import reduce_topk, tail_sums
from kdcache.labels.tail import tail_logsumexp, tail_moments
from tests.kits.dense_tail import tail_lse, tail_mean_and_variance
from tests.kits.labels import full_labels, topk_labels

KS = (5, 10, 20, 50)
# Measured over 240 crops with the exact sketch, by k: the largest error of any row, plus a tenth. Mean: nats.
# Deviation: relatively; at k = 5 the cubic bends the wrong way in some rows, whose variance then counts as 0. Mass:
# nats of the log.
MEAN_ERROR = {5: 0.107, 10: 0.0565, 20: 0.0276, 50: 0.0122}
DEVIATION_ERROR = {5: 1.0, 10: 0.222, 20: 0.0733, 50: 0.0513}
MASS_ERROR = {5: 0.0204, 10: 0.0159, 20: 0.0094, 50: 0.0016}


def rows_of(logits: Any, k: int) -> tuple[Any, Any, Any, int]:
    """Tail logits [N, C - K] less the top, sorted; the sketch; the last kept logit; how many there are."""
    kept = reduce_topk(logits.astype(np.float64), np.full((len(logits), 1), -1), k)
    centred = np.sort(logits - logits.max(axis=1, keepdims=True), axis=1)[:, ::-1].astype(np.float64)
    return centred[:, k:], kept.tail, -kept.distances[:, -1], logits.shape[1] - k


@pytest.mark.parametrize("n", [0, 1, 2, 950])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_temperature_for_each_row_equals_one_at_a_time(n: int, library: str) -> None:
    rng = np.random.RandomState(0)
    tail = rng.normal(-8, 2, (20, max(n, 1)))
    tail[10:, 1:] -= np.linspace(5, 60, 10)[:, None]  # one class far above the rest: the bare cubic leaves the chord
    tail = np.sort(tail)
    sketch = np.stack([np.log(np.exp(tail / t).sum(axis=1)) for t in (1.0, 2.0, 4.0)], axis=1)
    last, temperatures = tail[:, -1] + 0.1, rng.uniform(1, 20, 20)
    temperatures[:5] = [1.0, 2.0, 4.0, 1e6, 1.0001]
    kind = torch.from_numpy if library == "torch" else np.asarray
    found = np.asarray(tail_logsumexp(kind(sketch), kind(last), n, kind(temperatures)))
    alone = [
        np.asarray(tail_logsumexp(kind(sketch[i : i + 1]), kind(last[i : i + 1]), n, float(t)))[0]
        for i, t in enumerate(temperatures)
    ]
    np.testing.assert_allclose(found, alone, rtol=1e-13)
    if n:
        np.testing.assert_allclose(found, tail_lse(sketch, last, n, temperatures), rtol=1e-9, atol=1e-9)
    one = np.asarray(tail_logsumexp(kind(sketch), kind(last), n, kind(np.array(3.0))))
    np.testing.assert_allclose(one, np.asarray(tail_logsumexp(kind(sketch), kind(last), n, 3.0)), rtol=1e-13)


@pytest.mark.parametrize("k", KS)
def test_moments_of_a_real_tail(k: int, real_logits: Any) -> None:
    tail, sketch, last, n = rows_of(real_logits, k)
    mean, variance = tail_moments(sketch, last, n)
    for found, wanted in zip((mean, variance), tail_mean_and_variance(sketch, last, n), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    assert np.abs(mean - tail.mean(axis=1)).max() <= MEAN_ERROR[k]
    assert np.abs(np.sqrt(variance) / tail.std(axis=1) - 1).max() <= DEVIATION_ERROR[k]


@pytest.mark.parametrize("k", KS)
def test_the_mass_of_a_real_tail_between_the_sketch_s_temperatures(k: int, real_logits: Any) -> None:
    tail, sketch, last, n = rows_of(real_logits, k)
    for temperature in (1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 20.0, 1e4):
        exact = np.log(np.exp(tail / temperature).sum(axis=1))
        error = np.abs(tail_logsumexp(sketch, last, n, temperature) - exact).max()
        assert error <= (1e-6 if temperature in (1.0, 2.0, 4.0) else MASS_ERROR[k])


@pytest.mark.parametrize("masked", [(), (1, 4)])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_class_means_are_a_plain_loop_s(k: int, masked: tuple[int, ...]) -> None:
    logits = np.random.RandomState(0).normal(0, 3, (50, 10))
    classes = reduce_topk(logits, np.full((50, 1), -1), k, masked).classes
    sums, counts = np.zeros(10), np.zeros(10)
    for row, kept in zip(logits, classes, strict=True):
        tail = [c for c in range(10) if c not in kept and c not in masked]
        mean = sum(row[c] for c in tail) / len(tail)
        for c in tail:
            sums[c] += row[c] - mean
            counts[c] += 1
    found = tail_sums(logits, classes, masked)
    np.testing.assert_allclose(found, [sums, counts], rtol=1e-10, atol=1e-10)
    tensors = tail_sums(torch.from_numpy(logits), torch.from_numpy(classes), masked)
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-10, atol=1e-10)
    assert found[0].sum() == pytest.approx(0.0, abs=1e-9)
    singles = tail_sums(logits.astype(np.float32), classes, masked)
    assert singles.dtype == np.float32
    np.testing.assert_allclose(singles, found, rtol=1e-3, atol=1e-3)


def test_class_means_bring_the_uniform_tail_nearer_to_a_real_one(real_logits: Any) -> None:
    """Means of one half of the crops, KL of the other half's teacher to its rebuilt self at T = 4: measured .925 of the
    uniform tail's. With no photograph in both halves it is 1.14: class means must be of the pictures they serve."""
    y = np.zeros(120, dtype=np.int64)
    means = topk_labels(real_logits[120:], y, 20).class_means
    stored = topk_labels(real_logits[:120], y, 20)
    log_p = full_labels(real_logits[:120], y).log_probs(4.0).double()
    apart = {}
    for tail, given in [("uniform", None), ("class-mean", means)]:
        soft = type(stored)(**vars(stored) | {"class_means": given})
        log_r = soft.log_dense(4.0, tail=tail).double()  # type: ignore[arg-type]
        apart[tail] = float((log_p.exp() * (log_p - log_r)).sum(dim=1).mean())
    assert apart["class-mean"] < 0.95 * apart["uniform"]
