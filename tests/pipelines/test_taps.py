"""kdcache taps: a network's layers, their shapes and which are its stages, as extract then takes them."""

import json
from typing import Any

import pytest

from kdcache.cli.app import main
from kdcache.errors import InvalidInputError
from kdcache.pipelines.taps import list_taps
from kdcache.pipelines.taps_settings import TapsSettings


def listed(network: str, **changes: Any) -> Any:
    return list_taps(TapsSettings.model_validate({"network": network, "size": 32, **changes}))


def test_a_convnet_s_layers_come_in_their_order_with_stages_and_later_calls() -> None:
    layers = listed("torchvision:resnet18")
    by_name = {layer.name: layer for layer in layers.layers}
    assert list(by_name)[:4] == ["conv1", "bn1", "relu", "maxpool"]
    assert (by_name["layer1"].shape, by_name["layer1"].bytes_a_row) == ((64, 8, 8), 2 * 64 * 8 * 8)
    assert (by_name["layer1.0.relu_1"].call, by_name["layer1.0.relu_1"].module) == (2, "layer1.0.relu")
    assert "layer1.0.relu" in layers.twice
    assert layers.stages == ("relu", "layer1", "layer2", "layer3")  # layer4 has 1 x 1
    assert [name for name, layer in by_name.items() if layer.stage] == list(layers.stages)
    assert layers.features == 512


def test_a_transformer_s_tokens_are_listed_and_its_blocks_are_stages() -> None:
    wanted = {"image_size": 32, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
    layers = listed("torchvision.models:VisionTransformer", teacher_set=wanted)
    stages = ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1")
    assert layers.stages == stages
    assert {layer.shape for layer in layers.layers if layer.stage} == {(5, 8)}
    assert layers.features == 8


def test_a_data_set_gives_the_size() -> None:
    layers = listed("kdcache.networks:convnet", data="digits", teacher_set={"width": 4})
    assert layers.image == (1, 8, 8)
    assert layers.layers[0].shape == (4, 8, 8)
    with pytest.raises(InvalidInputError, match=r"views have 3 channels, its first convolution takes 1"):
        listed("kdcache.networks:convnet")


def test_a_module_named_features_is_no_tap() -> None:
    layers = listed("torchvision:squeezenet1_1", size=64)
    assert layers.features == 0
    assert "features" not in {layer.name for layer in layers.layers}
    assert "features" not in layers.stages
    assert "features.7" in layers.stages


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["taps", "kdcache.networks:convnet", "--data", "digits", "--teacher-set", "width=4"]
    for arguments in (words, [*words, "--json"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    table, record = capsys.readouterr().out.rstrip().rsplit("\n", 1)
    assert "4 x 8 x 8" in table
    assert "stages: 5, 12, 13" in table
    assert json.loads(record)["stages"] == ["5", "12", "13"]
