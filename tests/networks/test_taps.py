"""taps: the outputs of named layers in one forward, which leaves the network what it was."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from kdcache.base.tap_names import TapName
from kdcache.errors import InvalidInputError
from kdcache.networks.layers import last_stage, layer_shapes, stages_of
from kdcache.networks.small import convnet
from kdcache.networks.taps import Tapped
from kdcache.objectives.taps import taps

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.resnet18(num_classes=7)
    return network.eval()


@pytest.mark.parametrize(
    "names", [("layer1.0.relu", "layer1.0.relu_1", "layer4"), ("layer1.0.add", "layer4", "flatten")]
)
def test_they_are_what_torchvision_extracts(resnet: nn.Module, names: tuple[str, ...]) -> None:
    """Modules, later calls of one, and nodes of the traced graph."""
    logits, values = Tapped(resnet, names)(IMAGES)
    extractor = torchvision.models.feature_extraction.create_feature_extractor(resnet, list(names))
    expected = extractor(IMAGES)
    assert values.keys() == expected.keys()
    assert torch.equal(logits, resnet(IMAGES))
    for name in names:  # torchvision hands out a sum as the relu after it left it in place
        assert torch.equal(values[name].relu() if name == "layer1.0.add" else values[name], expected[name])


def test_what_the_next_layer_overwrites_is_kept() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2 * 36, 3)).eval()
    images = torch.randn(2, 1, 8, 8)
    _, values = Tapped(network, ["0"])(images)
    assert torch.equal(values["0"], network[0](images))
    assert (values["0"] < 0).any()


def test_features_are_the_input_of_the_head(resnet: nn.Module) -> None:
    logits, values = Tapped(resnet, ["features", "layer4"])(IMAGES)
    torch.testing.assert_close(values["features"], values["layer4"].mean(dim=(2, 3)))
    torch.testing.assert_close(resnet.get_submodule("fc")(values["features"]), logits)


def test_pooling_takes_means_of_places_and_of_tokens(resnet: nn.Module) -> None:
    _, values = Tapped(resnet, ["layer2", "layer2@4x2", "layer2@1x1"])(IMAGES)
    whole = values["layer2"]
    expected = whole.reshape(3, 128, 4, 2, 2, 4).mean(dim=(3, 5))
    torch.testing.assert_close(values["layer2@4x2"], expected)
    torch.testing.assert_close(values["layer2@1x1"][:, :, 0, 0], whole.mean(dim=(2, 3)))
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
    _, values = Tapped(vit, ["blocks.3", "blocks.3@1x1"])(IMAGES)
    assert values["blocks.3"].shape == (3, 17, 192)
    torch.testing.assert_close(values["blocks.3@1x1"][:, 0], values["blocks.3"].mean(dim=1))
    with pytest.raises(InvalidInputError, match=r"tokens are pooled as blocks.3@1x4"):
        Tapped(vit, ["blocks.3@2x4"])(IMAGES)
    with pytest.raises(
        InvalidInputError, match=r"layer2@9x9 of the network is larger than the layer's own \[128, 8, 8\]"
    ):
        Tapped(resnet, ["layer2@9x9"])(IMAGES)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96)])
def test_channels_that_come_last_are_brought_forward(height: int, width: int) -> None:
    swin = torchvision.models.swin_t(num_classes=4).eval()
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    whole: list[Tensor] = []
    handle = swin.features[1].register_forward_hook(lambda module, inputs, output: whole.append(output))
    names = ["features.1", "features.1@2x2", "features.0.0"]
    _, values = Tapped(swin, names)(images)
    handle.remove()
    assert whole[0].shape == (2, height // 4, width // 4, 96)
    assert torch.equal(values["features.1"], whole[0].permute(0, 3, 1, 2))
    assert values["features.0.0"].shape == values["features.1"].shape
    expected = functional.adaptive_avg_pool2d(values["features.1"], 2)
    torch.testing.assert_close(values["features.1@2x2"], expected)
    shapes = layer_shapes(swin, images)
    assert shapes["features.1"] == tuple(values["features.1"].shape[1:])


@pytest.mark.parametrize(("height", "width", "stride"), [(16, 24, (2, 2)), (16, 16, (2, 1)), (24, 16, (3, 2))])
def test_as_many_channels_as_rows_are_channels(height: int, width: int, stride: tuple[int, int]) -> None:
    """Maps [8, 8, 12], [8, 8, 16] and [8, 8, 8]: of pictures that are not square, or squeezed along one axis."""
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.AvgPool2d(stride), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(8, 3)).eval()
    images = torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    _, values = Tapped(network, ["1", "1@4x2"])(images)
    expected = network[:2](images)
    assert expected.shape[1:3] == (8, 8)
    assert torch.equal(values["1"], expected)
    torch.testing.assert_close(values["1@4x2"], functional.adaptive_avg_pool2d(expected, (4, 2)))
    assert layer_shapes(network, images)["1"] == tuple(expected.shape[1:])


@pytest.mark.parametrize("names", [("0", "features"), ("13@1x1",)])
def test_the_network_stays_what_it_was(names: tuple[str, ...]) -> None:
    network = convnet(width=4).train()
    keys = list(network.state_dict())
    tapped = Tapped(network, names)
    tapped(torch.randn(4, 1, 8, 8))
    assert list(network.state_dict()) == keys
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(module.training for module in network.modules())
    copied = copy.deepcopy(network).eval()
    assert copied(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_a_traced_network_follows_the_mode_and_leaves_frozen_layers(resnet: nn.Module) -> None:
    network = copy.deepcopy(resnet).train()
    frozen = network.get_submodule("bn1").eval()
    tapped = Tapped(network, ["layer1.0.add"])
    before = frozen.get_buffer("running_mean").clone()
    trained, _ = tapped(IMAGES)
    assert not frozen.training
    assert network.get_submodule("layer1.0.bn1").training
    assert torch.equal(frozen.get_buffer("running_mean"), before)
    network.eval()
    torch.testing.assert_close(tapped(IMAGES)[0], network(IMAGES))
    assert not torch.allclose(trained, network(IMAGES))


def test_gradients_flow_through_taps() -> None:
    network = convnet(width=4).train()
    with taps(network, ["5", "features"]) as outputs:
        answer = outputs(torch.randn(4, 1, 8, 8))
    assert answer.features is not None
    (answer.taps["5"].sum() + answer.features.sum()).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in network[:14].parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients[:3])


@pytest.mark.parametrize("name", ["layer9", "layer4.7", "conv1_0"])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(resnet: nn.Module, name: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"has no layer {name}; its layers are conv1, bn1, .* and \d+ others"):
        Tapped(resnet, [name])


def test_layers_without_rows_and_without_calls_are_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.idle, self.head = nn.Flatten(0), nn.ReLU(), nn.Linear(64, 3)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.flat(images).reshape(len(images), -1))
            return logits

    images = torch.randn(2, 1, 8, 8)
    with pytest.raises(InvalidInputError, match="its first axis does not count rows"):
        Tapped(Odd(), ["flat"])(images)
    with pytest.raises(InvalidInputError, match="layer idle of the network took no part"):
        Tapped(Odd(), ["idle"])(images)


@pytest.mark.parametrize("text", ["", "a b", "layer4@", "layer4@7", "layer4@0x7", "layer4@7x7x7", "a/b", "x" * 201])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not LAYER or LAYER@HxW"):
        TapName.parse(text)


STAGES = {
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "efficientnet_b0": ["features.1", "features.2", "features.3", "features.5", "features.8"],
    "swin_t": ["features.1", "features.3", "features.5", "permute"],
    "vit_b_16": [f"encoder.layers.encoder_layer_{number}" for number in range(12)],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_of_known_networks(name: str) -> None:
    network = torchvision.models.get_model(name).eval()
    shapes = layer_shapes(network, torch.zeros(2, 3, 224, 224))
    assert stages_of(network, shapes) == STAGES[name]
    assert last_stage(network, shapes) == STAGES[name][-1]


def test_a_network_without_maps_has_its_features() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)).train()
    shapes = layer_shapes(network, torch.zeros(2, 1, 8, 8))
    assert shapes["features"] == (8,)
    assert stages_of(network, shapes) == []
    assert last_stage(network, shapes) == "features"
    assert network.training
