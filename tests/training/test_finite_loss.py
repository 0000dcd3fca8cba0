"""finite loss: the first loss that is not finite stops a run and names its step, its largest pixel and logit."""

import pytest
import torch

from kdcache.errors import KdcacheError
from kdcache.objectives.batch import Batch
from kdcache.training import finite_loss
from kdcache.training.finite_loss import FiniteLossCheck


def batch_at(step: int, images: torch.Tensor) -> Batch:
    rows = len(images)
    return Batch(images, torch.zeros(rows), None, None, torch.arange(rows) + 100, view=2, epoch=4, step=step)


def test_the_step_and_the_largest_inputs_are_named() -> None:
    images, logits = torch.ones(5, 1, 2, 2), torch.ones(5, 3)
    images[3, 0, 1, 0], logits[1, 2] = -7e4, 80.0
    with pytest.raises(KdcacheError) as caught:
        FiniteLossCheck("cpu").add(batch_at(17, images), logits, torch.tensor(torch.nan))
    message = str(caught.value)
    assert "the loss is nan at epoch 5, step 18 (view 2, 5 rows)" in message
    assert "the largest pixel is 7e+04, at position 103" in message
    assert "largest logit 80, at position 101" in message


def test_nan_counts_as_the_largest() -> None:
    images, logits = torch.ones(3, 4), torch.ones(3, 2)
    images[1, 1] = torch.nan
    with pytest.raises(KdcacheError, match="the largest pixel is nan, at position 101"):
        FiniteLossCheck("cpu").add(batch_at(0, images), logits, torch.tensor(torch.inf))


def test_an_accelerator_is_asked_seldom_and_the_first_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = FiniteLossCheck("cpu")
    monkeypatch.setattr(seen, "_every", finite_loss.EVERY)
    for step in range(finite_loss.EVERY - 1):
        loss = torch.tensor(torch.nan if step >= 30 else 1.0)
        seen.add(batch_at(step, torch.ones(2, 2)), torch.ones(2, 2), loss)
    with pytest.raises(KdcacheError, match="step 31"):
        seen.add(batch_at(finite_loss.EVERY, torch.ones(2, 2)), torch.ones(2, 2), torch.tensor(1.0))
    seen.check()  # what was looked at is not looked at again


def test_finite_losses_pass() -> None:
    seen = FiniteLossCheck("cpu")
    seen.add(batch_at(0, torch.ones(2, 2)), torch.ones(2, 2), torch.tensor(3e38))
    seen.check()
