"""Row trials: few rows are asked, a better feeding is found, and a right one is not suspected."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.networks.checks import check_teacher, require_determinism
from kdcache.networks.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation
from kdcache.networks.teacher import Teacher
from kdcache.networks.teacher_check import TeacherCheck
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.transforms import build_transform
from tests.kits.views import digits, picture_data, plan_of, view_dataset

ROWS, CLASSES = 512, 4
FIRST, FURTHER = 64, 500
FEEDINGS = {
    "ImageNet's mean and std": (IMAGENET_MEAN, IMAGENET_STD),
    "mean 0.5 and std 0.5": ((0.5,) * 3, (0.5,) * 3),
    "values from 0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "values from 0 to 255": ((0.0,) * 3, (1 / 255.0,) * 3),
}


def pixels_of(images: Tensor, feeding: str) -> Tensor:
    """The 8-bit values of network input."""
    mean, std = (torch.tensor(values)[:, None, None] for values in FEEDINGS[feeding])
    return 255 * (images * std + mean)


def is_fed_by(name: str, images: Tensor) -> bool:
    """True where the third channel holds 77 and all values are whole, by this feeding."""
    pixels = pixels_of(images, name)
    return bool((pixels - pixels.round()).abs().max() < 1e-2) and bool((pixels[:, 2].round() == 77).all())


class Oracle(nn.Module):
    """A network that knows the label of a row by its number, which the row's pixels hold, and is right on a share of
    the rows by the feeding that it recognises. `asked` counts rows."""

    def __init__(
        self, labels: Any, shares: dict[str, float], *, head: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.labels, self.shares, self.asked, self.head = torch.from_numpy(labels).long(), shares, 0, head
        self.draws = {name: torch.from_numpy(np.random.RandomState(7).rand(len(labels))) for name in shares}

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        name = next((name for name in FEEDINGS if is_fed_by(name, images)), "none of them")
        numbers = pixels_of(images, name) if name in FEEDINGS else torch.zeros_like(images)
        rows = (numbers[:, 0, 0, 0].round() + 256 * numbers[:, 1, 0, 0].round()).long().clamp(0, len(self.labels) - 1)
        is_right = self.draws[name][rows] < self.shares[name] if name in self.shares else torch.zeros(len(rows)) > 0
        answers = torch.where(is_right, self.labels[rows], (self.labels[rows] + 1 + rows % (CLASSES - 1)) % CLASSES)
        logits = 4.0 * nn.functional.one_hot(answers, CLASSES) + 0.1 * torch.arange(CLASSES)
        return logits if self.head is None else self.head(logits)


class Numbered:
    """Pictures whose pixels hold their number; the third channel is always 77."""

    def __init__(self, labels: Any, dtype: str) -> None:
        self.labels, self.dtype = labels, dtype

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = torch.tensor([index % 256, index // 256, 77], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
        return pixels.clone() if self.dtype == "uint8" else pixels / 255.0, int(self.labels[index])


def checked(
    shares: dict[str, float],
    *,
    fed: str = "ImageNet's mean and std",
    dtype: str = "uint8",
    labelled: bool = True,
    min_accuracy: float | None = None,
    head: Callable[[Tensor], Tensor] | None = None,
    is_new: bool = True,
) -> Iterator[Any]:
    labels = np.random.RandomState(1).randint(0, CLASSES, ROWS).astype(np.int32)
    network = Oracle(labels, shares, head=head)
    data = replace(
        digits(10),
        samples=Numbered(labels, dtype),
        ids=[str(row) for row in range(ROWS)],
        labels=labels if labelled else np.full_like(labels, -1),
        class_names=tuple("abcd"),
    )
    mean, std = FEEDINGS[fed] if fed else ((), ())
    teacher = Teacher(network, preparation=Preparation(mean, std, "cpu"))
    order = np.random.RandomState(2).permutation(ROWS)
    dataset = ViewDataset(data.samples, order, plan_of("none"), build_transform("none", {})[0])
    reports: list[tuple[str, int, int]] = []
    try:
        result: Any = check_teacher(
            teacher, data, order=order, dataset=dataset, min_accuracy=min_accuracy, is_new=is_new,
            progress=lambda *report: reports.append(report),
        )  # fmt: skip
    except (TeacherSuspectError, InvalidInputError) as error:
        result = error
    yield result
    yield network.asked
    yield reports


@pytest.mark.parametrize("accuracy", [1.0, 0.99, 0.95, 0.9, 0.8, 0.7])
@pytest.mark.parametrize("other", [0.25, 0.5, 0.9])
def test_a_right_feeding_passes_at_bounded_cost(accuracy: float, other: float) -> None:
    shares = dict.fromkeys(FEEDINGS, other * accuracy) | {"ImageNet's mean and std": accuracy}
    result, asked, reports = checked(shares)
    assert isinstance(result, TeacherCheck)
    assert result.notes == ()
    assert result.accuracy == pytest.approx(accuracy, abs=0.13)
    assert asked <= FIRST + FURTHER
    assert [count for _, count, _ in reports] == sorted(count for _, count, _ in reports)
    assert reports[-1] == ("checking the teacher", asked, asked)


def test_a_perfect_teacher_is_asked_about_the_first_rows_alone() -> None:
    result, asked, _ = checked(dict.fromkeys(FEEDINGS, 1.0))
    assert result.accuracy == 1.0
    assert asked == FIRST + 32  # 32 of them again, in threes


def test_where_few_rows_are_wrong_no_other_feeding_is_asked() -> None:
    result, asked, _ = checked({**dict.fromkeys(FEEDINGS, 1.0), "ImageNet's mean and std": 0.99})
    assert result.accuracy < 1.0
    assert asked == FIRST + 32


@pytest.mark.parametrize("accuracy", [0.95, 0.9, 0.8, 0.7])
def test_useless_feedings_are_dropped_after_a_few_rows_each(accuracy: float) -> None:
    """Six others, about 12 misses and 8 hits each at most, and one more chunk."""
    result, asked, _ = checked({**dict.fromkeys(FEEDINGS, 0.25), "ImageNet's mean and std": accuracy})
    assert isinstance(result, TeacherCheck)
    assert asked <= FIRST + 32 + 6 * (12 + 8)


@pytest.mark.parametrize("fed", ["mean 0.5 and std 0.5", "values from 0 to 1", "values from 0 to 255"])
@pytest.mark.parametrize(("wrong", "right"), [(0.3, 0.95), (0.6, 0.95), (0.7, 0.99), (0.1, 0.6)])
def test_a_wrong_feeding_is_found_and_the_right_one_named(fed: str, wrong: float, right: float) -> None:
    result, asked, _ = checked({**dict.fromkeys(FEEDINGS, wrong), "ImageNet's mean and std": right}, fed=fed)
    assert isinstance(result, TeacherSuspectError)
    assert "fed with ImageNet's mean and std it would be 0." in str(result)
    assert asked <= FIRST + FURTHER


def test_floats_that_nobody_normalised_are_tried_as_such() -> None:
    shares = {"values from 0 to 1": 0.5, "ImageNet's mean and std": 0.97}
    result, asked, _ = checked(shares, fed="", dtype="float32")
    assert isinstance(result, TeacherSuspectError)
    assert "fed with ImageNet's mean and std it would be 0." in str(result)
    assert asked <= FIRST + FURTHER
    passed, _, _ = checked({"values from 0 to 1": 0.97}, fed="", dtype="float32")
    assert passed.accuracy > 0.9
    normalised, _, _ = checked(shares, dtype="float32")
    assert normalised.accuracy > 0.9


def test_few_rows_are_asked_where_nothing_can_be_found_and_where_nothing_is_labelled() -> None:
    result, asked, _ = checked(dict.fromkeys(FEEDINGS, 0.25))
    assert isinstance(result, TeacherSuspectError)
    assert "below 0.438" in str(result)
    assert asked <= FIRST + FURTHER
    nobody, asked, _ = checked(dict.fromkeys(FEEDINGS, 0.25), labelled=False)
    assert (nobody.accuracy, asked) == (None, 64)
    vouched, asked, _ = checked(dict.fromkeys(FEEDINGS, 0.5), min_accuracy=0.0)
    assert vouched.accuracy == pytest.approx(0.5, abs=0.13)
    assert asked == FIRST + 32


@pytest.mark.parametrize("labelled", [True, False])
def test_probabilities_are_refused_and_a_store_that_stands_goes_on_with_them(labelled: bool) -> None:
    shares = dict.fromkeys(FEEDINGS, 1.0)
    refused, _, _ = checked(shares, labelled=labelled, head=lambda z: z.softmax(dim=1))
    assert isinstance(refused, InvalidInputError)
    assert "--teacher-answers probs" in str(refused)
    going_on, _, _ = checked(shares, labelled=labelled, head=lambda z: z.softmax(dim=1), is_new=False)
    assert "--teacher-answers probs" in going_on.notes[0]
    logs, _, _ = checked(shares, labelled=labelled, head=lambda z: z.log_softmax(dim=1))
    assert logs.notes == ()
    sigmoids, _, _ = checked(shares, labelled=labelled, head=torch.sigmoid)
    assert "sigmoid" in sigmoids.notes[0]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("head", "text"),
    [
        (lambda z: 100 * z.softmax(dim=1), "all 64 rows asked lie in 0..100 and sum to 100"),
        (lambda z: (z > 0.15).float(), "zeros and ones alone"),
        (lambda z: 0 * z + torch.arange(CLASSES), "64 views that differ one and the same answer"),
        (lambda z: 0 * z, "one and the same answer"),
        (lambda z: (0 * z).softmax(dim=1), "one and the same answer"),
        (lambda z: 0 * z + torch.tensor([1.0, -torch.inf, 0.0, 0.0]), "one and the same answer"),
    ],
)
def test_numbers_that_are_no_logits_are_refused(head: Any, text: str, labelled: bool) -> None:
    shares = dict.fromkeys(FEEDINGS, 1.0)
    refused, asked, _ = checked(shares, labelled=labelled, head=head, min_accuracy=0.0)
    assert isinstance(refused, InvalidInputError | TeacherSuspectError)
    assert (text if labelled else text.replace("64", "32")) in str(refused)
    assert asked <= FIRST + FURTHER
    going_on, _, _ = checked(shares, labelled=labelled, head=head, min_accuracy=0.0, is_new=False)
    assert isinstance(going_on, TeacherCheck)


@pytest.mark.parametrize(
    "head",
    [
        torch.log_softmax,
        lambda z, dim: z - z.mean(dim=dim, keepdim=True),
        lambda z, dim: 100 * z,
        lambda z, dim: z.sign() * 0.4,
        lambda z, dim: z.relu(),
        lambda z, dim: nn.functional.normalize(z, dim=dim),
        lambda z, dim: 1e-4 * z,
    ],
)
def test_logits_of_any_form_pass(head: Any) -> None:
    result, _, _ = checked(dict.fromkeys(FEEDINGS, 1.0), head=lambda z: head(z - 2, dim=1), min_accuracy=0.0)
    assert isinstance(result, TeacherCheck)
    assert result.notes == ()


def test_views_that_are_all_equal_are_said_where_several_were_asked_for() -> None:
    data: Data = picture_data(20)
    same, flips = build_transform("none", {})[0], build_transform("light", {})[0]
    assert require_determinism(view_dataset(data.samples, same), 0) == ()
    assert require_determinism(view_dataset(data.samples, flips), 0, views_asked=5) == ()
    notes = require_determinism(view_dataset(data.samples, same), 3, views_asked=5)
    assert len(notes) == 1
    assert "views 3 and 4 are equal on all 16 samples" in notes[0]
    assert "5 views" in notes[0]
    assert require_determinism(view_dataset(data.samples, same, "mixup"), 0, views_asked=5) == ()


def test_a_size_that_is_not_obeyed_is_said() -> None:
    data: Data = picture_data(20)
    dataset = ViewDataset(data.samples, np.arange(20), plan_of("center", size=5), build_transform("none", {})[0])
    assert "though center has size 5" in require_determinism(dataset, 0)[0]
