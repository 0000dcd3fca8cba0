"""Block runners: blocks of another writer, views that the caller drew, a suspect teacher, and Dask's reports."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdcache.base.progress import StopRequest
from kdcache.errors import BadLogitsError, BlocksFailedError, TeacherSuspectError
from kdcache.pipelines.extract.block_report import BlockReport
from kdcache.pipelines.extract.block_runner import BlockRunner, LoopMeasures, least_accuracy
from kdcache.pipelines.extract.dask_cluster import DaskBlocks
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.open_job import open_job
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.views.workers import draw_requests
from tests.kits import stages
from tests.kits.blocks import local_runner
from tests.kits.stages import BLOCKS, Stage
from tests.kits.stores import all_files

stage = stages.stage


def begun(stage: Stage, path: Path) -> tuple[Job, Segment]:
    """A job and the empty segment of its new store."""
    job = open_job(stage.asked(path))
    store = Store.create(path, job.identity, order=job.order, labels=job.labels, provenance=job.provenance)
    return job, store.add_segment(job.views)


def ticket(path: Path | str, segment: Segment, block: int) -> Path:
    """The file of a block's first shard, which says whose block it is."""
    return Path(path) / segment.layout.arrays["classes"].key(block)


def test_a_block_of_another_writer_is_left_alone_and_then_finished_for_it(stage: Stage, tmp_path: Path) -> None:
    job, segment = begun(stage, tmp_path / "a.kd")
    path = ticket(tmp_path / "a.kd", segment, 1)
    path.parent.mkdir(parents=True)
    path.write_bytes(ticket(stage.store, segment, 2).read_bytes())  # it decodes, and it is none of ours
    rows: list[tuple[int, int]] = []
    settings = stage.asked(tmp_path / "a.kd")
    runner = local_runner(
        job, segment, settings, progress=lambda what, done, total: rows.append((done, total)), stop=StopRequest()
    )
    runner.run([0, 1, 3])
    assert (runner.measures.foreign_blocks, set(segment.commits())) == ([1], {0, 3})
    counts = [count for count, _ in rows]
    assert (counts[0], counts[-1], {total for _, total in rows}) == (0, 384, {384})
    assert counts == sorted(counts)
    runner.run([1], adopt=True)
    assert {block: commit.mixed for block, commit in segment.commits().items()} == {0: False, 1: True, 3: False}
    measures = runner.finish()
    assert (measures.labelled, measures.foreign_blocks, measures.memory_peak_worker) == (384, [1], None)
    assert measures.correct > 200
    assert measures.seconds >= measures.waited_for_views > 0
    assert (measures.memory_bound or 0) > 1e6 < (measures.memory_peak or 0)


def test_views_that_the_caller_drew_give_the_bytes_of_the_stage(stage: Stage, tmp_path: Path) -> None:
    job, segment = begun(stage, tmp_path / "a.kd")
    extractor, blocks = job.extractor(segment.layout), list(range(BLOCKS))
    requests = [request for block in blocks for request in extractor.requests(block)]
    drawn = list(draw_requests(job.dataset, requests, 0))
    local_runner(job, segment, stage.asked(tmp_path / "a.kd"), drawn=drawn).run(blocks)
    files, whole = all_files(tmp_path / "a.kd"), all_files(Path(stage.store))
    assert files == {name: whole[name] for name in files}
    assert len(segment.commits()) == BLOCKS


def test_a_runner_judges_its_teacher_over_512_views(stage: Stage, tmp_path: Path) -> None:
    job, segment = begun(stage, tmp_path / "a.kd")
    settings = stage.asked(tmp_path / "a.kd")
    with pytest.raises(TeacherSuspectError, match=r"top-1 accuracy over (512|600) views is 0\.\d+, below 1\.100"):
        local_runner(job, segment, settings, least_accuracy=1.1).run(list(range(BLOCKS)))
    local_runner(job, segment, settings).run(list(range(BLOCKS)))  # one that does not judge
    assert len(segment.commits()) == BLOCKS


@pytest.mark.parametrize(("asked", "limit"), [(None, 0.2), (0.1, 0.1), (0.9, 0.2)])
def test_a_lower_accuracy_may_be_asked_for(stage: Stage, asked: float | None, limit: float) -> None:
    settings = stage.asked("never.kd", min_accuracy=asked)
    assert least_accuracy(open_job(settings), settings) == pytest.approx(limit)


def test_fewer_than_512_views_or_none_with_a_label_accuse_no_teacher() -> None:
    LoopMeasures(labelled=511, correct=0).require_accuracy(0.5)
    LoopMeasures(labelled=512, correct=256).require_accuracy(0.5)
    LoopMeasures().require_accuracy(0.5)
    with pytest.raises(TeacherSuspectError, match=r"over 512 views is 0\.498, below 0\.500"):
        LoopMeasures(labelled=512, correct=255).require_accuracy(0.5)


def test_reports_of_workers_are_measured_and_failed_blocks_named(stage: Stage, tmp_path: Path) -> None:
    """The cluster is a list of outcomes: a commit, a block that another writer holds, a worker with smaller batches."""
    job, segment = begun(stage, tmp_path / "a.kd")
    job = replace(job, batch_rows=256)  # as on a GPU
    settings = stage.asked(tmp_path / "a.kd")
    local_runner(job, segment, settings).run([0, 2])
    commits = segment.commits()
    outcomes: list[tuple[int, Any]] = [
        (2, BlockReport("one", commits[2], job.batch_rows, waited_for_writer=1.0, waited_for_views=2.0, peak=7)),
        (1, BlockReport("two", None, job.batch_rows, waited_for_writer=0.5, peak=9)),
        (0, BlockReport("two", commits[0], 64, peak=8)),
    ]
    cluster: Any = SimpleNamespace(each=lambda task, blocks, **how: iter(outcomes), everywhere=lambda *given: {})
    work = DaskBlocks(cluster, settings)
    work.begin(job, segment)
    runner = BlockRunner(work, job, segment)
    runner.run([0, 1, 2])
    measures = runner.finish()
    assert (measures.foreign_blocks, measures.labelled) == ([1], 256)
    assert (measures.waited_for_writer, measures.waited_for_views) == (1.5, 2.0)
    assert (measures.memory_peak_worker, measures.memory_bound) == (9, None)
    assert measures.notes == (
        "worker two ran out of memory and went on with batches of 64 rows: last bits may differ from those of batches "
        "of 256",
    )
    outcomes[:] = [(3, BadLogitsError("NaN"))]
    runner.run([3])
    with pytest.raises(BlocksFailedError, match=r"1 of 5 blocks failed[^\n]*\n  block 3 \(positions 192 to 255\): Bad"):
        runner.finish()
