"""extract lists commits a few times, however many blocks there are and whoever else writes."""

from pathlib import Path

import pytest

from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.listings import counted
from tests.kits.stages import Stage, stop_after

stage = stages.stage

BLOCKS_OF = {128: 2, 448: 7}  # rows -> blocks of 64
READS = 5  # of each block's commit file: twice as it is extracted, once by the writer, at the start, and at the end


@pytest.mark.parametrize("rows", BLOCKS_OF)
def test_an_extraction_lists_its_commits_once_and_a_finished_one_twice(stage: Stage, tmp_path: Path, rows: int) -> None:
    settings = stage.asked(tmp_path / "a.kd", data_set={"limit": rows}, views="1")
    with counted() as counts:
        assert extract(settings).blocks == BLOCKS_OF[rows]
    assert counts["listings"] == 1  # at the end, for seal and summary
    assert counts["read"] <= READS * BLOCKS_OF[rows]
    with counted() as counts:
        assert extract(settings).blocks_done_before == BLOCKS_OF[rows]
    assert counts["listings"] == 2  # what stands, and the end


@pytest.mark.parametrize("rows", BLOCKS_OF)
def test_later_views_list_each_segment_at_the_start_and_at_the_end(stage: Stage, tmp_path: Path, rows: int) -> None:
    """Each block's contents are compared with the earlier segment's, which is asked for that block alone."""
    settings = stage.asked(tmp_path / "a.kd", data_set={"limit": rows}, views="1")
    extract(settings)
    with counted() as counts:
        summary = extract(stage.asked(tmp_path / "a.kd", data_set={"limit": rows}, views="1:2"))
    assert (summary.blocks, summary.content_id is None) == (BLOCKS_OF[rows], False)
    assert counts["listings"] == 3


@pytest.mark.parametrize("rows", BLOCKS_OF)
def test_blocks_that_another_writer_took_are_asked_for_one_by_one(stage: Stage, tmp_path: Path, rows: int) -> None:
    """All but the first and the last: their tickets lie there, with bytes that are not this writer's."""
    settings = stage.asked(tmp_path / "a.kd", data_set={"limit": rows}, views="1")
    extract(stage.asked(tmp_path / "other.kd", data_set={"limit": rows}, views="1", seed=1))
    job = open_job(settings)
    store = Store.create(tmp_path / "a.kd", job.identity, order=job.order, labels=job.labels, provenance=job.provenance)
    ticket = store.add_segment(job.views).layout.arrays["classes"]
    foreign = range(1, BLOCKS_OF[rows])
    for block in foreign:
        path = tmp_path / "a.kd" / ticket.key(block)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tmp_path / "other.kd" / ticket.key(block)).read_bytes())
    with counted() as counts:
        summary = extract(settings)
    assert (summary.blocks, summary.mixed_blocks) == (BLOCKS_OF[rows], len(foreign))
    assert counts["listings"] == 2


def test_blocks_that_another_writer_committed_are_left_to_it(stage: Stage, tmp_path: Path) -> None:
    """It commits all blocks but one while this process begins with its first."""
    settings = stage.asked(tmp_path / "a.kd", views="1")
    others, labels = list[int](), list[str]()

    def progress(label: str, done: int, total: int) -> None:
        if label == "extracting" and not others:
            others.append(extract(settings).blocks)
        labels.append(label)

    with counted() as counts:
        summary = extract(settings, progress=progress)
    assert (summary.blocks, summary.blocks_done_before, summary.mixed_blocks) == (others[0], 0, 0)
    assert summary.content_id == Store.open(tmp_path / "a.kd").content_id
    assert counts["listings"] == 3  # two of the inner one, which found a store, and one of the outer one


def test_a_block_of_the_earlier_pass_that_is_not_committed_is_not_compared(stage: Stage, tmp_path: Path) -> None:
    stop, progress = stop_after(3)
    with pytest.raises(Exception, match="stopped as asked"):
        extract(stage.asked(tmp_path / "a.kd", views="1"), progress=progress, stop=stop)
    summary = extract(stage.asked(tmp_path / "a.kd", views="1:2"))
    assert summary.content_id is None
    assert "other segments are not whole yet: the store was not sealed" in summary.notes
