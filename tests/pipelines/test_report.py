"""The report of an extraction: a summary made of given measures, the commits and the store."""

from pathlib import Path

import pytest

from kdcache.pipelines.extract.block_runner import LoopMeasures
from kdcache.pipelines.extract.report import Report, all_whole
from kdcache.store.commits import totals
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import BLOCKS, ROWS, Stage

stage = stages.stage


def report_on(path: Path | str, **changes: object) -> Report:
    store = Store.open_for_writing(path)
    facts = {"path": "a.kd", "start_time": 5.0, "accuracy": 0.75, "blocks_done_before": 2, "notes": ("drift",)}
    return Report(store=store, segment=store.segments[0], **{**facts, **changes})  # type: ignore[arg-type]


def test_a_summary_is_the_measures_the_commits_and_the_facts_before(stage: Stage) -> None:
    measures = LoopMeasures(
        start_time=7.0, seconds=4.0, memory_bound=30, memory_peak=20, memory_peak_worker=10,
        waited_for_writer=1.0, waited_for_views=2.0, notes=("smaller batches",),
    )  # fmt: skip
    report = report_on(stage.store)
    counts = totals(report.segment.commits())
    assert report.summary(measures, "1f2e").model_dump() == {
        "store": "a.kd", "content_id": "1f2e", "views": (0, 2), "rows": 2 * ROWS, "blocks": BLOCKS,
        "blocks_done_before": 2, "bytes": counts["bytes"], "bytes_a_row": counts["bytes"] / (2 * ROWS), "seconds": 4.0,
        "rows_a_second": pytest.approx(2 * ROWS * 3 / 5 / 4), "checks_seconds": 2.0, "waited_for_writer": 1.0,
        "waited_for_views": 2.0, "memory_peak": 20, "memory_bound": 30, "memory_peak_worker": 10,
        "accuracy_clean": 0.75, "accuracy_views": counts["correct"] / counts["labelled"], "clamped_rows": 0,
        "mixed_blocks": 0, "struck": 0, "notes": ("smaller batches", "drift"),
    }  # fmt: skip


def test_a_store_with_a_missing_block_says_why_it_is_not_sealed(stage: Stage, tmp_path: Path) -> None:
    path = stage.copy(tmp_path / "a.kd")
    (commit,) = path.glob("kdcache/views-*/commits/*/000003.json")
    commit.unlink()
    report = report_on(path, notes=())
    assert not all_whole(report.store)
    assert all_whole(Store.open_for_writing(stage.store))
    summary = report.summary(LoopMeasures(start_time=5.0), None)
    assert (summary.content_id, summary.blocks, summary.rows_a_second) == (None, BLOCKS - 1, pytest.approx(472 / 2e-9))
    assert summary.notes == ("other segments are not whole yet: the store was not sealed",)
