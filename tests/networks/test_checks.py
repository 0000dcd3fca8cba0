"""checks: a transform that does not replay is refused, and so is a teacher that is fed wrongly."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.networks.checks import check_teacher, require_determinism
from kdcache.networks.preparation import Preparation
from kdcache.networks.teacher import Teacher
from kdcache.networks.teacher_check import twice_chance
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.transforms import build_transform
from tests.kits.views import (
    TRANSFORMS,
    OwnGenerator,
    Stateful,
    digits,
    pictures,
    plan_of,
    random_teacher,
    teacher_of,
    trained_network,
    view_dataset,
)


def test_a_transform_that_replays_passes_and_leaves_the_generators_alone() -> None:
    transform = v2.Compose([TRANSFORMS["RandAugment"](), TRANSFORMS["RandomResizedCrop"]()])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    require_determinism(view_dataset(pictures(40), transform, "cutmix"), 3)
    assert torch.equal(torch.get_rng_state(), state)
    require_determinism(view_dataset(pictures(1), v2.ToDtype(torch.float32)), 0)


@pytest.mark.parametrize("make", [OwnGenerator, Stateful])
def test_a_transform_with_a_generator_or_state_of_its_own_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"view [01] of sample \d+ differs when it is drawn again.*keeps state"):
        require_determinism(view_dataset(pictures(20), make()), 0)


def test_a_data_set_that_is_not_deterministic_is_refused() -> None:
    class Noisy:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8), 0

    with pytest.raises(InvalidInputError, match="the data set or the transform has a generator of its own"):
        require_determinism(view_dataset(Noisy(), v2.Identity()), 0)


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(600)


def checked(teacher: Teacher, data: Data, *, name: str = "light", min_accuracy: float | None = None) -> float | None:
    order = np.random.RandomState(2).permutation(len(data))
    dataset = ViewDataset(data.samples, order, plan_of(name), build_transform(name, {})[0])
    return check_teacher(teacher, data, order=order, dataset=dataset, min_accuracy=min_accuracy).accuracy


def test_a_good_teacher_passes_on_clean_rows(data: Data) -> None:
    accuracy = checked(teacher_of(), data)
    assert accuracy is not None
    assert accuracy > 0.9
    assert checked(teacher_of(), data, name="none") == accuracy  # clean rows, whatever the augmentation
    with pytest.raises(TeacherSuspectError, match=r"below 1\.000"):
        checked(teacher_of(), data, min_accuracy=1.0)


def test_no_labels_no_verdict(data: Data) -> None:
    nobody = replace(data, labels=np.full_like(data.labels, -1))
    assert checked(random_teacher(), nobody) is None


def test_rows_without_a_label_do_not_count(data: Data) -> None:
    half = data.labels.copy()
    half[::2] = -1
    accuracy = checked(teacher_of(), replace(data, labels=half))
    assert accuracy is not None
    assert accuracy > 0.9


@pytest.mark.parametrize(("mean", "std"), [((8.0,), (0.5,)), ((0.5,), (-0.5,)), ((0.5,), (50.0,))])
def test_a_wrong_mean_or_std_is_caught(data: Data, mean: tuple[float], std: tuple[float]) -> None:
    teacher = teacher_of(preparation=Preparation(mean, std, "cpu"))
    with pytest.raises(TeacherSuspectError, match=r"on \d+ clean rows is 0\.[012]\d\d, below 0\.200.*--mean and --std"):
        checked(teacher, data)


class Coloured:
    """Digits in the red channel, their negative in the blue one."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.data.samples[index]
        return torch.cat([image, torch.zeros_like(image), 255 - image]), label


class FromChannel(nn.Module):
    """The trained network on one of three channels."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel, self.inner = channel, trained_network()

    def forward(self, images: Any) -> Any:
        return self.inner(images[:, self.channel : self.channel + 1])


def test_swapped_channels_are_caught(data: Data) -> None:
    coloured = replace(data, samples=Coloured(data))
    half = Preparation((0.5,) * 3, (0.5,) * 3, "cpu")
    accuracy = checked(Teacher(FromChannel(0), preparation=half), coloured)
    assert accuracy is not None
    assert accuracy > 0.9
    with pytest.raises(TeacherSuspectError, match="channel order"):
        checked(Teacher(FromChannel(2), preparation=half), coloured)


def test_permuted_classes_are_named(data: Data) -> None:
    network, shift = trained_network(), np.roll(np.arange(10), 1)
    with torch.no_grad():
        network[-1].weight.copy_(network[-1].weight[shift].clone())
        network[-1].bias.copy_(network[-1].bias[shift].clone())
    with pytest.raises(TeacherSuspectError, match="class order") as caught:
        checked(teacher_of(network), data)
    found = re.findall(r"(\d) \((\d)\) is answered as class (\d)", str(caught.value))
    assert found == [(str(label), str(label), str((label + 1) % 10)) for label in range(4)]
    assert re.search(r"with the classes permuted .* it would be 0\.9", str(caught.value))


def test_an_untrained_teacher_is_suspect_without_a_permutation(data: Data) -> None:
    with pytest.raises(TeacherSuspectError) as caught:
        checked(random_teacher(), data, min_accuracy=0.5)
    assert "permuted" not in str(caught.value)


def test_a_network_left_in_train_mode_answers_in_eval_mode(data: Data) -> None:
    expected = checked(teacher_of(), data)
    assert checked(teacher_of(trained_network().train()), data) == expected


def test_masked_classes_are_not_predicted(data: Data) -> None:
    few = checked(teacher_of(masked_classes=(0, 1, 2)), data)
    assert few is not None
    assert 0.5 < few < 0.75


@pytest.mark.parametrize(("classes", "limit"), [(1000, 0.002), (10, 0.2), (2, 0.625), (1, 0.625), (3, 0.5)])
def test_the_limit_is_twice_chance(classes: int, limit: float) -> None:
    assert twice_chance(classes) == pytest.approx(limit)
