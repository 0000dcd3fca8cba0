"""input trials: what counts as surely better, which classes trade places, which input preparations are tried."""

import numpy as np
import pytest
import torch

from kdcache.networks.input_trials import other_preparations, permutation_of, surely_better
from kdcache.networks.preparation import Preparation
from tests.kits.views import teacher_of


@pytest.mark.parametrize(("gained", "lost", "sure"), [(16, 0, False), (17, 0, True), (40, 10, True), (60, 40, False)])
def test_better_is_sure_from_four_standard_deviations_on(gained: int, lost: int, sure: bool) -> None:
    rows = np.arange(512)
    right = rows >= gained
    other = ~((rows >= gained) & (rows < gained + lost))
    assert surely_better(right, other) is sure


def test_a_teacher_of_many_classes_with_few_rows_each_has_no_permutation() -> None:
    labels = np.arange(1000) % 400  # 2 or 3 rows a label
    predicted = np.where(labels % 3, labels, labels + 500)  # a third is wrong, each in a way of its own
    assert permutation_of(predicted, labels) == {}


def test_only_classes_that_trade_places_are_a_permutation() -> None:
    labels = np.repeat(np.arange(6), 20)
    assert permutation_of(labels, labels) == {}
    assert permutation_of(np.array([1, 0, 2, 3, 4, 5])[labels], labels) == {0: 1, 1: 0}
    assert permutation_of(np.array([1, 2, 0, 3, 4, 5])[labels], labels) == {0: 1, 1: 2, 2: 0}
    assert permutation_of(np.array([1, 1, 2, 3, 4, 5])[labels], labels) == {}  # a class that is never answered
    assert permutation_of(np.array([1, 2, 2, 3, 5, 4])[labels], labels) == {4: 5, 5: 4}


@pytest.mark.parametrize(
    ("channels", "dtype", "scale", "fed", "count"),
    [
        (3, "uint8", 255, True, 5),
        (1, "uint8", 255, True, 2),
        (3, "float32", 255, True, 6),
        (3, "float32", 255, False, 4),
        (3, "float32", 1, True, 5),
        (3, "float32", 1, False, 4),
        (1, "float32", 1, False, 2),
        (3, "float32", -4, False, 1),
    ],
)
def test_input_preparations_differ_from_the_given_one_and_from_each_other(
    channels: int, dtype: str, scale: float, fed: bool, count: int
) -> None:
    teacher = teacher_of(channels=channels, **({} if fed else {"preparation": Preparation((), (), "cpu")}))
    view = (torch.rand(channels, 8, 8) * scale).to(getattr(torch, dtype))
    found = [prepare(view[None]) for prepare in [teacher.preparation, *other_preparations(teacher, view).values()]]
    assert len(found) == count + 1
    assert isinstance(teacher.preparation, Preparation)
    assert all(not torch.equal(a, b) for row, a in enumerate(found) for b in found[:row])
