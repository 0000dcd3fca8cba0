"""A network that does not take views is refused with the cause: dtype, channels, or a size of its own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.networks.first_views import first_views, give_shapes
from kdcache.networks.small import convnet
from tests.kits.views import teacher_of


class OfOneSize(nn.Module):
    """A network that takes one size, as vision transformers do."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == 224, "Input height (32) doesn't match model (224)."
        return images.flatten(1)


def refusal(network: nn.Module, images: Tensor, precision: str = "float32") -> str:
    with (
        pytest.raises(InvalidInputError) as refused,
        torch.no_grad(),
        first_views(network, images, "teacher", precision=precision),
    ):
        network.eval()(images)
    message = str(refused.value)
    assert message.startswith(f"the teacher does not take views of shape {list(images.shape[1:])}")
    return message


def colour(**options: Any) -> nn.Module:
    return convnet(width=4, channels=3, num_classes=5).to(**options)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_network_of_another_dtype(dtype: str) -> None:
    message = refusal(colour(dtype=getattr(torch, dtype)), torch.zeros(2, 3, 16, 16))
    assert f"weights of dtype torch.{dtype}" in message
    assert ".float()" in message
    assert "--transform" not in message


@pytest.mark.parametrize("dtype", ["int64", "float64", "uint8", "int32"])
def test_views_of_another_dtype(dtype: str) -> None:
    message = refusal(colour(), torch.zeros(2, 3, 16, 16, dtype=getattr(torch, dtype)))
    assert f"dtype torch.{dtype}" in message
    assert "--transform" not in message


@pytest.mark.parametrize(
    ("shape", "step"),
    [((1, 16, 16), "convert('RGB')"), ((4, 16, 16), "convert('RGB')"), ((16, 16, 3), "permute(2, 0, 1)")],
)
def test_views_of_other_channels(shape: tuple[int, ...], step: str) -> None:
    message = refusal(colour(), torch.zeros(2, *shape))
    assert f"views have {shape[0]} channels, its first convolution takes 3" in message
    assert step in message
    message = refusal(convnet(width=4), torch.zeros(2, 3, 16, 16))
    assert "convert('L')" in message
    assert "kdcache.networks:convnet takes --teacher-set channels=3" in message


def test_a_size_of_its_own_and_errors_of_the_network_s_own() -> None:
    message = refusal(OfOneSize(), torch.zeros(2, 3, 32, 32))
    assert "doesn't match model (224)" in message
    assert "--transform and its size" in message
    flat = nn.Sequential(nn.Flatten(), nn.Linear(10, 2))
    assert "check --transform and its size" in refusal(flat, torch.zeros(2, 3, 32, 32))


def test_errors_of_kdcache_pass() -> None:
    with (
        pytest.raises(InvalidInputError, match="mine"),
        first_views(nn.Identity(), torch.zeros(1, 3, 4, 4), "teacher", precision="float32"),
    ):
        raise InvalidInputError("mine")


def test_lazy_modules_take_their_shapes_from_the_first_views() -> None:
    def lazy() -> nn.Sequential:
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))

    network, images = lazy(), torch.rand(2, 3, 8, 8)
    give_shapes(network, images, "teacher")
    teacher = teacher_of(network, channels=3)
    answer = teacher.answer(images)
    logits, features = answer.logits, answer.features
    assert features is not None
    assert (tuple(logits.shape), tuple(features.shape)) == ((2, 5), (2, 144))
    assert torch.equal(teacher.answer(images).logits, logits)
    teacher.require_same_weights()
    with pytest.raises(InvalidInputError, match=r"lazy modules whose shapes nothing has set: 0, 1, 4 \(of 3\)"):
        teacher_of(lazy())
    with pytest.raises(InvalidInputError, match="does not take views of shape"):
        give_shapes(lazy(), images[:, :, :2], "teacher")
