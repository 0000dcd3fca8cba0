"""Tiny networks of transformers with weights of their own, and pictures of classes that they tell apart."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

CLASSES = ("cat", "dog", "owl")  # of the pictures, in the order of their folders
NAMES = ("owl", "cat", "dog")  # of the network, in another order
LEVELS = (40, 110, 180)  # of grey, by class of the pictures
SIDE = 32


def write_pictures(folder: Path, rows: int = 8) -> None:
    """A folder of pictures with the splits train and val, `rows` a class, whose brightness tells the class."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for level, name in zip(LEVELS, CLASSES, strict=True):
            (folder / split / name).mkdir(parents=True)
            for number in range(rows):
                pixels = level + generator.integers(0, 50, (40, 52, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{number}.png")


def vit_config(**changes: Any) -> Any:
    from transformers import ViTConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: number for number, name in enumerate(NAMES)}}
    return ViTConfig(**{**sizes, **names, "image_size": SIDE, "patch_size": 8, **changes})


def trained_vit(folder: Path) -> Any:
    """A network that knows the pictures' classes, saved with its image processor."""
    from transformers import ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    network = ViTForImageClassification(vit_config())
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    levels = torch.tensor(LEVELS, dtype=torch.float32)
    for _ in range(60):
        numbers = torch.arange(24) % len(CLASSES)
        images = levels[numbers][:, None, None, None] + 50 * torch.rand(24, 3, SIDE, SIDE)
        labels = torch.tensor([NAMES.index(CLASSES[number]) for number in numbers.tolist()])
        loss = cross_entropy(network(images / 127.5 - 1).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval().save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return network
