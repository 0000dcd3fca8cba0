"""agreement: equal top classes, overlap of the top k, and their order."""

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.metrics import accuracy_score
from torchmetrics.retrieval import RetrievalPrecision

from kdcache.errors import InvalidInputError
from tests.kits.labels import topk_labels
from tests.kits.measures import figures, full_teacher, measured, random_case, topk_teacher


def test_by_hand() -> None:
    """Teacher 3 > 2 > 1 > 0 in both rows. Row 1 of the student is 3 > 1 > 2 > 0, row 2 is 0 > 1 > 2 > 3.

    Top 3 of the teacher are 3, 2, 1. Row 1 holds all of them, in order but for the pair (2, 1): 2 of 3 pairs agree, 1
    does not. Row 2 holds 2 and 1, and all 3 pairs are the other way."""
    teacher = full_teacher(np.array([[0.0, 1.0, 2.0, 3.0]] * 2))
    student = torch.tensor([[0.0, 2.0, 1.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    values = figures(student, teacher, k=3)
    assert values["agreement"] == 1 / 2
    assert values["topk_overlap"] == pytest.approx((3 / 3 + 2 / 3) / 2, abs=1e-15)
    assert values["rank_agreement"] == pytest.approx((1 / 3 - 1.0) / 2, abs=1e-7)


def test_ties_of_the_student_count_0() -> None:
    teacher = full_teacher(np.array([[0.0, 1.0, 2.0]]))
    assert figures(torch.zeros(1, 3), teacher, k=3)["rank_agreement"] == 0.0
    assert figures(torch.tensor([[0.0, 0.0, 1.0]]), teacher, k=3)["rank_agreement"] == pytest.approx(2 / 3, abs=1e-7)


@pytest.mark.parametrize("k", [2, 5, 12])
def test_libraries_agree(k: int) -> None:
    case = random_case()
    values = figures(case.logits, full_teacher(case.teacher), k=k)
    tops = case.p.argmax(axis=1), case.q.argmax(axis=1)
    assert values["agreement"] == pytest.approx(accuracy_score(*tops), abs=1e-15)
    best = np.argsort(-case.teacher, axis=1)[:, :k]
    taus = [kendalltau(-np.arange(k), case.logits[row, best[row]]).statistic for row in range(len(best))]
    assert values["rank_agreement"] == pytest.approx(np.mean(taus), abs=1e-12)
    member = np.zeros(case.p.shape, dtype=bool)
    np.put_along_axis(member, best, True, axis=1)
    rows = torch.arange(len(best))[:, None].expand(case.p.shape).flatten()
    precision = RetrievalPrecision(top_k=k)(
        torch.from_numpy(case.q).flatten(), torch.from_numpy(member).flatten(), indexes=rows
    )
    assert values["topk_overlap"] == pytest.approx(float(precision), abs=1e-6)


def test_a_topk_store_says_the_same_exactly() -> None:
    case = random_case(classes=20)
    full = measured(case.logits, full_teacher(case.teacher))
    for soft in (topk_teacher(case.teacher, 6), topk_labels(case.teacher.astype(np.float32), np.zeros(300, int), 6)):
        topk = measured(case.logits, soft)
        for name in ("agreement", "topk_overlap", "rank_agreement"):
            assert topk[name].exactness == "exact"
            assert topk[name].value == pytest.approx(full[name].value, abs=1e-12)


def test_k_is_that_of_a_small_store_unless_it_is_given() -> None:
    case = random_case()
    by_default = figures(case.logits, topk_teacher(case.teacher, 3))
    assert by_default == figures(case.logits, topk_teacher(case.teacher, 3), k=3)
    assert by_default["topk_overlap"] == figures(case.logits, full_teacher(case.teacher), k=3)["topk_overlap"]
    with pytest.raises(InvalidInputError, match="top 4 classes are to be compared and the soft labels hold 3"):
        measured(case.logits, topk_teacher(case.teacher, 3), k=4)


def test_one_class_has_no_order() -> None:
    case = random_case()
    values = figures(case.logits, topk_teacher(case.teacher, 1))
    assert values["topk_overlap"] == values["agreement"]
    assert "rank_agreement" not in values
