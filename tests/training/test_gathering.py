"""gathering: all tensors of the outputs that have rows reach every process, and their gradients come back."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.outputs import Outputs
from kdcache.training.gathering import whole_batch
from tests.kits.labels import batch_of, full_labels

SHARES = (3, 2)


class Thread:
    """A process's `Ranks` played by a thread: rows are exchanged through a list that both threads hold."""

    world_size = len(SHARES)

    def __init__(self, rank: int, rows: list[Any], barrier: Barrier) -> None:
        self.rank, self.rows, self.barrier = rank, rows, barrier

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        self.rows[self.rank] = rows
        self.barrier.wait(30)
        gathered_rows = list(self.rows)
        self.barrier.wait(30)
        return gathered_rows


def student_outputs(rank: int) -> Outputs:
    """Outputs whose values differ in every tensor; each rank holds its taps in another order."""
    generator = torch.Generator().manual_seed(rank)
    shapes = {"logits": (4,), "features": (6,), "layer1": (2, 3, 3), "layer2": (5,)}
    tensors = {
        name: torch.randn(SHARES[rank], *shape, generator=generator).requires_grad_() for name, shape in shapes.items()
    }
    taps = {name: tensors[name] for name in sorted(("layer1", "layer2"), reverse=rank == 1)}
    return Outputs(tensors["logits"], tensors["features"], taps)


def tensors_of(outputs: Outputs) -> dict[str, Tensor]:
    assert outputs.features is not None
    return {"logits": outputs.logits, "features": outputs.features, **outputs.taps}


def test_all_tensors_of_the_outputs_are_gathered_with_their_gradients(subtests: pytest.Subtests) -> None:
    parts = [student_outputs(rank) for rank in range(2)]
    rows, barrier = [None, None], Barrier(2, timeout=30)

    def process(rank: int) -> dict[str, Tensor]:
        batch = batch_of(y=torch.arange(SHARES[rank]) + 10 * rank, shares=SHARES)
        outputs, whole = whole_batch(parts[rank], batch, Thread(rank, rows, barrier))  # type: ignore[arg-type]
        assert whole.y.tolist() == [0, 1, 2, 10, 11]
        sum(values.square().sum() for values in tensors_of(outputs).values()).backward()  # type: ignore[union-attr]
        return tensors_of(outputs)

    with ThreadPoolExecutor(2) as threads:
        gathered = list(threads.map(process, range(2)))
    expected = [tensors_of(part) for part in parts]
    for name in ("logits", "features", "layer1", "layer2"):
        with subtests.test(name):
            for rank in range(2):
                assert torch.equal(gathered[rank][name], torch.cat([expected[0][name], expected[1][name]]))
                assert torch.equal(expected[rank][name].grad, 2 * 2 * expected[rank][name])  # processes times 2 x


def teacher_batch(rank: int) -> Batch:
    """A mixed batch of two stores whose features and taps differ in width; each rank holds its taps in another
    order."""
    generator, rows = np.random.RandomState(rank), SHARES[rank]
    y = torch.arange(rows) + 10 * rank
    soft = [full_labels(generator.normal(size=(rows, 4)), np.arange(rows) % 4) for _ in range(2)]
    taps: list[dict[str, Tensor]] = []
    for shapes in ({"layer1": (2, 3), "layer2@1x1": (5, 1, 1)}, {"layer1": (7,)}):
        values = {name: torch.from_numpy(generator.normal(size=(rows, *shapes[name]))).half() for name in shapes}
        taps.append(dict(sorted(values.items(), reverse=rank == 1)))
    features = tuple(torch.from_numpy(generator.normal(size=(rows, width))).half() for width in (3, 6))
    mixing = {"y2": y + 100, "lam": torch.linspace(0.1, 0.9, rows)}
    return batch_of(*soft, y=y, taps=tuple(taps), features=features, shares=SHARES, **mixing)


def test_all_tensors_of_the_batch_are_gathered() -> None:
    """Features and taps of each store, soft labels and mixing, bit for bit; images stay each one's own."""
    batches = [teacher_batch(rank) for rank in range(2)]
    rows, barrier = [None, None], Barrier(2, timeout=30)

    def process(rank: int) -> Batch:
        logits = Outputs(torch.zeros(SHARES[rank], 4))
        return whole_batch(logits, batches[rank], Thread(rank, rows, barrier))[1]  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as threads:
        wholes = list(threads.map(process, range(2)))
    for whole, own in zip(wholes, batches, strict=True):
        assert whole.images is own.images
        assert whole.shares == ()
        for name in ("y", "y2", "lam", "positions"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(batch, name) for batch in batches])), name
        for number in range(2):
            for name in batches[0].taps[number]:
                expected = torch.cat([batch.taps[number][name] for batch in batches])
                assert whole.taps[number][name].dtype == torch.float16
                assert torch.equal(whole.taps[number][name], expected), name
            assert torch.equal(whole.features[number], torch.cat([batch.features[number] for batch in batches]))
            soft = [batch.teachers[number].log_probs(1.0) for batch in batches]
            assert torch.equal(whole.teachers[number].log_probs(1.0), torch.cat(soft))
