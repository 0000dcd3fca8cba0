"""objectives on top-k stores of a real teacher: exact where they say so, else the dense reference on the same tail."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import TERMS, make_objective, parameters_of
from tests.kits.dense_reference import REFERENCES
from tests.kits.dense_tail import rebuilt
from tests.kits.dense_teacher import Case
from tests.kits.labels import batch_of, full_labels, real_student, require_equal, topk_labels, value_and_gradient

TEMPERATURES, KS = (1.0, 2.0, 4.0, 8.0), (5, 10, 20, 50)
HEAD = torch.randn(1000, 4, generator=torch.Generator().manual_seed(3))
TAUGHT = [name for name, term in TERMS.items() if term.facts.teacher]
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
    return make_objective(name, given, head=HEAD if name == "kd-sim" else None, w_ce=0.0, w_kd=1.0, tail=tail)


def temperatures_of(name: str) -> tuple[float | None, ...]:
    return TEMPERATURES if "temperature" in parameters_of(name) else (None,)


def asked(loss: Any, logits: Any, y: Any, soft: Any) -> tuple[Tensor, Tensor]:
    return value_and_gradient(loss, real_student(logits), batch_of(soft, y=torch.from_numpy(y)))


@pytest.mark.parametrize(
    ("name", "tail"),
    [(name, tail) for name in TAILED for tail in TERMS[name].facts.tails if tail != "ghost"],
)
def test_it_is_the_reference_of_the_rebuilt_teacher(name: str, tail: Any, logits: Any, y: Any, stored: Any) -> None:
    rows = slice(0, 12) if name in SLOW else slice(None)
    for k in (10,) if name in SLOW else KS:
        soft = topk_labels(logits[rows], y[rows], k) if name in SLOW else stored(k)
        for temperature in temperatures_of(name):
            settings = parameters_of(name) | {"theta": 1.0} | ({"temperature": temperature} if temperature else {})
            teacher, case = rebuilt(soft, tail), Case(y=torch.from_numpy(y[rows]), settings=settings)
            reference = REFERENCES[name]
            wanted = value_and_gradient(reference, real_student(logits[rows]), teacher, case)
            require_equal(asked(made(name, tail, temperature), logits[rows], y[rows], soft), wanted)


@pytest.mark.parametrize("name", TAILED)
def test_its_error_against_full_is_what_was_measured(name: str, logits: Any, y: Any, stored: Any) -> None:
    for temperature in temperatures_of(name):
        with torch.no_grad():
            batch = batch_of(stored(None), y=torch.from_numpy(y))
            whole = float(made(name, "class-mean", temperature)(real_student(logits), batch))
            for k, bound in zip(KS, ERRORS[name], strict=True):
                loss = made(name, "class-mean", temperature)
                found = float(loss(real_student(logits), batch_of(stored(k), y=torch.from_numpy(y))))
                assert abs(found - whole) <= bound * whole, (k, temperature)


def test_every_objective_with_a_tail_has_a_measured_error() -> None:
    assert set(ERRORS) == set(TAILED)


@pytest.mark.parametrize("tail", ["uniform", "class-mean", "ghost", "none"])
@pytest.mark.parametrize("name", ["hard-teacher", "kd-sim"])
def test_what_needs_no_tail_is_the_same_on_both_stores(name: str, tail: Any, logits: Any, y: Any, stored: Any) -> None:
    for k in KS:
        for temperature in temperatures_of(name):
            loss = made(name, tail, temperature)
            require_equal(asked(loss, logits, y, stored(k)), asked(loss, logits, y, stored(None)))


def label_error(k: int, temperature: float) -> float:
    """Bound on a stored log-probability's error: half a step of the label, of a gap or the tail in the normaliser, and
    what f16 leaves of the full store's logits (2^-6 for logits of 16 to 32 below the top)."""
    return 1 / 128 / temperature + max(1 / 32 / temperature, 1 / 256) + 2**-6 / temperature


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("k", KS)
def test_kd_pt_is_exact_to_the_quantisation(k: int, temperature: float, logits: Any, y: Any, stored: Any) -> None:
    """The loss is convex in p_y: within an error of log p_y its change is at most that at one of the ends."""
    error, labels = label_error(k, temperature), torch.from_numpy(y)
    log_p = stored(None).label_log_prob(temperature).double()
    log_q = torch.log_softmax(real_student(logits) / temperature, dim=-1)
    others = log_q.shape[1] - 1
    log_q_y = log_q.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    rest_q = (log_q.sum(dim=1) - log_q_y) / others

    def rows(log_p_y: Tensor) -> Tensor:
        p = log_p_y.clamp_max(0.0).exp()
        even = (1 - p) / others
        return torch.xlogy(p, p) - p * log_q_y + torch.xlogy(1 - p, even) - (1 - p) * rest_q

    off = torch.stack([(rows(log_p + sign * error) - rows(log_p)).abs() for sign in (-1, 1)]).amax(dim=0)
    bound = temperature**2 * torch.where(labels >= 0, off, 0.0).mean()
    loss = made("kd-pt", "uniform", temperature)
    gap = asked(loss, logits, y, stored(k))[0] - asked(loss, logits, y, stored(None))[0]
    assert abs(float(gap)) <= float(bound)
    assert float(bound) < 0.05 * float(asked(loss, logits, y, stored(None))[0])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("k", KS)
def test_kd_topk_is_exact_to_the_quantisation(k: int, temperature: float, logits: Any, y: Any, stored: Any) -> None:
    """A change of at most e in every log p_j moves KL by at most sum_j p_j |log p_j / q_j| e, to first order."""
    loss = made("kd-topk", "uniform", temperature)
    error, full = 2 * label_error(k, temperature), stored(None).prefix(5)
    log_q = torch.log_softmax(real_student(logits) / temperature, dim=-1)
    log_p = full.log_dense(temperature).double()
    bound = temperature**2 * (log_p.exp() * ((log_p - log_q).abs() + 2 * error)).sum(dim=1).mean() * error
    gap = asked(loss, logits, y, stored(k))[0] - asked(loss, logits, y, stored(None))[0]
    assert abs(float(gap)) <= float(bound)


@pytest.mark.parametrize("tail", ["uniform", "class-mean", "ghost"])
@pytest.mark.parametrize("name", [name for name in FORWARD if name != "wttm"])  # whose weight of a row is rounded too
def test_the_gradient_of_head_logits_is_exact(name: str, tail: Any, logits: Any, y: Any, stored: Any) -> None:
    """T (q_c - p_c) / N for a class of the head, whatever the tail's shape: off by p_c times the error of log p_c."""
    for k in KS:
        classes = stored(k).classes
        for temperature in [t for t in temperatures_of(name) if t != 8.0]:
            loss = made(name, tail, temperature)
            found, wanted = (asked(loss, logits, y, soft)[1].gather(1, classes) for soft in (stored(k), stored(None)))
            hot = temperature or 1.0 + 20.0 / (1.0 + np.exp(-1.0))
            p = stored(None).log_probs(hot).exp().double().gather(1, classes)
            factor = 1.0 if name == "ttm" else hot
            error = 2 * label_error(k, hot) + (0.01 if temperature is None else 0.0)  # T is between the sketch's
            assert ((found - wanted).abs() <= factor * p * np.expm1(error) / len(p) + 1e-9).all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_ghost_tail_is_a_lower_bound_for_every_row(name: str, logits: Any, y: Any, stored: Any) -> None:
    student, labels = real_student(logits), torch.from_numpy(y)
    with torch.no_grad():
        for k in (5, 50):
            for temperature in temperatures_of(name):
                hot = temperature or 16.0
                for row in range(0, len(logits), 3):
                    one = slice(row, row + 1)
                    whole, part = (take(stored(each), one) for each in (None, k))
                    loss = made(name, "ghost", temperature)
                    full_value = float(loss(student[one], batch_of(whole, y=labels[one])))
                    exact = whole.prefix(k) if hot in (1.0, 2.0, 4.0) else None
                    for soft, slack in [(part, GHOST_SLACK * hot**2), (exact, 1e-5)]:
                        if soft is not None:
                            assert float(loss(student[one], batch_of(soft, y=labels[one]))) <= full_value + slack


def take(soft: Any, rows: slice) -> Any:
    names = ("logits", "label", "classes", "tail")
    return type(soft)(**vars(soft) | {name: vars(soft)[name][rows] for name in names if name in vars(soft)})


@pytest.mark.parametrize("name", [name for name in TAUGHT if "temperature" in parameters_of(name)])
def test_below_one_is_refused_with_the_reason(name: str, logits: Any, y: Any, stored: Any) -> None:
    if name in ("kd-sim", "hard-teacher", "logit-standardisation"):  # none of the three tempers the store's tail itself
        assert asked(made(name, "uniform", 0.5), logits, y, stored(5))[0].isfinite()
        return
    with pytest.raises(InvalidInputError, match=r"temperature 0\.5 was asked for; it must be 1 or more.*tail is known"):
        asked(made(name, "uniform", 0.5), logits, y, stored(5))
