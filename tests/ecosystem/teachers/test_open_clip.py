"""The example of open_clip: a zero-shot teacher from class names, prompts and a safetensors file."""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from kdcache.store.store import Store
from tests.kits.doors import ROOT, Door
from tests.kits.tiny_models import CLASSES

EXAMPLE = ROOT / "docs/examples/open_clip_zero_shot.py"
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PROMPT = "a photo of a {}."


@pytest.fixture
def clip(door: Door) -> torch.nn.Module:
    """A tiny network of random weights in `clip`, as open_clip saves one, beside the example and the class names."""
    folder = door.folder / "clip"
    folder.mkdir()
    settings = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    door.write("tiny.json", json.dumps(TINY))
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    open_clip.add_model_config(door.folder / "tiny.json")
    torch.manual_seed(0)
    network = open_clip.create_model("tiny", force_preprocess_cfg=settings["preprocess_cfg"]).eval()
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    shutil.copy(EXAMPLE, door.folder)
    door.write("classes.txt", "\n".join(reversed(CLASSES)) + "\n")
    assert isinstance(network, torch.nn.Module)
    return network


def extract_words(photos: Path, *arguments: str) -> tuple[object, ...]:
    pairs = [word for argument in arguments for word in ("--teacher-set", argument)]
    return (
        "extract", "clip.kd", "--teacher", "open_clip_zero_shot.py:zero_shot", *pairs, "--data", f"folder:{photos}",
        "--data-set", "split=val", "--transform", "center", "--transform-set", "size=32", "--transform-set",
        "resize=32", "--transform-set", "interpolation=bicubic", "--min-accuracy", 0, "--workers", 0,
    )  # fmt: skip


def test_class_names_and_prompts_are_a_classifier(door: Door, clip: torch.nn.Module, photos: Path) -> None:
    arguments = ("model=local-dir:clip", "classes=classes.txt", f'prompts=["{PROMPT}", "{{}}"]')
    record = door.done(*extract_words(photos, *arguments), "--keep", "features,head")
    assert "the network's pretrained_cfg" in " | ".join(record["notes"])
    store = Store.open("clip.kd")
    assert store.identity.teacher.mean == (0.5, 0.5, 0.5)
    assert store.identity.teacher.class_map == (2, 1, 0)  # by the names that the network has
    path = sorted(photos.glob("val/*/*.png"))[int(store.order[0])]
    settings = open_clip.get_model_preprocess_cfg(clip)
    tokens = open_clip.get_tokenizer("tiny")
    with Image.open(path) as picture, torch.inference_mode():
        transform = open_clip.image_transform(32, is_train=False, mean=settings["mean"], std=settings["std"])
        image = clip.encode_image(transform(picture)[None], normalize=True)
        texts = [clip.encode_text(tokens([PROMPT.format(name), name]), normalize=True).mean(dim=0) for name in CLASSES]
        wanted = clip.logit_scale.exp() * image @ torch.nn.functional.normalize(torch.stack(texts), dim=1).T
    stored = store.read(0, np.array([0])).dense(1.0)[0]
    np.testing.assert_allclose(stored, wanted.softmax(dim=1)[0].numpy(), atol=2e-3)


def test_a_named_model_takes_a_safetensors_file(door: Door, clip: torch.nn.Module, photos: Path) -> None:
    names = f"classes={json.dumps(list(CLASSES))}"
    torch.save(clip.state_dict(), "tiny.pt")
    for weights in ("", "weights=tiny.pt", "weights=none.safetensors"):
        arguments = [argument for argument in ("model=tiny", names, weights) if argument]
        assert "give a safetensors file" in door.refused(*extract_words(photos, *arguments))
    arguments = ["model=tiny", names, "weights=clip/open_clip_model.safetensors"]
    assert door.done(*extract_words(photos, *arguments))["rows"] == 24
