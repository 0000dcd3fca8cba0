"""A network's own mean, std and size are used where the user gives none, and said where they are not the default."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdcache.errors import InvalidInputError
from kdcache.networks.build import build_network
from kdcache.networks.input_sources import OwnInput
from kdcache.networks.own_input import feeding, own_input
from kdcache.networks.preparation import IMAGENET_MEAN, IMAGENET_STD
from kdcache.store.manifest import TeacherIdentity

HALF = (0.5, 0.5, 0.5)
IMAGENET = IMAGENET_MEAN, IMAGENET_STD
VIEW = torch.zeros(3, 224, 224, dtype=torch.uint8)
OWN = OwnInput("timm's pretrained_cfg", HALF, HALF, ((224, 224),), interpolation="bicubic", resize=248)


def stored(mean: tuple[float, ...], std: tuple[float, ...]) -> TeacherIdentity:
    return TeacherIdentity(name="n:m", weights="0", classes=2, mean=mean, std=std)


def fed(
    given: Any = ((), ()),
    view: torch.Tensor = VIEW,
    *,
    own: OwnInput | None = OWN,
    before: TeacherIdentity | None = None,
) -> tuple[Any, str]:
    result = feeding(given, view, own=own, stored=before)
    return (result.mean, result.std), " | ".join(result.notes)


def test_timm_s_configuration_is_used_and_said() -> None:
    pytest.importorskip("timm")
    own = own_input(build_network("timm:vit_tiny_patch16_224", {}, 10, "teacher"), "timm:vit_tiny_patch16_224", {}, "")
    assert own == OWN
    pair, notes = fed(own=own)
    assert pair == (HALF, HALF)
    assert "pretrained_cfg" in notes
    resnet = own_input(build_network("timm:resnet18", {}, 10, "teacher"), "timm:resnet18", {}, "weights.pth")
    assert resnet is not None
    assert fed(own=resnet) == (IMAGENET, "")


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "DEFAULT", "EfficientNet_V2_L_Weights.IMAGENET1K_V1"])
def test_torchvision_s_weights_are_used_and_said(name: str) -> None:
    own = own_input(nn.Identity(), "torchvision:efficientnet_v2_l", {"weights": name}, "")
    assert own is not None
    assert (own.mean, own.std, own.sizes) == (HALF, HALF, ((480, 480),))
    pair, notes = fed(own=own)
    assert pair == (HALF, HALF)
    assert "EfficientNet_V2_L_Weights" in notes
    assert "224 x 224" in notes
    assert own_input(nn.Identity(), "torchvision:resnet18", {}, "") is None
    assert own_input(nn.Identity(), "torchvision:resnet18", {"weights": name}, "w.pth") is None


def test_weights_of_a_run_are_fed_as_the_run_was(tmp_path: Path) -> None:
    network = nn.Identity()
    network.pretrained_cfg = {"mean": HALF, "std": HALF, "input_size": (3, 224, 224)}  # type: ignore[assignment]
    plain = OwnInput("the network's pretrained_cfg", HALF, HALF, ((224, 224),))
    weights = str(tmp_path / "weights" / "best.safetensors")
    assert own_input(network, "n:m", {}, weights) == plain
    for mean, std in (((), ()), ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))):
        (tmp_path / "settings.json").write_text(json.dumps({"student": "n:m", "mean": mean, "std": std}))
        own = own_input(network, "n:m", {}, weights)
        assert own is not None
        pair, notes = fed(own=own)
        assert pair == ((mean, std) if mean else IMAGENET)
        assert bool(notes) == bool(mean)
        floats = fed(view=torch.rand(3, 8, 8), own=own)
        assert floats == (((mean, std), floats[1]) if mean else (((), ()), ""))
    for text in ("[]", "{", '{"mean": 3}'):
        (tmp_path / "settings.json").write_text(text)
        assert own_input(network, "n:m", {}, weights) == plain


def test_what_is_given_and_what_stands_come_first() -> None:
    given = (0.1, 0.2, 0.3), (1.0, 1.0, 2.0)
    assert fed(given)[0] == given
    assert "0.5,0.5,0.5" in fed(given)[1]
    assert fed(given, before=stored(*IMAGENET))[0] == given  # then refused as another store
    pair, notes = fed(before=stored(*IMAGENET))
    assert pair == IMAGENET
    assert "pretrained_cfg names 0.5,0.5,0.5" in notes
    assert fed(before=stored((0.5,), (0.5,)))[0] == (HALF, HALF)  # another data set's: refused as another store
    assert fed(own=None) == (IMAGENET, "")
    assert fed(view=torch.zeros(1, 8, 8, dtype=torch.uint8))[0] == ((0.5,), (0.5,))
    with pytest.raises(InvalidInputError, match="give both or neither"):
        fed((HALF, ()))
    for wrong in ((0.0, 1.0, 1.0), (float("nan"), 1.0, 1.0), (float("inf"), 1.0, 1.0), (1.0,)):
        with pytest.raises(InvalidInputError, match="do not fit"):
            fed((HALF, wrong))


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (torch.rand(3, 224, 224), "from 0 to 1:"),
        (255 * torch.rand(3, 224, 224), "from 0 to 255:"),
        (torch.randn(3, 224, 224), ""),
        (300 * torch.rand(3, 224, 224), ""),
    ],
)
@pytest.mark.parametrize("own", [OWN, None])
def test_floats_are_fed_as_they_are_which_is_said_where_nothing_normalised_them(
    view: torch.Tensor, said: str, own: OwnInput | None
) -> None:
    pair, notes = fed(view=view, own=own)
    assert pair == ((), ())
    assert bool(notes) == bool(said)
    assert said in notes
    assert fed(IMAGENET, view, own=None) == (IMAGENET, "")


@pytest.mark.parametrize(
    "given", [((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))]
)
def test_a_mean_of_0_to_255_is_refused_with_that_of_0_to_1(given: Any) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        fed(given, own=None)
    words = str(refusal.value).split()
    mean, std = (tuple(map(float, words[words.index(flag) + 1].split(","))) for flag in ("--mean", "--std"))
    assert mean == pytest.approx([number / 255 for number in given[0]], rel=1e-5)
    assert std == pytest.approx([number / 255 for number in given[1]], rel=1e-5)
    assert fed((mean, std), own=None)[0] == (mean, std)
    fed(given, view=300 * VIEW.float(), own=None)  # floats are of any range
    assert fed(given, own=None, before=stored(*given))[0] == given  # a store that stands goes on


def test_another_size_than_the_network_s_is_said() -> None:
    assert "views are 32 x 48 pixels; timm's pretrained_cfg names 224 x 224" in fed(view=VIEW[:, :32, :48])[1]
