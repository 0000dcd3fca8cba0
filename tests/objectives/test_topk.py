"""objectives on top-k stores of a real teacher: exact where they say so, else the dense reference on the same tail."""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import LOGIT_TERMS, make_objective, parameters_of
from tests.kits.dense_reference import REFERENCES
from tests.kits.dense_tail import rebuilt
from tests.kits.dense_teacher import Case
from tests.kits.labels import batch_of, full_labels, real_student, require_equal, topk_labels, value_and_gradient

TEMPERATURES, KS = (1.0, 2.0, 4.0, 8.0), (5, 10, 20, 50)
HEAD = torch.randn(1000, 4, generator=torch.Generator().manual_seed(3))
TAUGHT = [name for name, term in LOGIT_TERMS.items() if term.facts.teacher]
TAILED = [name for name in TAUGHT if name not in ("hard-teacher", "kd-pt", "kd-sim", "kd-topk")]
FORWARD = ["kd", "function-matching", "ctkd", "ttm", "wttm"]
DIVERGENCES = [*FORWARD, "reverse-kl", "symmetric-kl", "jsd", "skew-kl", "skew-reverse-kl", "tvd"]
SLOW = ("double-distillation", "adaptive-kl", "mlld")  # their references walk through classes or temperatures
# How far the value is from the full one at most, relatively, over T in 1, 2, 4, 8, for k = 5, 10, 20, 50: measured over
# 24 crops with tail class-mean (the means of these crops), plus a twentieth.
ERRORS = {
    "kd": (0.454, 0.424, 0.367, 0.275),
    "dkd": (0.447, 0.419, 0.363, 0.27),
    "nkd": (0.16, 0.112, 0.0738, 0.0365),
    "dist": (1.25, 1.14, 0.984, 0.706),
    "logit-standardisation": (2.11, 0.378, 0.316, 0.237),
    "mlld": (0.396, 0.368, 0.311, 0.225),
    "ctkd": (0.461, 0.431, 0.376, 0.285),
    "ttm": (0.558, 0.469, 0.368, 0.238),
    "wttm": (0.636, 0.544, 0.434, 0.284),
    "logit-mse": (0.465, 0.436, 0.382, 0.293),
    "reverse-kl": (0.467, 0.435, 0.374, 0.28),
    "symmetric-kl": (0.46, 0.43, 0.371, 0.278),
    "brier": (0.435, 0.407, 0.346, 0.256),
    "jsd": (0.459, 0.428, 0.369, 0.277),
    "skew-kl": (0.455, 0.425, 0.368, 0.276),
    "skew-reverse-kl": (0.463, 0.432, 0.372, 0.278),
    "tvd": (0.205, 0.194, 0.174, 0.136),
    "adaptive-kl": (0.46, 0.43, 0.371, 0.278),
    "taid": (0.27, 0.248, 0.171, 0.103),
    "double-distillation": (0.161, 0.111, 0.0726, 0.0357),
    "function-matching": (0.454, 0.424, 0.367, 0.275),
}
GHOST_SLACK = 3e-3  # nats, times T^2: the bound is of exact logits, and a store's are rounded


@pytest.fixture(scope="module")
def logits(real_logits: Any) -> Any:
    return real_logits[::10]


@pytest.fixture(scope="module")
def y(logits: Any) -> Any:
    """Labels at ranks in the head and in the tail; one missing."""
    ranks = np.argsort(-logits, axis=1, kind="stable")
    labels = np.array([ranks[row, [0, 0, 1, 3, 30, 200][row % 6]] for row in range(len(ranks))])
    labels[7] = -1
    return labels


@pytest.fixture(scope="module")
def stored(logits: Any, y: Any) -> Any:
    """k -> the store's soft labels, None -> the full ones; made once."""
    return cache(lambda k: full_labels(logits, y) if k is None else topk_labels(logits, y, k))


def made(name: str, tail: Any, temperature: float | None) -> Any:
    given = {} if temperature is None else {"temperature": temperature}
    alone = {"w_ce": 0.0, "w_kd": 1.0, **given}
    return make_objective(name, alone, head=HEAD if name == "kd-sim" else None, tail=tail)


def temperatures_of(name: str) -> tuple[float | None, ...]:
    return TEMPERATURES if "temperature" in parameters_of(name) else (None,)


def asked(loss: Any, logits: Any, y: Any, soft: Any) -> tuple[Tensor, Tensor]:
    return value_and_gradient(loss, real_student(logits), batch_of(soft, y=torch.from_numpy(y)))


def test_it_is_the_reference_of_the_rebuilt_teacher(
    logits: Any, y: Any, stored: Any, subtests: pytest.Subtests
) -> None:
    for name, tail in [(term, tail) for term in TAILED for tail in LOGIT_TERMS[term].facts.tails if tail != "ghost"]:
        rows = slice(0, 12) if name in SLOW else slice(None)
        for k, temperature in product((10,) if name in SLOW else KS, temperatures_of(name)):
            with subtests.test(name, tail=tail, k=k, temperature=temperature):
                soft = take(stored(k), rows)
                settings = parameters_of(name) | {"theta": 1.0} | ({"temperature": temperature} if temperature else {})
                teacher, case = rebuilt(soft, tail), Case(y=torch.from_numpy(y[rows]), settings=settings)
                wanted = value_and_gradient(REFERENCES[name], real_student(logits[rows]), teacher, case)
                require_equal(asked(made(name, tail, temperature), logits[rows], y[rows], soft), wanted)


def test_its_error_against_full_is_what_was_measured(
    logits: Any, y: Any, stored: Any, subtests: pytest.Subtests
) -> None:
    student = real_student(logits)
    for name in TAILED:
        for temperature in temperatures_of(name):
            with subtests.test(name, temperature=temperature), torch.no_grad():
                whole, *parts = (
                    float(made(name, "class-mean", temperature)(student, batch_of(stored(k), y=torch.from_numpy(y))))
                    for k in (None, *KS)
                )
                for k, part, bound in zip(KS, parts, ERRORS[name], strict=True):
                    assert abs(part - whole) <= bound * whole, f"k = {k}"


def test_every_objective_with_a_tail_has_a_measured_error() -> None:
    assert set(ERRORS) == set(TAILED)


def test_what_needs_no_tail_is_the_same_on_both_stores(
    logits: Any, y: Any, stored: Any, subtests: pytest.Subtests
) -> None:
    for name, tail, k in product(["hard-teacher", "kd-sim"], ["uniform", "class-mean", "ghost", "none"], KS):
        for temperature in temperatures_of(name):
            with subtests.test(name, tail=tail, k=k, temperature=temperature):
                loss = made(name, tail, temperature)
                require_equal(asked(loss, logits, y, stored(k)), asked(loss, logits, y, stored(None)))


def label_error(k: int, temperature: float) -> float:
    """Bound on a stored log-probability's error: half a step of the label, of a gap or the tail in the normaliser, and
    what f16 leaves of the full store's logits (2^-6 for logits of 16 to 32 below the top)."""
    return 1 / 128 / temperature + max(1 / 32 / temperature, 1 / 256) + 2**-6 / temperature


def test_kd_pt_is_exact_to_the_quantisation(logits: Any, y: Any, stored: Any, subtests: pytest.Subtests) -> None:
    """The loss is convex in p_y: within an error of log p_y its change is at most that at one of the ends."""
    labels, others = torch.from_numpy(y), logits.shape[1] - 1
    for k, temperature in product(KS, (1.0, 2.0, 4.0)):
        log_p = stored(None).label_log_prob(temperature).double()
        log_q = torch.log_softmax(real_student(logits) / temperature, dim=-1)
        log_q_y = log_q.gather(1, labels.clamp_min(0)[:, None])[:, 0]
        rest_q = (log_q.sum(dim=1) - log_q_y) / others
        low, middle, high = (
            torch.xlogy(p, p) - p * log_q_y + torch.xlogy(1 - p, (1 - p) / others) - (1 - p) * rest_q
            for p in ((log_p + sign * label_error(k, temperature)).clamp_max(0.0).exp() for sign in (-1, 0, 1))
        )
        off = torch.maximum((low - middle).abs(), (high - middle).abs())
        bound = float(temperature**2 * torch.where(labels >= 0, off, 0.0).mean())
        with subtests.test(k=k, temperature=temperature):
            loss = made("kd-pt", "uniform", temperature)
            part, full = (float(asked(loss, logits, y, soft)[0]) for soft in (stored(k), stored(None)))
            assert abs(part - full) <= bound < 0.05 * full


def test_kd_topk_is_exact_to_the_quantisation(logits: Any, y: Any, stored: Any, subtests: pytest.Subtests) -> None:
    """A change of at most e in every log p_j moves KL by at most sum_j p_j |log p_j / q_j| e, to first order."""
    for k, temperature in product(KS, (1.0, 2.0, 4.0)):
        error = 2 * label_error(k, temperature)
        log_q = torch.log_softmax(real_student(logits) / temperature, dim=-1)
        log_p = stored(None).prefix(5).log_dense(temperature).double()
        bound = temperature**2 * (log_p.exp() * ((log_p - log_q).abs() + 2 * error)).sum(dim=1).mean() * error
        with subtests.test(k=k, temperature=temperature):
            loss = made("kd-topk", "uniform", temperature)
            part, full = (float(asked(loss, logits, y, soft)[0]) for soft in (stored(k), stored(None)))
            assert abs(part - full) <= min(float(bound), 3e-3 * full)  # rounding errors of both signs leave 6e-4


def test_the_gradient_of_head_logits_is_exact(logits: Any, y: Any, stored: Any, subtests: pytest.Subtests) -> None:
    """T (q_c - p_c) / N for a class of the head, whatever the tail's shape: off by p_c times the error of log p_c."""
    names = [name for name in FORWARD if name != "wttm"]  # whose weight of a row is rounded too
    for name, tail, k in product(names, ("uniform", "class-mean", "ghost"), KS):
        for temperature in [t for t in temperatures_of(name) if t != 8.0]:
            with subtests.test(name, tail=tail, k=k, temperature=temperature):
                loss, classes = made(name, tail, temperature), stored(k).classes
                part, full = (asked(loss, logits, y, soft)[1].gather(1, classes) for soft in (stored(k), stored(None)))
                hot = temperature or 1.0 + 20.0 / (1.0 + np.exp(-1.0))
                p = stored(None).log_probs(hot).exp().double().gather(1, classes)
                factor = 1.0 if name == "ttm" else hot
                error = 2 * label_error(k, hot) + (0.01 if temperature is None else 0.0)  # T is between the sketch's
                assert ((part - full).abs() <= factor * p * np.expm1(error) / len(p) + 1e-9).all()


def test_a_ghost_tail_is_a_lower_bound_for_every_row(
    logits: Any, y: Any, stored: Any, subtests: pytest.Subtests
) -> None:
    student, labels = real_student(logits), torch.from_numpy(y)
    for name, k, row in product(DIVERGENCES, (5, 50), range(0, len(logits), 3)):
        one = slice(row, row + 1)
        whole, part = (take(stored(each), one) for each in (None, k))
        for temperature in temperatures_of(name):
            with subtests.test(name, k=k, row=row, temperature=temperature), torch.no_grad():
                hot, loss = temperature or 16.0, made(name, "ghost", temperature)
                bound = float(loss(student[one], batch_of(whole, y=labels[one])))
                assert float(loss(student[one], batch_of(part, y=labels[one]))) <= bound + GHOST_SLACK * hot**2
                if hot in (1.0, 2.0, 4.0):
                    exact = batch_of(whole.prefix(k), y=labels[one])
                    assert float(loss(student[one], exact)) <= bound + 1e-5


def take(soft: Any, rows: slice) -> Any:
    names = ("logits", "label", "classes", "tail")
    return type(soft)(**vars(soft) | {name: vars(soft)[name][rows] for name in names if name in vars(soft)})


def test_below_one_is_refused_with_the_reason(logits: Any, y: Any, stored: Any, subtests: pytest.Subtests) -> None:
    said = r"temperature 0\.5 was asked for; it must be 1 or more.*tail is known"
    for name in [name for name in TAUGHT if "temperature" in parameters_of(name)]:
        with subtests.test(name):
            loss = made(name, "uniform", 0.5)
            if name in ("kd-sim", "hard-teacher", "logit-standardisation"):  # none tempers the store's tail itself
                assert asked(loss, logits, y, stored(5))[0].isfinite()
            else:
                with pytest.raises(InvalidInputError, match=said):
                    asked(loss, logits, y, stored(5))
