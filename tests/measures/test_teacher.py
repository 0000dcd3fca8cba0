"""teacher: entropy, margin and the hard label's rank, from full and from top-k stores."""

from math import log

import numpy as np
import pytest
import torch
from scipy.stats import entropy, rankdata

from kdcache.measures.two_results import affinity, fidelity_gap
from tests.kits.labels import topk_labels
from tests.kits.measures import figures, full_teacher, logs, measured, random_case, teacher_of, topk_teacher


def test_by_hand() -> None:
    """Rows (1/2, 1/4, 1/4) with label 0 and (1/8, 1/8, 3/4) with label 1; equal probabilities share the better rank."""
    values = figures(logs([[0.2, 0.3, 0.5]] * 2), teacher_of([[1 / 2, 1 / 4, 1 / 4], [1 / 8, 1 / 8, 3 / 4]]), [0, 1])
    first = 1 / 2 * log(2) + 2 * 1 / 4 * log(4)
    second = 2 * 1 / 8 * log(8) + 3 / 4 * log(4 / 3)
    assert values["teacher_entropy"] == pytest.approx((first + second) / 2, abs=1e-12)
    assert values["teacher_margin"] == pytest.approx((1 / 4 + 5 / 8) / 2, abs=1e-12)
    assert values["teacher_label_rank"] == (1 + 2) / 2


def test_scipy_agrees() -> None:
    case = random_case()
    values = measured(case.logits, full_teacher(case.teacher), case.hard)
    ranks = rankdata(-case.teacher, method="min", axis=1)[case.known, case.y]
    best = np.sort(case.p, axis=1)
    assert values["teacher_entropy"].value == pytest.approx(entropy(case.p, axis=1).mean(), abs=1e-12)
    assert values["teacher_margin"].value == pytest.approx((best[:, -1] - best[:, -2]).mean(), abs=1e-12)
    assert values["teacher_label_rank"].value == pytest.approx(ranks.mean(), abs=1e-12)
    assert (values["teacher_label_rank"].rows, values["teacher_entropy"].rows) == (case.known.sum(), 300)


def test_a_topk_store_says_what_it_can() -> None:
    case = random_case(classes=30)
    full = measured(case.logits, full_teacher(case.teacher), case.hard)
    for soft in (topk_teacher(case.teacher, 5), topk_labels(case.teacher.astype(np.float32), case.hard.numpy(), 5)):
        topk = measured(case.logits, soft, case.hard)
        names = ("teacher_entropy", "teacher_margin", "teacher_label_rank")
        assert [topk[name].exactness for name in names] == ["sketch", "exact", "bound"]
        assert topk["teacher_entropy"].value == pytest.approx(full["teacher_entropy"].value, abs=0.03)
        assert topk["teacher_margin"].value == pytest.approx(full["teacher_margin"].value, abs=2e-3)
        ranks = rankdata(-case.teacher, method="min", axis=1)[case.known, case.y]
        assert topk["teacher_label_rank"].value == pytest.approx(np.minimum(ranks, 6).mean(), abs=1e-12)
        assert topk["teacher_label_rank"].inexact_rows == (ranks > 5).sum()
        assert topk["teacher_label_rank"].value <= full["teacher_label_rank"].value


def test_labels_among_the_kept_classes_have_exact_ranks() -> None:
    case = random_case()
    hard = torch.from_numpy(case.teacher.argmax(axis=1))
    value = measured(case.logits, topk_teacher(case.teacher, 3), hard)["teacher_label_rank"]
    assert (value.value, value.exactness, value.inexact_rows) == (1.0, "exact", 0)


def test_the_margin_of_one_kept_class_is_not_known() -> None:
    case = random_case()
    assert "teacher_margin" not in measured(case.logits, topk_teacher(case.teacher, 1))


def test_results_are_compared() -> None:
    assert affinity(0.6, 0.8) == pytest.approx(0.75, abs=1e-15)
    assert np.isnan(affinity(0.6, 0.0))
    assert fidelity_gap(0.9, 0.7) == pytest.approx(0.2, abs=1e-15)
