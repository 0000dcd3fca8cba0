"""divergence: KL both ways, Jensen-Shannon, total variation; exact, by sketch, or bounds that hold."""

from math import inf, log, sqrt

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial.distance import cityblock, jensenshannon
from scipy.special import rel_entr

from kdcache.measures.tally import Tally
from kdcache.objectives.targets import Targets
from tests.kits.labels import topk_labels
from tests.kits.measures import figures, full_teacher, logs, measured, random_case, teacher_of, topk_teacher

NAMES = ("kl_to_teacher", "least_kl_to_teacher", "kl_from_teacher", "jensen_shannon", "total_variation")


def test_by_hand() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4), so m = (3/8, 5/8)."""
    values = figures(logs([[1 / 4, 3 / 4]]), teacher_of([[1 / 2, 1 / 2]]))
    assert values["kl_to_teacher"] == pytest.approx(1 / 2 * log(2) + 1 / 2 * log(2 / 3), abs=1e-15)
    assert values["kl_from_teacher"] == pytest.approx(1 / 4 * log(1 / 2) + 3 / 4 * log(3 / 2), abs=1e-15)
    to_m = 1 / 2 * log(4 / 3) + 1 / 2 * log(4 / 5) + 1 / 4 * log(2 / 3) + 3 / 4 * log(6 / 5)
    assert values["jensen_shannon"] == pytest.approx(to_m / 2, abs=1e-15)
    assert values["total_variation"] == pytest.approx(1 / 4, abs=1e-15)


def test_scipy_agrees() -> None:
    case = random_case()
    values = measured(case.logits, full_teacher(case.teacher))
    p, q = case.p, case.q
    assert values["kl_to_teacher"].value == pytest.approx(rel_entr(p, q).sum(axis=1).mean(), abs=1e-12)
    assert values["kl_from_teacher"].value == pytest.approx(rel_entr(q, p).sum(axis=1).mean(), abs=1e-12)
    assert values["jensen_shannon"].value == pytest.approx((jensenshannon(p, q, axis=1) ** 2).mean(), abs=1e-12)
    halves = [cityblock(*row) / 2 for row in zip(p, q, strict=True)]
    assert values["total_variation"].value == pytest.approx(np.mean(halves), abs=1e-12)
    assert {values[name].exactness for name in NAMES} == {"exact"}


def test_f32_logits_are_as_good_as_f32() -> None:
    case = random_case(classes=200)
    teacher = full_teacher(case.teacher.astype(np.float32))
    narrow, wide = figures(case.logits.float(), teacher), figures(case.logits, full_teacher(case.teacher))
    assert [narrow[name] for name in NAMES] == pytest.approx([wide[name] for name in NAMES], rel=2e-6)


def test_a_student_who_equals_the_teacher_differs_by_nothing() -> None:
    case = random_case()
    for soft in (full_teacher(case.teacher), topk_teacher(case.teacher, 12)):
        values = figures(torch.from_numpy(case.teacher), soft)
        assert [values[name] for name in NAMES] == pytest.approx([0.0] * 5, abs=1e-6)
        assert all(values[name] >= 0.0 for name in NAMES)
    bounds = figures(torch.from_numpy(case.teacher), topk_teacher(case.teacher, 3))
    assert [bounds[name] for name in NAMES[1:]] == pytest.approx([0.0] * 4, abs=1e-6)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_a_topk_store_says_what_it_can(k: int) -> None:
    case = random_case(classes=30)
    exact = figures(case.logits, full_teacher(case.teacher))
    topk = measured(case.logits, topk_teacher(case.teacher, k))
    assert [topk[name].exactness for name in NAMES] == ["sketch", "bound", "bound", "bound", "bound"]
    assert {topk[name].inexact_rows for name in NAMES} == {300}
    for name in NAMES[1:]:
        assert topk[name].value <= exact[name] + 1e-9
    if k == 10:
        assert topk["kl_to_teacher"].value == pytest.approx(exact["kl_to_teacher"], rel=0.1)
        assert all(topk[name].value > 0.6 * exact[name] for name in NAMES[1:])


@pytest.mark.parametrize(("noise", "above"), [(0.05, 100), (0.2, 10), (1.0, 1.3), (3.0, 1.0)])
def test_on_a_real_teacher_the_truth_lies_between_bound_and_sketch(
    real_logits: npt.NDArray[np.float32], noise: float, above: float
) -> None:
    """EfficientNet-lite0, k = 20 of 1000 as in a store; the student is the teacher with noise."""
    student = torch.from_numpy(real_logits + np.random.RandomState(0).normal(0, noise, real_logits.shape))
    exact = figures(student, full_teacher(real_logits.astype(np.float64)))
    topk = figures(student, topk_labels(real_logits, np.zeros(len(real_logits), int), 20))
    assert above * exact["kl_to_teacher"] < topk["kl_to_teacher"]
    for name in NAMES[1:]:
        assert 0.6 * exact[name] < topk[name] < exact[name]


def test_the_sketch_is_the_loss_of_training() -> None:
    case = random_case(classes=30)
    soft = topk_labels(case.teacher.astype(np.float32), np.zeros(300, int), 6)
    loss = Targets((soft.to(dtype=torch.float64),)).kl_of_logits(case.logits, 1.0).mean()
    assert figures(case.logits, soft)["kl_to_teacher"] == pytest.approx(float(loss), rel=1e-9)


@pytest.mark.parametrize("k", [11, 12])
def test_a_tail_of_one_class_or_none_is_exact(k: int) -> None:
    case = random_case()
    exact, topk = (
        measured(case.logits, full_teacher(case.teacher)),
        measured(case.logits, topk_teacher(case.teacher, k)),
    )
    for name in NAMES:
        assert topk[name].exactness == "exact"
        assert topk[name].inexact_rows == 0
        assert topk[name].value == pytest.approx(exact[name].value, abs=1e-6)


def test_batches_of_both_kinds_are_labelled_by_the_worse() -> None:
    case = random_case()
    tally = Tally(["jensen_shannon"], k=4)
    tally.update(case.logits, full_teacher(case.teacher))
    tally.update(case.logits[:40], topk_teacher(case.teacher[:40], 4))
    value = tally.result()["jensen_shannon"]
    assert (value.rows, value.exactness, value.inexact_rows) == (340, "bound", 40)


def test_masked_classes_are_infinitely_far_one_way() -> None:
    """The teacher masks class 2, to which the student gives 1 / 5: p = (1/2, 1/2, 0), q = (2/5, 2/5, 1/5)."""
    logits, teacher = logs([[0.4, 0.4, 0.2]]), np.zeros((1, 3))
    for soft in (full_teacher(teacher, (2,)), topk_teacher(teacher, 2, (2,)), topk_teacher(teacher, 1, (2,))):
        values = figures(logits, soft)
        assert values["kl_from_teacher"] == inf
        assert values["kl_to_teacher"] == pytest.approx(log(5 / 4), abs=1e-7)
        assert values["total_variation"] == pytest.approx(1 / 5, abs=1e-7)
        distance = sqrt(values["jensen_shannon"])
        assert distance == pytest.approx(jensenshannon([0.5, 0.5, 0.0], [0.4, 0.4, 0.2]), abs=1e-6)


def test_far_logits_underflow_without_nan() -> None:
    """exp(-200) is 0 in f32."""
    logits = torch.tensor([[200.0, 0.0, 0.0]])
    for soft in (
        full_teacher(np.array([[0.0, 200.0, 0.0]], np.float32)),
        topk_teacher(np.array([[0.0, 200.0, 0.0]]), 1),
    ):
        values = figures(logits, soft)
        assert values["kl_to_teacher"] == pytest.approx(200.0, rel=1e-5)
        assert values["total_variation"] == pytest.approx(1.0, abs=1e-6)
        assert values["jensen_shannon"] == pytest.approx(log(2), abs=1e-6)
        assert np.isfinite(list(values.values())).all()
