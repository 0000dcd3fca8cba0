"""A zero-shot teacher of open_clip: class names and prompts become the fixed weights of a classifier.

    kdcache extract clip.kd --teacher open_clip_zero_shot.py:zero_shot \
        --teacher-set model=ViT-B-32 --teacher-set weights=open_clip_model.safetensors \
        --teacher-set classes=classes.txt --data folder:photos --data-set split=train \
        --transform imagenet --transform-set interpolation=bicubic --views 10

`weights` is a safetensors FILE on this machine; nothing is fetched. `model` is a name that open_clip knows, or
`local-dir:FOLDER` for a folder with open_clip_config.json, which names its own weights.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

PROMPTS = ("a photo of a {}.", "a blurry photo of a {}.", "a close-up photo of a {}.", "a drawing of a {}.")
LOCAL = "local-dir:"


class ZeroShot(nn.Module):
    """CLIP's image tower under a linear classifier [C, D], whose rows are the classes' mean text features times the
    logit scale: answers logits [B, C]."""

    def __init__(self, clip: Any, text_features: Tensor, class_names: Sequence[str]) -> None:
        super().__init__()
        self.visual, self.class_names = clip.visual, tuple(class_names)  # classes are matched with the data's by name
        self.head = nn.Linear(text_features.shape[1], len(text_features), bias=False)
        self.head.weight.data = text_features * clip.logit_scale.detach().exp()
        preprocessing = open_clip.get_model_preprocess_cfg(clip)
        height, width = (
            preprocessing["size"] if isinstance(preprocessing["size"], tuple | list) else (preprocessing["size"],) * 2
        )
        self.pretrained_cfg = {  # of timm's form: what the images must look like
            "mean": tuple(preprocessing["mean"]),
            "std": tuple(preprocessing["std"]),
            "input_size": (3, height, width),
            "interpolation": preprocessing["interpolation"],
            "crop_pct": 1.0,
            "crop_mode": {"shortest": "center", "longest": "border"}.get(
                preprocessing["resize_mode"], preprocessing["resize_mode"]
            ),
        }

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(normalize(self.visual(images), dim=-1))
        return logits


def zero_shot(model: str, classes: str | list[str], weights: str = "", prompts: Sequence[str] = PROMPTS) -> ZeroShot:
    """The teacher. classes: names, or a file of one a line; each takes the place of {} in every prompt."""
    if model.startswith(LOCAL):
        _require_safetensors(next(iter(_weights_in(Path(model.removeprefix(LOCAL)))), ""))
    else:
        _require_safetensors(weights)
    clip = open_clip.create_model(model, pretrained=weights or None, require_pretrained=True).eval()
    names = Path(classes).read_text("utf-8").splitlines() if isinstance(classes, str) else classes
    names = [name.strip() for name in names if name.strip()]
    tokenizer = open_clip.get_tokenizer(model)
    with torch.no_grad():
        features = [
            normalize(clip.encode_text(tokenizer([prompt.format(name) for prompt in prompts])), dim=-1).mean(dim=0)
            for name in names
        ]
    return ZeroShot(clip, normalize(torch.stack(features), dim=-1), names)


def _weights_in(folder: Path) -> Iterator[str]:
    """Weights in a folder, in the order in which open_clip looks for them."""
    for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        if (folder / name).is_file():
            yield str(folder / name)


def _require_safetensors(weights: str) -> None:
    if not weights.endswith(".safetensors") or not Path(weights).is_file():
        raise FileNotFoundError(f"weights are {weights!r}: give a safetensors file, since a pickle may run code")
