"""nearest_teacher: no teacher that agrees with the store is nearer to the student, by any divergence."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import rel_entr

from kdcache.labels.tail import SLACK
from kdcache.measures.divergence import _of_all_classes, _of_topk
from kdcache.measures.nearest_teacher import nearest_teacher
from kdcache.measures.rows import Rows
from tests.kits.measures import full_teacher, random_case, topk_teacher

CLASSES, K = 9, 3


def js(p: np.ndarray, q: np.ndarray) -> float:
    m = (p + q) / 2
    return float((rel_entr(p, m) + rel_entr(q, m)).sum() / 2)


DIVERGENCES = {
    "reverse": lambda p, q: float(rel_entr(q, p).sum()),
    "forward": lambda p, q: float(rel_entr(p, q).sum()),
    "js": js,
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_search_over_all_tails_finds_none_nearer(name: str) -> None:
    case = random_case(25, CLASSES, seed=4)
    case.logits[:8, :] = case.logits[:8, torch.randperm(CLASSES, generator=torch.Generator().manual_seed(1))]  # far
    soft = topk_teacher(case.teacher, K)
    pair = nearest_teacher(Rows(case.logits, soft))
    cut = 0
    for row in range(25):
        divergence, q = DIVERGENCES[name], case.q[row]
        value = divergence(pair.log_p[row].exp().numpy(), pair.log_q[row].exp().numpy())
        head = soft.classes[row]
        tail = np.setdiff1d(np.arange(CLASSES), head)
        limit = case.p[row][head[-1]] * np.exp(SLACK)
        mass = 1.0 - case.p[row][head].sum()
        assert case.p[row][tail].max() <= limit

        def whole(tail_p: np.ndarray, row: int = row, head: np.ndarray = head, tail: np.ndarray = tail) -> np.ndarray:
            p = np.zeros(CLASSES)
            p[head], p[tail] = case.p[row][head], np.maximum(tail_p, 1e-12)
            return p

        search = minimize(
            lambda tail_p, q=q, whole=whole, divergence=divergence: divergence(whole(tail_p), q),
            np.full(len(tail), mass / len(tail)),
            bounds=[(1e-12, limit)] * len(tail),
            constraints={"type": "eq", "fun": lambda tail_p, mass=mass: tail_p.sum() - mass},
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 500},
        )
        assert value <= search.fun + 1e-7
        assert value == pytest.approx(search.fun, abs=1e-4)  # the search stops near the least
        assert value <= divergence(case.p[row], q) + 1e-9
        cut += bool(pair.log_p[row, K : K + CLASSES].isfinite().any())
    assert cut > 3  # the limit matters in some rows


def test_by_hand() -> None:
    """The store keeps class 0 (p .6); four classes share .4, none above .6: at the student's ratio they are one.

    q = (.5, .2, .1, .1, .1): the rest is .5 for p .4. With p_0 = .25 instead, the limit is .25 e^(1/32), about .258,
    and a student with q_1 = .7 would have p_1 = .7 r above it: p_1 is cut, and the others have the rest."""
    soft = topk_teacher(np.log([[0.6, 0.1, 0.1, 0.1, 0.1]]), 1)
    pair = nearest_teacher(Rows(torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1]]).double().log(), soft))
    there = pair.log_q.isfinite()
    assert pair.log_p[there].exp().tolist() == pytest.approx([0.6, 0.4], abs=1e-6)
    assert pair.log_q[there].exp().tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    soft = topk_teacher(np.log([[0.25, 0.24, 0.17, 0.17, 0.17]]), 1)
    pair = nearest_teacher(Rows(torch.tensor([[0.1, 0.7, 0.1, 0.05, 0.05]]).double().log(), soft))
    limit, there = 0.25 * np.exp(1 / 32), pair.log_q.isfinite()
    assert pair.log_p[there].exp().tolist() == pytest.approx([0.25, limit, 0.75 - limit], abs=1e-6)
    assert pair.log_q[there].exp().tolist() == pytest.approx([0.1, 0.7, 0.2], abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(40))
def test_bounds_hold_row_by_row_for_any_student(seed: int, dtype: type) -> None:
    """Students from near to absurdly sure (logits up to hundreds), any C and k, some classes masked."""
    rng = np.random.RandomState(seed)
    classes, rows = rng.randint(2, 60), rng.randint(1, 20)
    k, masked = rng.randint(1, classes + 1), ()
    if classes > 3 and rng.rand() < 0.3:
        masked = tuple(sorted(rng.choice(classes, rng.randint(1, classes - 2), replace=False).tolist()))
        k = min(k, classes - len(masked))
    teacher = rng.normal(0, 10 ** rng.uniform(-2, 2), (rows, classes))
    student = rng.rand() * teacher + rng.normal(0, 10 ** rng.uniform(-3, 2), (rows, classes))
    logits = torch.from_numpy(student.astype(dtype))
    exact = _of_all_classes(Rows(logits, full_teacher(teacher, masked)))
    bounds = _of_topk(Rows(logits, topk_teacher(teacher, k, masked)))
    slack = 2e-5 if dtype is np.float32 else 1e-6
    for measure in ("least_kl_to", "kl_from", "js", "tvd"):
        limit, bound = exact[measure].double(), bounds[measure]
        assert not bound.isnan().any()
        assert bool((bound <= limit + slack * (1 + limit.abs())).all()), measure
