"""cka: linear and debiased from sums over rows, and by batches."""

from itertools import permutations

import numpy as np
import pytest
import torch
from ckatorch.core import cka_base, cka_batch

from kdcache.errors import InvalidInputError
from kdcache.measures.cka import BatchTally, FeatureTally


def features(rows: int = 60, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's [B, 7] and the student's [B, 5], which depends on it; neither is centred."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(rows, 7, generator=generator, dtype=torch.float64) + 3.0
    noise = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    return teacher[:, :5].relu() + noise, teacher


def compared(tally: FeatureTally | BatchTally, student: torch.Tensor, teacher: torch.Tensor) -> dict[str, float]:
    tally.update(student, teacher)
    return {name: value.value for name, value in tally.result().items()}


def test_one_feature_by_hand() -> None:
    """CKA of one feature each is the squared correlation: x = (-1, 0, 1), y = (-1, -1, 2) / 3 when centred."""
    values = compared(FeatureTally(), torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [0.0], [1.0]]))
    assert values == {"cka": pytest.approx(1.0**2 / (2 * (6 / 9)) ** 1 * 1.0, abs=1e-12)}  # fewer than 4 rows
    assert values["cka"] == pytest.approx(0.75, abs=1e-12)


def hsic_1(k: np.ndarray, m: np.ndarray) -> float:
    """The U-statistic by its definition: the mean over all ordered quadruples of different rows i, j, q, r of
    K_ij (L_ij + L_qr - 2 L_iq)."""
    return float(
        np.mean([k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(len(k)), 4)])
    )


@pytest.mark.parametrize("tally", [FeatureTally, BatchTally])
def test_debiased_by_its_definition(tally: type[FeatureTally] | type[BatchTally]) -> None:
    student, teacher = features(8)
    grams = [(values @ values.T).numpy() for values in (student, teacher)]
    xy, xx, yy = (hsic_1(a, b) for a, b in ((grams[0], grams[1]), (grams[0], grams[0]), (grams[1], grams[1])))
    name = "cka_debiased" if tally is FeatureTally else "cka_minibatch"
    assert compared(tally(), student, teacher)[name] == pytest.approx(xy / (xx * yy) ** 0.5, abs=1e-9)


def test_ckatorch_agrees() -> None:
    student, teacher = features()
    values = compared(FeatureTally(), student, teacher)
    assert values["cka"] == pytest.approx(float(cka_base(student, teacher)), abs=1e-9)
    assert values["cka_debiased"] == pytest.approx(float(cka_base(student, teacher, unbiased=True)), abs=1e-9)
    assert 0.1 < values["cka_debiased"] < values["cka"] < 0.9
    tally = BatchTally()
    for rows in torch.arange(60).split(12):
        tally.update(student[rows], teacher[rows])
    batches = cka_batch(student.unflatten(0, (5, 12)), teacher.unflatten(0, (5, 12)))
    assert tally.result()["cka_minibatch"].value == pytest.approx(float(batches), abs=1e-9)
    assert tally.result()["cka_minibatch"].exactness == "estimate"


def test_rotation_and_scale_change_nothing_and_maps_are_flattened() -> None:
    _, teacher = features()
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    values = compared(FeatureTally(), 5.0 * teacher @ rotation, teacher)
    assert [values["cka"], values["cka_debiased"]] == pytest.approx([1.0, 1.0], abs=1e-9)
    maps = teacher[:, :6].unflatten(1, (2, 3, 1)).to(torch.float16)
    assert compared(FeatureTally(), maps, maps)["cka"] == pytest.approx(1.0, abs=1e-9)


def test_parts_are_the_whole_in_any_order() -> None:
    student, teacher = features()
    whole = compared(FeatureTally(), student, teacher)
    parts = []
    for rows in torch.arange(60).split([1, 0, 17, 2, 40]):
        part = FeatureTally()
        part.update(student[rows], teacher[rows])
        parts.append(part)
    total = parts[3] + (parts[0] + FeatureTally()) + (parts[4] + parts[1]) + parts[2]
    values = total.result()
    assert {value.rows for value in values.values()} == {60}
    assert {name: value.value for name, value in values.items()} == pytest.approx(whole, abs=1e-10)
    halves = [BatchTally(), BatchTally()]
    both = BatchTally()
    for half, rows in zip(halves, (slice(0, 30), slice(30, 60)), strict=True):
        half.update(student[rows], teacher[rows])
        both.update(student[rows], teacher[rows])
    both.update(student[:0], teacher[:0])
    assert (halves[1] + halves[0]).result() == both.result()


def test_errors_name_what_is_wrong() -> None:
    student, teacher = features(5)
    tally = FeatureTally()
    with pytest.raises(InvalidInputError, match="0 rows"):
        tally.result()
    tally.update(student[:1], teacher[:1])
    with pytest.raises(InvalidInputError, match="1 rows; it compares rows: give 2"):
        tally.result()
    with pytest.raises(InvalidInputError, match="features of 5 rows and the teacher of 4"):
        tally.update(student, teacher[:4])
    with pytest.raises(InvalidInputError, match=r"\[5, 7\] features .* now of \[5, 6\]"):
        tally.update(student, teacher[:, :6])
    with pytest.raises(InvalidInputError, match="teacher's features of row 2 hold NaN"):
        tally.update(student, teacher.index_fill(0, torch.tensor([2]), torch.nan))
    with pytest.raises(InvalidInputError, match="student's tap has 5000 features, at most 4096"):
        tally.update(torch.zeros(5, 50, 10, 10), teacher)
    with pytest.raises(InvalidInputError, match="a batch of 3 rows; HSIC_1 needs 4"):
        BatchTally().update(student[:3], teacher[:3])
    with pytest.raises(InvalidInputError, match="0 rows"):
        BatchTally().result()


def test_features_that_do_not_vary_have_no_cka() -> None:
    tally = FeatureTally()
    tally.update(torch.ones(6, 3), torch.eye(6))
    assert tally.result() == {}
