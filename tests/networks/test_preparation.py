"""preparation: a batch's memory is used again once no one holds it, and bits do not depend on that."""

from typing import Any

import pytest
import torch

from kdcache.networks import preparation
from kdcache.networks.preparation import Preparation


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(preparation, "REUSED", 1)
    return Preparation((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), "cpu")


def views(seed: int, rows: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (rows, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_batches_that_someone_holds_keep_their_values(prepare: Any) -> None:
    batches = [prepare(views(seed)) for seed in range(8)]
    row = prepare(views(8))[2]
    for _ in range(8):
        prepare(views(9))
    for seed, batch in enumerate(batches):
        assert torch.equal(batch, Preparation(prepare.mean, prepare.std, "cpu")(views(seed)))
    assert torch.equal(row, Preparation(prepare.mean, prepare.std, "cpu")(views(8))[2])


def test_memory_that_no_one_holds_is_used_again(prepare: Any) -> None:
    address = prepare(views(0)).data_ptr()
    assert prepare(views(1, rows=3)).data_ptr() == address


def test_bits_and_layout_are_those_of_fresh_memory(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(views(1))
    reused = prepare(views(0))
    monkeypatch.setattr(preparation, "REUSED", 2**60)
    fresh = prepare(views(0))
    assert torch.equal(reused, fresh)
    assert reused.stride() == fresh.stride()
    assert reused.is_contiguous(memory_format=torch.channels_last)
