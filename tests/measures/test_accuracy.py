"""accuracy: hits overall, among five, by class, balanced and of the worst classes."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score, top_k_accuracy_score
from torchmetrics.classification import MulticlassAccuracy

from tests.kits.measures import figures, measured, random_case


def decided(classes: list[int], count: int) -> torch.Tensor:
    """Logits [B, C] whose largest is that of a class."""
    return torch.nn.functional.one_hot(torch.tensor(classes), count).double()


def test_by_hand() -> None:
    """Class 0: 2 of 2 rows found; class 1: 1 of 2; class 2: 0 of 2; class 3 has no row."""
    values = measured(decided([0, 0, 1, 2, 0, 3], 4), hard=[0, 0, 1, 1, 2, 2])
    assert values["accuracy"].value == 3 / 6
    assert values["balanced_accuracy"].by_class == (1.0, 0.5, 0.0, None)
    assert values["balanced_accuracy"].value == (1.0 + 0.5 + 0.0) / 3
    assert values["worst_class"].value == 0.0
    assert values["worst_3_classes"].value == (0.0 + 0.5 + 1.0) / 3
    assert values["worst_tenth"].value == 0.0  # ceil(3 / 10) = 1 class
    assert values["top5_accuracy"].value == 1.0  # of 4 classes all are among five
    assert {values[name].rows for name in values} == {6}


def test_top_5_by_hand() -> None:
    """Logits fall with the class: classes 0 to 4 are the top five of seven."""
    logits = -torch.arange(7.0).expand(3, 7)
    assert figures(logits, hard=[0, 4, 5])["top5_accuracy"] == pytest.approx(2 / 3, abs=1e-15)


def test_worst_tenth_of_21_classes_is_three_classes() -> None:
    hard = list(range(21))
    decisions = [0 if label in (3, 4, 5, 6) else label for label in hard]  # recall 0 for four classes, 1 for 17
    values = figures(decided(decisions, 21), hard=hard)
    assert (values["worst_tenth"], values["worst_3_classes"]) == (0.0, 0.0)
    decisions = [0 if label in (3, 4) else label for label in hard]
    assert figures(decided(decisions, 21), hard=hard)["worst_tenth"] == pytest.approx(1 / 3, abs=1e-15)


def test_libraries_agree() -> None:
    case = random_case(classes=30)
    decisions = case.q.argmax(axis=1)[case.known]
    values = measured(case.logits, hard=case.hard)
    recalls = np.sort(recall_score(case.y, decisions, average=None, labels=np.unique(case.y), zero_division=0))
    by_class = MulticlassAccuracy(30, average=None)(torch.from_numpy(decisions), torch.from_numpy(case.y))
    assert values["accuracy"].value == pytest.approx((decisions == case.y).mean(), abs=1e-15)
    assert values["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(case.y, decisions), abs=1e-15)
    assert [entry or 0.0 for entry in values["balanced_accuracy"].by_class] == pytest.approx(
        by_class.tolist(), abs=1e-6
    )
    assert values["worst_class"].value == pytest.approx(recalls[0], abs=1e-15)
    assert values["worst_3_classes"].value == pytest.approx(recalls[:3].mean(), abs=1e-15)
    assert values["worst_tenth"].value == pytest.approx(recalls[:3].mean(), abs=1e-15)
    top_5 = top_k_accuracy_score(case.y, case.q[case.known], k=5, labels=np.arange(30))
    assert values["top5_accuracy"].value == pytest.approx(top_5, abs=1e-15)
    assert values["accuracy"].rows == case.known.sum()
