"""A small store, 2,560 samples x 1 view at k 20 of 1,000: its bytes a row over all files, and its files."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kdcache.labels.topk import TopKEncoding
from tests.benchmarks.rows import Rows
from tests.benchmarks.stored import Stored, stored, write_store

SAMPLES = 2560
CONTENTS = 4  # bytes a sample that a content fingerprint takes, where a store has it


@pytest.fixture(scope="module")
def rows(real_logits: npt.NDArray[np.float32]) -> Rows:
    """Samples whose logits are those of photographs under an ImageNet teacher, each with noise of its own."""
    rng = np.random.RandomState(0)
    photographs = np.arange(SAMPLES) % len(real_logits)
    logits = real_logits[photographs] + rng.normal(0, 0.3, (SAMPLES, 1000)).astype(np.float32)
    return Rows(logits[None].astype(np.float32), logits.argmax(axis=1), photographs)


def written(rows: Rows, path: Path, block_rule: int) -> tuple[float, int]:
    """Bytes a row and files of the whole store."""
    encoding = TopKEncoding(k=20, class_means=True, packing="residuals", block_rule=block_rule)
    kept = stored(rows, encoding)
    shuffled = np.random.RandomState(1).permutation(SAMPLES)
    assert isinstance(kept, Stored)
    write_store(kept, path, order=shuffled)
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return sum(sizes) / SAMPLES, len(sizes)


def test_a_small_store_is_small(rows: Rows, tmp_path: Path) -> None:
    before, files_before = written(rows, tmp_path / "1.kd", 1)
    found, files = written(rows, tmp_path / "2.kd", 2)
    assert files + 2 <= 40  # a shard of contents and its metadata
    assert found + CONTENTS <= 62.0
    assert before > 75.0
    assert files_before > 250
