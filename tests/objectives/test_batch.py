"""batch: one line that says what it holds, keys for frameworks, another device with all that lies on it."""

import numpy as np
import pytest
import torch

from kdcache.objectives.batch import Batch
from tests.kits.labels import batch_of, topk_labels

LOGITS = np.random.RandomState(0).normal(size=(4, 9)).astype(np.float32)
LABELS = torch.tensor([0, 3, 8, 1])


def mixed_batch() -> Batch:
    soft = topk_labels(LOGITS, LABELS.numpy(), 3).to()
    more = {"lam": torch.ones(4), "y2": LABELS.flip(0), "features": (torch.zeros(4, 2),)}
    return batch_of(soft, y=LABELS, view=3, epoch=2, step=17, steps=196, **more)


def test_repr_is_one_line() -> None:
    plain = Batch(torch.zeros(4, 3, 32, 32), LABELS, None, None, torch.arange(4), view=0, epoch=0, step=1, steps=2)
    assert repr(plain) == "Batch(4 rows, images 3x32x32 float32 cpu, view 0, epoch 0, step 1 of 2, 0 teachers)"
    assert (
        repr(mixed_batch()) == "Batch(4 rows, images 0 float32 cpu, view 3, epoch 2, step 17 of 196, 1 teacher, mixed)"
    )


def test_a_batch_is_a_mapping_for_frameworks() -> None:
    batch = mixed_batch()
    items = dict(batch)
    assert list(items) == list(batch) == ["images", "labels", "soft_labels"]
    assert items["images"] is batch.images
    assert items["labels"] is batch.y
    assert items["soft_labels"] is batch.teachers[0]
    assert "labels" in batch
    assert "y2" not in batch
    two = batch_of(*batch.teachers, *batch.teachers, y=LABELS)
    assert two["soft_labels"] is two.teachers
    assert list(batch_of(y=LABELS)) == ["images", "labels"]
    with pytest.raises(KeyError, match="'positions' is no key of a batch; it has images, labels, soft_labels"):
        batch["positions"]


def test_all_that_lies_on_a_device_goes_to_another() -> None:
    batch = mixed_batch()
    moved = batch.to("meta")
    soft = moved.teachers[0]
    tensors = [
        moved.images,
        moved.y,
        moved.y2,
        moved.lam,
        *moved.features,
        soft.logits,
        soft.label,
        vars(soft)["classes"],
    ]
    assert {str(tensor.device) for tensor in tensors if tensor is not None} == {"meta"}
    assert len([tensor for tensor in tensors if tensor is not None]) == 8
    assert moved.positions is batch.positions
    assert (moved.view, moved.epoch, moved.step, moved.steps) == (3, 2, 17, 196)
