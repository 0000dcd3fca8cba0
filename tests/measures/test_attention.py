"""attention: the IoU of where two networks look."""

import numpy as np
import pytest
import torch
from skimage.transform import resize
from torchmetrics.classification import BinaryJaccardIndex

from kdcache.errors import InvalidInputError
from kdcache.measures.attention import AttentionTally


def iou(*arguments: object, size: tuple[int, int]) -> float:
    tally = AttentionTally(size)
    tally.update(*arguments)  # type: ignore[arg-type]
    return tally.result()["attention_iou"].value


def test_by_hand() -> None:
    """Both maps have two channels of 2 x 2. The student's head weighs them (1, 0) for class 0 and (0, 1) for class 1,
    so the sum over classes is 5 1 / 0 5, of which 1 and 3 are above .4 of the range; the teacher's is 5 0 / 0 0."""
    student = torch.tensor([[[[4.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 5.0]]]])
    teacher = torch.tensor([[[[5.0, 0.0], [0.0, 0.0]]]])
    heads = torch.eye(2), torch.tensor([[1.0], [0.0]])
    assert iou((student, heads[0]), (teacher, heads[1]), size=(2, 2)) == 1 / 2
    assert iou((student, heads[0]), (teacher, heads[1]), torch.tensor([0]), size=(2, 2)) == 1.0  # class 0: 4 1 / 0 0


def test_libraries_agree() -> None:
    """skimage resizes and torchmetrics compares, row by row."""
    rng = np.random.RandomState(0)
    maps = [rng.rand(6, channels, side, side) for channels, side in ((4, 3), (7, 5))]
    heads = [rng.normal(size=(10, channels)) for channels in (4, 7)]
    labels = rng.randint(0, 10, 6)
    for by_label in (False, True):
        values = []
        for row in range(6):
            masks = []
            for map_, head in zip(maps, heads, strict=True):
                weight = head[labels[row]] if by_label else head.sum(axis=0)
                attention = np.tensordot(weight, map_[row], axes=1)
                attention = resize(attention, (16, 16), order=1, mode="edge", anti_aliasing=False)
                attention = (attention - attention.min()) / (attention.max() - attention.min())
                masks.append(torch.from_numpy(attention > 0.4))
            values.append(float(BinaryJaccardIndex()(masks[0].int(), masks[1].int())))
        sides = [(torch.from_numpy(map_), torch.from_numpy(head)) for map_, head in zip(maps, heads, strict=True)]
        value = iou(*sides, torch.from_numpy(labels) if by_label else None, size=(16, 16))
        assert value == pytest.approx(np.mean(values), abs=1e-6)


def test_parts_are_the_whole_and_flat_maps_are_left_out() -> None:
    maps = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    other, head = maps.roll(1, dims=3), torch.rand(5, 3, generator=torch.Generator().manual_seed(2))
    maps[4], other[4] = 1.0, 2.0  # neither varies: there is no attention
    whole = AttentionTally((8, 8))
    whole.update((maps, head), (other, head))
    parts = []
    for rows in torch.arange(9).split([2, 0, 6, 1]):
        part = AttentionTally((8, 8))
        part.update((maps[rows], head), (other[rows], head))
        parts.append(part)
    total = (parts[3] + parts[1] + (parts[0] + parts[2])).result()["attention_iou"]
    assert total.rows == 8
    assert total.value == pytest.approx(whole.result()["attention_iou"].value, abs=1e-12)
    assert AttentionTally((8, 8)).result() == {}


def test_errors_name_what_is_wrong() -> None:
    tally, good = AttentionTally((4, 4)), (torch.zeros(2, 3, 2, 2), torch.zeros(5, 3))
    with pytest.raises(InvalidInputError, match=r"teacher's map has the shape \(2, 3, 2, 2\) and its head \(5, 4\)"):
        tally.update(good, (good[0], torch.zeros(5, 4)))
    with pytest.raises(InvalidInputError, match="student's map has 2 rows and the teacher's 1"):
        tally.update(good, (good[0][:1], good[1]))
    with pytest.raises(InvalidInputError, match=r"labels are 0 to 5; the student's head has 5 classes"):
        tally.update(good, good, torch.tensor([0, 5]))
    with pytest.raises(InvalidInputError, match=r"labels have the shape \(3,\) for the student's map of 2 rows"):
        tally.update(good, good, torch.tensor([0, 1, 2]))
    with pytest.raises(InvalidInputError, match="student's map holds NaN"):
        tally.update((good[0] + torch.nan, good[1]), good)
    with pytest.raises(InvalidInputError, match=r"\(4, 4\) and to \(8, 8\)"):
        tally + AttentionTally((8, 8))
