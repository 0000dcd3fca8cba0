"""fidelity: errors by k, temperature and tail equal those of a plain dense computation on real logits."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from kdcache.labels.reduction import reduce_topk
from kdcache.labels.soft_labels import Tail
from kdcache.labels.tail_errors import TAILS, tail_errors
from kdcache.objectives.sparse import ghost_pair, sparse_kl
from tests.kits.encoding import labels_of

Array = npt.NDArray[Any]


def students(logits: Array) -> tuple[Array, Array]:
    """Logits [R, C] of the student half way and at the start, from their description."""
    centred = logits - logits.max(axis=1, keepdims=True)
    return 0.5 * centred + 0.5 * centred.mean(axis=0), np.zeros_like(logits)


def angle_of(left: Array, right: Array) -> float:
    cosine = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return float(np.degrees(np.arccos(cosine)).mean())


@pytest.mark.parametrize(("k", "temperature"), [(5, 1.0), (10, 4.0), (50, 2.0)])
def test_a_uniform_tail_by_plain_computation(real_logits: Array, k: int, temperature: float) -> None:
    logits = real_logits.astype("f8")
    (found,) = (e for e in tail_errors(real_logits, [k], temperatures=[temperature]) if e.tail == "uniform")
    log_p = log_softmax(logits / temperature, axis=1)
    rest = np.argsort(-logits, axis=1)[:, k:]
    kept = log_p.copy()
    mass = logsumexp(np.take_along_axis(log_p, rest, axis=1), axis=1, keepdims=True)
    np.put_along_axis(kept, rest, np.broadcast_to(mass - np.log(1000 - k), rest.shape), axis=1)
    half, start = (log_softmax(each / temperature, axis=1) for each in students(logits))
    lost = (np.exp(log_p) * (log_p - kept)).sum(axis=1).mean()
    error = np.abs((np.exp(kept) * (kept - half)).sum(1) - (np.exp(log_p) * (log_p - half)).sum(1)).mean()
    assert found.kl_lost == pytest.approx(lost, rel=0.02)  # quantised to 1/16 nat here, not there
    assert found.kl_error == pytest.approx(error, rel=0.05, abs=2e-4)
    p, q = np.exp(log_p), np.exp(kept)
    assert found.angle_half == pytest.approx(angle_of(np.exp(half) - p, np.exp(half) - q), abs=0.3)
    assert found.angle_start == pytest.approx(angle_of(np.exp(start) - p, np.exp(start) - q), abs=0.3)


@pytest.mark.parametrize("tail", TAILS)
def test_gradients_are_those_of_the_objective(real_logits: Array, tail: Tail) -> None:
    """Autograd through the sparse loss gives the angle that the table shows."""
    k, temperature = 10, 2.0
    (found,) = (e for e in tail_errors(real_logits, [k], temperatures=[temperature], quantisation="high")
                if e.tail == tail)  # fmt: skip
    logits = torch.from_numpy(real_logits).double()
    kept = reduce_topk(logits, torch.full((len(logits), 1), -1), k)
    means = torch.zeros(1000, dtype=torch.float64)
    teacher = labels_of(kept, 1000, (), means)
    half = torch.from_numpy(students(real_logits.astype("f8"))[0]).requires_grad_()
    log_q = torch.log_softmax(half / temperature, dim=-1)
    (exact,) = torch.autograd.grad(_dense_kl(torch.log_softmax(logits / temperature, -1), log_q).sum(), half,
                                   retain_graph=True)  # fmt: skip
    (approximate,) = torch.autograd.grad(sparse_kl(teacher, log_q, temperature, tail).sum(), half)
    margin = 1.5 if tail == "class-mean" else 0.2  # the means here are zeros: a uniform tail
    assert found.angle_half == pytest.approx(angle_of(exact.numpy(), approximate.numpy()), abs=margin)


def test_a_ghost_is_a_coarser_kl(real_logits: Array) -> None:
    (found,) = (e for e in tail_errors(real_logits, [20], temperatures=[1.0], quantisation="high") if e.tail == "ghost")
    logits = torch.from_numpy(real_logits).double()
    kept = reduce_topk(logits, torch.full((len(logits), 1), -1), 20)
    teacher = labels_of(kept, 1000)
    log_q = torch.log_softmax(torch.from_numpy(students(real_logits.astype("f8"))[0]), dim=-1)
    full, coarse = _dense_kl(torch.log_softmax(logits, -1), log_q), _dense_kl(*ghost_pair(teacher, log_q, 1.0))
    assert bool((coarse <= full + 1e-9).all())
    assert found.kl_error == pytest.approx(float((full - coarse).mean()), rel=0.01)
    assert found.kl_lost is None


def _dense_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def test_class_means_lose_less_than_a_flat_tail(real_logits: Array) -> None:
    errors = {(e.k, e.temperature, e.tail): e.kl_lost for e in tail_errors(real_logits, [5, 20])}
    for k in (5, 20):
        for temperature in (1.0, 2.0, 4.0, 8.0):
            uniform, shaped = errors[k, temperature, "uniform"], errors[k, temperature, "class-mean"]
            assert uniform is not None
            assert shaped is not None
            assert shaped < 0.97 * uniform


def test_masked_classes_take_no_part() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 12)).astype("f4") * 3
    hidden = logits.copy()
    hidden[:, [3, 7]] = 99.0
    visible = np.delete(logits, [3, 7], axis=1)
    for masked, plain in zip(tail_errors(hidden, [4], masked=(3, 7)), tail_errors(visible, [4]), strict=True):
        assert masked.kl_error == pytest.approx(plain.kl_error, rel=1e-6, abs=1e-9)
        assert masked.angle_half == pytest.approx(plain.angle_half, rel=1e-6)
        assert masked.kl_lost == (plain.kl_lost and pytest.approx(plain.kl_lost, rel=1e-6))
