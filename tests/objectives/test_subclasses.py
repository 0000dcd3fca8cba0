"""subclasses: class logits by a plain sum, objectives whose hard labels are of classes, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.labels.full import FullLabels
from kdcache.labels.reduction import class_logits
from kdcache.measures.tally import Tally
from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.subclass import Subclass
from kdcache.objectives.targets import Targets
from kdcache.training.metrics import Validation
from tests.kits.labels import batch_of, full_labels

ROWS, CLASSES, SUB = 6, 3, 4
Z = np.random.default_rng(0).normal(0, 2, (ROWS, CLASSES * SUB)).astype(np.float32)
S = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (ROWS, CLASSES * SUB)))
Y = torch.tensor([0, 2, -1, 1, 1, 0])


def taught() -> FullLabels:
    """Soft labels of 12 columns, whose hard labels are of 3 classes, as a store gives them."""
    labels = class_logits(Z - Z.max(axis=1, keepdims=True), SUB)[np.arange(ROWS), Y.clamp_min(0).numpy()]
    label = torch.from_numpy(np.where(Y.numpy() >= 0, labels, np.nan))
    return replace(full_labels(Z, np.full(ROWS, -1)), label=label, subclasses=SUB)


def by_hand(values: Any) -> Tensor:
    """[B, C] log of the sum of exponentials, one class at a time."""
    values = torch.as_tensor(values)
    return torch.stack([values[:, c * SUB : (c + 1) * SUB].exp().sum(dim=1).log() for c in range(CLASSES)], dim=1)


def test_a_class_has_the_log_of_the_sum_of_its_subclasses() -> None:
    for values in (Z, torch.from_numpy(Z), S):
        np.testing.assert_allclose(class_logits(values, SUB), by_hand(values), rtol=1e-5)
    assert class_logits(Z, 1) is Z
    axes = class_logits(S.reshape(2, 3, -1), SUB)
    assert axes.shape == (2, 3, CLASSES)
    assert torch.equal(axes.reshape(ROWS, CLASSES), class_logits(S, SUB))
    large = class_logits(np.array([[1e4, 0.0, -1e4, -1e4]], np.float32), 2)
    np.testing.assert_array_equal(large, [[1e4, np.float32(-1e4 + np.log(2))]])
    z = S.clone().requires_grad_()
    torch.logsumexp(by_hand(z), dim=1).sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert torch.allclose(z.grad, torch.softmax(S, dim=1))


@pytest.mark.parametrize("number", [5, 12, 0, -2])
def test_a_number_that_divides_no_logits_is_refused(number: int) -> None:
    with pytest.raises(InvalidInputError, match=r"12 logits are not those of two classes or more with -?\d+ subcl"):
        class_logits(Z, number)


def test_soft_labels_by_class_are_sums_at_any_temperature() -> None:
    soft = taught()
    classes, expected = soft.by_class(), torch.log_softmax(by_hand(Z), dim=1)
    assert (classes.num_classes, classes.subclasses, classes.by_class()) == (CLASSES, 1, classes)
    np.testing.assert_allclose(classes.log_probs(1.0), expected, atol=2e-3)  # f16
    assert torch.equal(classes.logits.max(dim=1).values, torch.zeros(ROWS))
    assert torch.equal(torch.as_tensor(classes.top_class), expected.argmax(dim=1))
    known = Y >= 0
    rows = torch.arange(ROWS)[known]
    for temperature in (1.0, 3.0):
        at_label = torch.log_softmax(by_hand(Z) / temperature, dim=1)[rows, Y[known]]
        np.testing.assert_allclose(classes.label_log_prob(temperature)[known], at_label, atol=2e-3)
    np.testing.assert_allclose(soft.label_log_prob(1.0)[known], expected[rows, Y[known]], atol=2e-3)
    assert torch.as_tensor(soft.label_log_prob(1.0)).isnan().tolist() == (~known).tolist()
    with pytest.raises(InvalidInputError, match=r"temperature 2.0 was asked of hard labels of 4 subclasses"):
        soft.label_log_prob(2.0)
    with pytest.raises(InvalidInputError, match=r"top-k 3 was asked of soft labels with 4 subclasses a class"):
        soft.prefix(3)
    assert classes.prefix(2).num_classes == CLASSES


def test_cross_entropy_is_of_classes_and_distillation_of_subclasses() -> None:
    soft, temperature = taught(), 4.0
    objective = make_objective("kd", {"w_ce": 0.5, "w_kd": 0.5, "temperature": temperature}, subclasses=SUB)
    loss = objective(S, batch_of(soft, y=Y))
    log_p, log_q = (torch.log_softmax(values / temperature, dim=1) for values in (soft.logits.double(), S))
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
    hard = -torch.log_softmax(by_hand(S), dim=1)[torch.arange(ROWS), Y.clamp_min(0)][Y >= 0].sum() / ROWS
    assert loss.item() == pytest.approx(float(0.5 * hard + 0.5 * temperature**2 * kl), rel=1e-6)


@pytest.mark.parametrize("name", ["label-smoothing", "confidence-penalty"])
def test_regularisers_are_those_of_the_classes(name: str) -> None:
    wide, narrow = make_objective(name, subclasses=SUB), make_objective(name)
    assert wide(S, batch_of(y=Y)).item() == pytest.approx(narrow(by_hand(S), batch_of(y=Y)).item(), rel=1e-9)


@pytest.mark.parametrize("name", ["dkd", "nkd", "kd-pt", "kd-topk", "hard-teacher"])
def test_objectives_that_take_classes_apart_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"4 subclasses stand for each; use another objective, such as KD"):
        make_objective(name, subclasses=SUB)


@pytest.mark.parametrize("name", ["kd", "nkd", "dkd", "kd-pt", "kd-topk", "hard-teacher", "dist", "logit-mse"])
def test_teachers_of_other_subclasses_are_refused_and_their_classes_are_not(name: str) -> None:
    objective = make_objective(name, {"k": 2} if name == "kd-topk" else {})
    wanted = (
        r"teacher 0 of the batch has 4 subclasses a class, and the objective has 1; .*subclasses=4\) .*by_class=True"
    )
    with pytest.raises(InvalidInputError, match=wanted):
        objective(S, batch_of(taught(), y=Y))
    losses = [
        objective(by_hand(S), batch_of(teacher, y=Y)).item()
        for teacher in (taught().by_class(), full_labels(by_hand(Z).numpy(), Y.numpy()))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_the_other_way_round_is_refused_where_the_term_counts() -> None:
    plain, batch = full_labels(Z, np.full(ROWS, -1)), batch_of(taught(), y=Y)
    with pytest.raises(
        InvalidInputError, match=r"teacher 1 of the batch has 1 subclasses a class, .* has 4; make it by"
    ):
        make_objective("kd", subclasses=SUB)(S, batch_of(taught(), plain, y=Y))
    hard = make_objective("kd", {"w_ce": 1.0, "w_kd": 0.0})(by_hand(S), batch)
    assert hard.item() == pytest.approx(make_objective("label-smoothing", {"epsilon": 0.0})(by_hand(S), batch).item())


def test_measures_are_of_classes() -> None:
    tally = Tally()
    with pytest.raises(
        InvalidInputError, match=r"4 subclasses a class, .*soft.by_class\(\) .*class_logits\(logits, 4\)"
    ):
        tally.update(S, taught(), Y)
    tally.update(class_logits(S, SUB), taught().by_class(), Y)
    same = (by_hand(S).argmax(dim=1) == by_hand(Z).argmax(dim=1)).double().mean()
    assert tally.result()["agreement"].value == pytest.approx(float(same))


def test_terms_of_a_users_own_see_the_subclasses_and_the_classes() -> None:
    seen = []

    def term(outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        seen.append((outputs.logits.shape[1], outputs.class_logits))
        return outputs.logits.sum()

    Objective(term, subclasses=SUB)(S, batch_of(taught(), y=Y))  # type: ignore[arg-type]
    assert seen[0][0] == CLASSES * SUB
    assert torch.allclose(seen[0][1], by_hand(S))


def test_equal_answers_have_no_subclass_loss_and_unlike_ones_less() -> None:
    term, batch = Subclass(), batch_of(y=torch.full((4,), -1))
    alike = torch.tensor([[3.0, 1.0, -1.0, 0.5]]).repeat(4, 1)
    assert term(Outputs(alike), Targets(()), batch).item() == pytest.approx(0.0, abs=1e-6)
    apart = torch.eye(4) * 9.0
    others = np.exp(1.0) + 3 * np.exp(-1 / 3)  # of standardised unit vectors in 4 dimensions
    assert term(Outputs(apart), Targets(()), batch).item() == pytest.approx(np.log(others) - 1 - np.log(4), rel=1e-5)
    flat = torch.zeros(4, 4, requires_grad=True)
    term(Outputs(flat), Targets(()), batch).backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_validation_is_by_class() -> None:
    soft, found = taught(), Validation(subclasses=SUB)
    found.update(S, batch_of(soft.by_class(), y=Y))
    log_q, log_p = torch.log_softmax(by_hand(S), dim=1), torch.log_softmax(soft.by_class().logits.double(), dim=1)
    known, rows = Y >= 0, torch.arange(ROWS)
    hits = (log_q.argmax(dim=1) == Y)[known].double().mean()
    measures = found.results()
    assert measures["accuracy"] == pytest.approx(float(hits))
    assert measures["nll"] == pytest.approx(float(-log_q[rows[known], Y[known]].mean()), rel=1e-6)
    assert measures["agreement"] == pytest.approx(float((log_q.argmax(dim=1) == log_p.argmax(dim=1)).double().mean()))
    assert measures["kl_to_teacher"] == pytest.approx(
        float((log_p.exp() * (log_p - log_q)).sum(dim=1).mean()), rel=1e-4
    )
