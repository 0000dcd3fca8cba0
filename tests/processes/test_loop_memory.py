"""loop memory: the bound depends on no number of samples, and `kdcache extract` stays under what it states."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Encoding
from kdcache.labels.full import FullEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.networks.forward_memory import ForwardMemory
from kdcache.networks.loop_memory import SLACK, loop_memory
from kdcache.store.segment_layout import segment_layout
from tests.benchmarks.extracting_memory import extracted_apart
from tests.kits.stores import make_identity


def bound(rows: int, views: int, classes: int, encoding: Encoding) -> int:
    identity = make_identity(np.arange(8), np.zeros(8), classes=classes, encoding=encoding)
    identity = identity.model_copy(update={"dataset": identity.dataset.model_copy(update={"rows": rows})})
    layout = segment_layout(identity, ViewSpan(0, views))
    return loop_memory(layout, identity, view_bytes=150_528, request=(8, views), batch_rows=256).total


def test_the_bound_stops_growing_with_the_data_set() -> None:
    topk = TopKEncoding(k=20)
    assert bound(10**6, 10, 1000, topk) == bound(10**8, 10, 1000, topk) < 2 * 10**9
    assert bound(10**6, 300, 1000, topk) < 3 * 10**9  # a block of 64 MB of class ids, where ten views have 3 MB
    assert bound(10**6, 10, 1000, FullEncoding()) < 2 * 10**9


def test_a_forward_of_more_rows_than_the_checks_asked_about_counts() -> None:
    """It is a whole batch's, or that of all rows of a block where those are fewer."""
    identity = make_identity(np.arange(100), np.zeros(100), classes=10, encoding=TopKEncoding(k=5))
    forwards = {}
    for views, batch_rows in ((1, 64), (1, 256), (4, 128), (4, 256), (4, 512)):
        layout = segment_layout(identity, ViewSpan(0, views))
        assert layout.block == 64
        sizes = {"view_bytes": 768, "batch_rows": batch_rows}
        memory = loop_memory(layout, identity, request=(64, 1), forward=ForwardMemory(64, 64_000_000), **sizes)
        without = loop_memory(layout, identity, request=(64, 1), **sizes)
        assert memory.total - without.total == memory.forward
        forwards[views, batch_rows] = memory.forward
    assert forwards == {(1, 64): 0, (1, 256): 0, (4, 128): 128e6, (4, 256): 256e6, (4, 512): 256e6}


CONVNET = {"teacher": "kdcache.networks:convnet", "teacher_set": "channels=3"}
CASES: list[tuple[int, dict[str, Any]]] = [
    (100, {"rows": 256, "views": 1, "top_k": 5}),
    (1000, {"rows": 512, "views": 10, "encoding": "full"}),
    (100, {"rows": 256, "views": 2, "size": 64, "keep": "tap:0", "batch_size": 64, **CONVNET}),  # 131 kB a row
    (100, {"rows": 256, "views": 1, "size": 96, "batch_size": 256, "teacher": "torchvision:resnet18"}),
    (
        100,
        {"rows": 256, "views": 1, "size": 96, "batch_size": 256, "keep": "stages", "teacher": "torchvision:resnet18"},
    ),
]


@pytest.mark.parametrize(("classes", "changes"), CASES)
def test_extract_stays_under_what_it_states(tmp_path: Path, classes: int, changes: dict[str, Any]) -> None:
    found = extracted_apart(tmp_path, classes=classes, workers=0, **{"size": 32, **changes})
    assert 0 < found["memory_peak"] < found["memory_bound"]
    assert found["memory_bound"] - found["memory_peak"] < 3 * SLACK  # a bound that says something
    assert found["waited_for_writer"] <= found["seconds"]
