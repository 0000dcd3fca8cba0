"""Parts of a batch hold its rows in order, with all that the batch has of them."""

from dataclasses import replace

import pytest
import torch

from kdcache.objectives.batch import Batch
from kdcache.training.batch_parts import parts_of


def batch_of(rows: int) -> Batch:
    numbers = torch.arange(rows)
    return Batch(
        images=numbers[:, None, None, None].float(),
        y=numbers,
        y2=numbers.flip(0),
        lam=numbers / rows,
        positions=numbers + 100,
        view=0,
        epoch=1,
        step=2,
        features=(numbers[:, None].float(),),
        taps=({"layer": numbers[:, None].half()},),
        weight=numbers.float(),
    )


@pytest.mark.parametrize(("rows", "count", "sizes"), [(7, 3, [2, 2, 3]), (2, 5, [1, 1]), (0, 4, [0]), (6, 1, [6])])
def test_parts_are_the_rows_in_order(rows: int, count: int, sizes: list[int]) -> None:
    batch = batch_of(rows)
    parts = list(parts_of(batch, count))
    assert [len(part.y) for part in parts] == sizes
    for name in ("images", "y", "y2", "lam", "positions", "weight"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert torch.equal(torch.cat([part.features[0] for part in parts]), batch.features[0])
    assert torch.equal(torch.cat([part.taps[0]["layer"] for part in parts]), batch.taps[0]["layer"])
    assert {(part.epoch, part.step, part.view) for part in parts} == {(1, 2, 0)}


@pytest.mark.parametrize(("shares", "parts"), [((3, 2), 2), ((4, 0), 1), ((6, 6), 3)])
def test_every_process_has_as_many_parts(shares: tuple[int, ...], parts: int) -> None:
    """They wait for each other's gradients."""
    counts = {len(list(parts_of(replace(batch_of(rows), shares=shares), 3))) for rows in shares}
    assert counts == {parts}
