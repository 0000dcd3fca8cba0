"""Views by a library's own evaluation: the pixels that its pipeline makes, recorded in the plan, kept on resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from transformers import BitImageProcessor, CLIPImageProcessor, ConvNextImageProcessor, ViTImageProcessor

from kdcache.networks.input_sources import OwnInput
from kdcache.networks.own_input import known_input, own_input
from kdcache.networks.preparation import Preparation
from kdcache.pipelines.extract.own_views import own_arguments
from kdcache.store.store import Store
from kdcache.views.transforms import as_tensor, build_transform
from tests.kits.doors import Door

PICTURE = (
    Image.fromarray(  # 2 to 3, so that no crop here is off its centre by half a pixel, which libraries round apart
        np.random.default_rng(0).integers(0, 255, (30, 45, 3), dtype=np.uint8).repeat(9, 0).repeat(9, 1)
    )
)
LEVEL = 1 / 255


def prepared(own: OwnInput | None, picture: Any = PICTURE) -> torch.Tensor:
    """The picture as a teacher with this input is fed it under `--transform center`."""
    assert own is not None
    transform, _ = build_transform("center", own_arguments(own, "center", {}))
    view = as_tensor(transform(picture))
    return Preparation(own.mean, own.std, "cpu")(view[None])[0]


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "vit_tiny_patch16_384", "efficientnet_b1", "inception_v3", "test_vit"]
)
def test_timm_s_evaluation(name: str) -> None:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    wanted = timm.data.create_transform(**config)(PICTURE)
    torch.testing.assert_close(prepared(known_input(f"timm:{name}", {}, "")), wanted)


@pytest.mark.parametrize("name", ["resnet50.IMAGENET1K_V2", "swin_b.IMAGENET1K_V1", "efficientnet_v2_l.DEFAULT"])
def test_torchvision_s_evaluation(name: str) -> None:
    model, _, member = name.partition(".")
    wanted = torchvision.models.get_model_weights(model)[member].transforms()(PICTURE)
    torch.testing.assert_close(prepared(known_input(f"torchvision:{model}", {"weights": member}, "")), wanted)


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(size={"height": 64, "width": 64}),
        ViTImageProcessor(size={"height": 64, "width": 64}, do_normalize=False),
        ViTImageProcessor(size={"height": 64, "width": 64}, rescale_factor=1 / 127.5, resample=3),
        ConvNextImageProcessor(size={"shortest_edge": 224}),
        ConvNextImageProcessor(size={"shortest_edge": 384}),
        BitImageProcessor(size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}),
        CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
    ],
    ids=lambda processor: f"{type(processor).__name__} {processor.size}",
)
def test_transformers_image_processors(tmp_path: Path, processor: Any) -> None:
    processor.save_pretrained(tmp_path)
    pixels = torch.from_numpy(np.asarray(PICTURE).copy()).permute(2, 0, 1)  # as its processor takes it
    wanted = processor(pixels, return_tensors="pt")["pixel_values"][0]
    own = known_input(f"transformers:{tmp_path}", {}, "")
    assert own is not None
    result = prepared(own, pixels)
    assert result.shape == wanted.shape
    assert float((result - wanted).abs().max()) <= 1.01 * LEVEL / min(own.std)  # u8 between, as PIL has it


def test_a_folder_without_a_processor_or_weights_of_a_run_tell_nothing(tmp_path: Path) -> None:
    assert known_input(f"transformers:{tmp_path}", {}, "") is None
    (tmp_path / "settings.json").write_text('{"student": "timm:test_vit"}')
    assert known_input("timm:test_vit", {}, str(tmp_path / "weights" / "best.safetensors")) is None
    assert known_input("timm:test_vit", {}, "other.safetensors") is not None
    assert known_input("timm:unheard_of", {}, "") is None
    assert known_input("mine.py:net", {}, "") is None
    network = timm.create_model("test_vit", img_size=96)
    assert own_input(network, "timm:test_vit", {"img_size": 96}, "").side == 96  # type: ignore[union-attr]


def test_what_is_given_and_what_is_default_stay_out() -> None:
    own = OwnInput("x", (0.5,), (0.5,), ((160, 160),), interpolation="bicubic", resize=168)
    whole = {"size": 160, "interpolation": "bicubic", "resize": 168}
    assert own_arguments(own, "center", {}) == whole
    assert own_arguments(own, "imagenet", {}) == {"size": 160, "interpolation": "bicubic"}
    assert own_arguments(own, "center", {"size": 320}) == {"interpolation": "bicubic", "resize": 336}
    assert own_arguments(own, "center", {"interpolation": "bilinear", "resize": 160}) == {"size": 160}
    plain = OwnInput("x", (0.5,), (0.5,), ((224, 224),), interpolation="bilinear", resize=256)
    assert own_arguments(plain, "center", {}) == own_arguments(plain, "imagenet", {}) == {}
    assert own_arguments(OwnInput("x", sizes=((20, 30),), interpolation="bicubic"), "center", {"size": 9}) == {
        "interpolation": "bicubic"
    }


TIMM = ("--teacher", "timm:test_resnet", "--weights", "timm.safetensors")
ANY = ("--min-accuracy", 0, "--workers", 0)


@pytest.fixture
def weights(door: Door) -> None:
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), "timm.safetensors")


@pytest.mark.usefixtures("weights")
def test_timm_s_views_are_recorded_trained_on_and_verified(door: Door, photos: Path) -> None:
    data = ("--data", f"folder:{photos}", "--data-set", "split=val")
    record = door.done("extract", "own.kd", *TIMM, *ANY, *data, "--transform", "center")
    own = known_input("timm:test_resnet", {}, "")
    assert own is not None
    plan = Store.open("own.kd").identity.plan
    assert plan.transform.arguments == own_arguments(own, "center", {})
    assert plan.transform.arguments["size"] == own.side
    assert f"views are {own.side} x {own.side} pixels, {own.interpolation}" in " | ".join(record["notes"])

    student = ("--student", "kdcache.networks:convnet", "--student-set", "channels=3", "--student-set", "width=2")
    train = (*student, *data, "--store", "own.kd", "--epochs", 1, "--workers", 0, "--transform", "center")
    door.done("train", "run", *train)
    assert door.done("verify", "own.kd", *data, "--transform", "center", *TIMM)["whole"]
    assert "leave --transform to the store" in door.refused("train", "other", *train, "--transform-set", "size=96")


@pytest.mark.usefixtures("weights")
def test_a_store_that_stands_keeps_its_views(door: Door, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ("--data", f"folder:{photos}", "--data-set", "split=val", "--transform", "imagenet")
    with monkeypatch.context() as patch:  # as before networks had views of their own
        patch.setattr("kdcache.pipelines.extract.stage.with_own_views", lambda settings: (settings, ()))
        door.done("extract", "old.kd", *TIMM, *ANY, *data)
    assert Store.open("old.kd").identity.plan.transform.arguments == {}
    record = door.done("extract", "old.kd", *TIMM, *ANY, *data, "--views", "1:2")
    assert record["blocks_done_before"] == 0
    assert Store.open("old.kd").identity.plan.transform.arguments == {}
    assert "chooses others" not in " | ".join(record["notes"])


def test_torchvision_s_weights_choose_the_views(door: Door, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torchvision.models.get_model_weights("shufflenet_v2_x1_5").IMAGENET1K_V1
    folder = door.folder / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(door.folder / "hub"))
    network = torchvision.models.get_model("shufflenet_v2_x1_5")
    torch.save(network.state_dict(), folder / weights.url.rpartition("/")[2])
    door.done(
        "extract", "tv.kd", "--teacher", "torchvision:shufflenet_v2_x1_5", "--teacher-set", "weights=IMAGENET1K_V1",
        "--data", f"folder:{photos}", "--data-set", "split=val", "--labels", "none", "--transform", "center",
        "--workers", 0,
    )  # fmt: skip
    assert Store.open("tv.kd").identity.plan.transform.arguments == {"resize": 232}
