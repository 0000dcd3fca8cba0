"""objectives on several stores: means of probabilities, logits, predictions or losses, weighted, of any encodings."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import LOGIT_TERMS, make_objective, parameters_of
from kdcache.objectives.targets import Combine, Targets, normalised_weights
from tests.kits.dense_reference import REFERENCES
from tests.kits.dense_tail import rebuilt
from tests.kits.dense_teacher import Case, Dense
from tests.kits.labels import batch_of, full_labels, real_student, require_equal, topk_labels, value_and_gradient

ROWS, CLASSES = 8, 14
Y = np.array([1, 3, -1, 5, 8, 9, 12, 13])
COMBINED: tuple[Combine, ...] = ("probabilities", "logits", "predictions")


def logits(seed: int) -> Any:
    return np.random.RandomState(seed).normal(0, 3, (ROWS, CLASSES)).astype(np.float32)


class Combined(Dense):
    """Several teachers as one: `mean(T, y)` gives its probabilities."""

    def __init__(self, members: list[Any], shares: Any, combine: str) -> None:
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "shares", torch.tensor(shares, dtype=torch.float64) / sum(shares))
        object.__setattr__(self, "combine", combine)
        object.__setattr__(self, "z", self.log_p(1.0))

    def _mean(self, temperature: Any, y: Any, which: int) -> Tensor:
        each = torch.stack([member.log_p(temperature, y, which).exp() for member in self.members])
        return torch.einsum("m,mnc->nc", self.shares, each)

    def log_p(self, temperature: Any, y: Tensor | None = None, which: int = 0) -> Tensor:
        if self.combine == "probabilities":
            return self._mean(temperature, y, which).log()
        if self.combine == "predictions":
            return torch.log_softmax(self._mean(1.0, y, which).log() / temperature, dim=-1)
        each = [member.log_p(temperature, y, which) for member in self.members]
        kept = [share * log_p for share, log_p in zip(self.shares, each, strict=True) if share > 0]
        return torch.log_softmax(torch.stack(kept).sum(dim=0), dim=-1)

    def label_log_p(self, temperature: float, y: Tensor, which: int = 0) -> Tensor:
        if self.combine == "probabilities":  # each store knows its label's own logit
            each = torch.stack([member.label_log_p(temperature, y, which).exp() for member in self.members])
            return torch.einsum("m,mn->n", self.shares, each).log()
        return self.log_p(temperature, y, which).gather(-1, y.clamp_min(0)[:, None])[:, 0]


def members(kind: str, masked: tuple[int, ...] = ()) -> tuple[list[Any], list[Any]]:
    """Two stores, and how a reference sees them."""
    if kind == "full":
        stores: list[Any] = [full_labels(logits(seed), Y, masked) for seed in (1, 2)]
        return stores, [Dense(store.logits.double()) for store in stores]
    first, second = topk_labels(logits(1), Y, 4, masked), full_labels(logits(2), Y, masked)
    return [first, second], [rebuilt(first, "uniform"), Dense(second.logits.double())]


def settings_of(name: str) -> dict[str, Any]:
    return parameters_of(name) | {"theta": 1.0}


NAMES = ["kd", "ttm", "wttm", "dkd", "nkd", "kd-pt", "jsd", "dist", "mlld", "ctkd", "brier", "hard-teacher", "taid"]


def test_they_are_one_teacher(subtests: pytest.Subtests) -> None:
    for kind, masked in product(["full", "mixed"], [(), (0, 6)]):
        stores, seen = members(kind, masked)
        for name, combine, weights in product(NAMES, COMBINED, [(), (3.0, 1.0), (0.0, 2.0)]):
            with subtests.test(name, kind=kind, masked=masked, combine=combine, weights=weights):
                teacher = Combined(seen, weights or (1.0, 1.0), combine)
                case = Case(y=torch.from_numpy(Y), settings=settings_of(name))
                wanted = value_and_gradient(REFERENCES[name], real_student(logits(0)), teacher, case)
                loss = make_objective(name, {"w_ce": 0.0, "w_kd": 1.0}, combine=combine, weights=weights)
                found = value_and_gradient(loss, real_student(logits(0)), batch_of(*stores, y=torch.from_numpy(Y)))
                require_equal(found, wanted)


def test_losses_are_the_weighted_mean_of_each_teacher_s(subtests: pytest.Subtests) -> None:
    stores, seen = members("mixed")
    for name in [name for name in NAMES if name != "taid"]:
        with subtests.test(name):
            case = Case(y=torch.from_numpy(Y), settings=settings_of(name))
            loss = make_objective(name, {"w_ce": 0.0, "w_kd": 1.0}, combine="losses", weights=(3.0, 1.0))
            found = value_and_gradient(loss, real_student(logits(0)), batch_of(*stores, y=torch.from_numpy(Y)))
            first, second = (value_and_gradient(REFERENCES[name], real_student(logits(0)), each, case) for each in seen)
            value, gradient = (0.75 * a + 0.25 * b for a, b in zip(first, second, strict=True))
            require_equal(found, (value, gradient))


def test_predictions_are_stanton_s_rule() -> None:
    """z = log mean_i softmax(z_i), then p = softmax(z / T): Stanton et al. 2021, for three teachers at T = 4."""
    each = [torch.from_numpy(logits(seed)).double() for seed in (1, 2, 3)]
    stores = tuple(full_labels(logits(seed), Y) for seed in (1, 2, 3))
    z = torch.stack([torch.softmax(store.logits.double(), dim=-1) for store in stores]).mean(dim=0).log()
    found = Targets(stores, combine="predictions").log_probs(4.0)
    torch.testing.assert_close(found.double(), torch.log_softmax(z / 4.0, dim=-1), rtol=1e-5, atol=1e-5)
    by_hand = torch.stack([torch.softmax(one, dim=-1) for one in each]).mean(dim=0) ** 0.25
    torch.testing.assert_close(found.exp().double(), by_hand / by_hand.sum(dim=-1, keepdim=True), rtol=0, atol=2e-2)


def test_one_teacher_twice_is_that_teacher(subtests: pytest.Subtests) -> None:
    store, student, y = topk_labels(logits(1), Y, 3), real_student(logits(0)), torch.from_numpy(Y)
    for name, combine in product(["kd", "dkd", "nkd", "reverse-kl"], COMBINED):
        with subtests.test(name, combine=combine):
            alone, twice = (make_objective(name, {"temperature": 1.0}, **more) for more in ({}, {"combine": combine}))
            rounding = 2e-2 if name == "nkd" else 1e-6  # alone, a label in the head has its own, finer steps
            wanted = value_and_gradient(alone, student, batch_of(store, y=y))
            require_equal(value_and_gradient(twice, student, batch_of(store, store, y=y)), wanted, relative=rounding)


def test_label_corrected_ensembles_see_each_store_s_own_label() -> None:
    """The label lies outside both heads: its probability is the mean of the stored ones, not of shares of a tail."""
    y = np.argsort(logits(1) + logits(2), axis=1)[:, 0].copy()
    stores = tuple(topk_labels(logits(seed), y, 3) for seed in (1, 2))
    targets = Targets(stores)
    found = targets.log_probs(2.0, labels=torch.from_numpy(y)).exp()
    exact = torch.stack([store.label_log_prob(2.0).exp() for store in stores]).mean(dim=0)
    outside = torch.stack([(store.classes != torch.from_numpy(y)[:, None]).all(dim=1) for store in stores]).all(dim=0)
    assert int(outside.sum()) >= 4
    got = found.gather(1, torch.from_numpy(y)[:, None])[:, 0]
    torch.testing.assert_close(got[outside], exact[outside])
    torch.testing.assert_close(found.sum(dim=1), torch.ones(ROWS), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(targets.log_probs(2.0).exp().gather(1, torch.from_numpy(y)[:, None])[:, 0], exact)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (-1.0, 2.0), (0.0, 0.0)])
def test_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInputError, match="do not fit 2 stores; give one at or above 0 for each"):
        normalised_weights(weights, 2)
    stores = [full_labels(logits(seed), Y) for seed in (1, 2)]
    with pytest.raises(InvalidInputError, match="do not fit 2 stores"):
        make_objective("kd", weights=weights)(real_student(logits(0)), batch_of(*stores, y=torch.from_numpy(Y)))


def test_weights_are_shares() -> None:
    assert normalised_weights((), 4) == (0.25,) * 4
    assert normalised_weights((3.0, 1.0), 2) == (0.75, 0.25)


def test_every_objective_takes_an_ensemble(subtests: pytest.Subtests) -> None:
    stores, _ = members("mixed")
    for name, combine in product([name for name in LOGIT_TERMS if name != "kd-sim"], [*COMBINED, "losses"]):
        with subtests.test(name, combine=combine):
            if combine == "losses" and LOGIT_TERMS[name].facts.remembers:
                with pytest.raises(InvalidInputError, match="remembers one loss a step"):
                    make_objective(name, combine=combine)
                continue
            value, gradient = value_and_gradient(
                make_objective(name, {"k": 3} if name == "kd-topk" else {}, combine=combine),
                real_student(logits(0)),
                batch_of(*stores, y=torch.from_numpy(Y)),
            )
            assert value.isfinite()
            assert gradient.isfinite().all()
