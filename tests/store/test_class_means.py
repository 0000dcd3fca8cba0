"""class means: what a store keeps is what its full twin says, and stores of before go on without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import MissingBlockError
from kdcache.labels.full import FullLabels
from kdcache.labels.topk import TopKEncoding
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import Stage, metrics, student

stage = stages.stage


@pytest.mark.parametrize("masked", [(), (3,)])
def test_they_are_the_means_over_block_0_of_the_full_logits(
    stage: Stage, tmp_path: Path, masked: tuple[int, ...]
) -> None:
    full = Store.open(extract(stage.asked(tmp_path / "full.kd", encoding="full", mask_classes=masked)).store)
    kept = Store.open(extract(stage.asked(tmp_path / "topk.kd", mask_classes=masked)).store)
    rows = np.arange(kept.segments[0].layout.block)
    found: list[list[float]] = [[] for _ in range(10)]
    for view in (0, 1):
        dense, soft = full.read(view, rows), kept.read(view, rows)
        assert isinstance(dense, FullLabels)
        for logits, classes in zip(dense.logits, soft.classes, strict=True):
            tail = [c for c in range(10) if c not in classes and c not in masked]
            for c in tail:
                found[c].append(logits[c] - np.mean(logits[tail]))
    wanted = [np.mean(values) if values else 0.0 for values in found]
    np.testing.assert_allclose(kept.class_means(1), wanted, atol=2e-3)  # the full store is f16


def test_a_store_of_before_is_resumed_and_extended_without_them(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Any = stage.asked(tmp_path / "old.kd", views="1")
    with monkeypatch.context() as older:
        plain = TopKEncoding(k=asked.top_k, packing="residuals")
        older.setattr(TopKEncoding, "chosen", classmethod(lambda *_, **__: plain))
        extract(asked)
    assert extract(asked).blocks_done_before == stages.BLOCKS
    extract(stage.asked(tmp_path / "old.kd", views="1:2"))
    store = Store.open(tmp_path / "old.kd")
    assert store.every_view == (0, 1)
    with pytest.raises(MissingBlockError, match="holds no class means; use --tail uniform"):
        store.class_means(0)
    with pytest.raises(MissingBlockError, match="holds no class means"):
        train(student(tmp_path / "run", store=(str(tmp_path / "old.kd"),), tail="class-mean"))


def test_a_store_in_given_order_keeps_none(stage: Stage, tmp_path: Path) -> None:
    assert not Store.open(
        extract(stage.asked(tmp_path / "given.kd", order="given")).store
    ).identity.encoding.class_means


def test_they_change_what_is_learned(stage: Stage, tmp_path: Path) -> None:
    for tail in ("uniform", "class-mean"):
        train(student(tmp_path / tail, store=(stage.store,), epochs=1, tail=tail))
    assert metrics(tmp_path / "uniform") != metrics(tmp_path / "class-mean")
