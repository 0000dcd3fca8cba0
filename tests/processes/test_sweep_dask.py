"""sweep --engine dask: groups of points on worker processes end as they do in this one."""

from pathlib import Path

from kdcache.base.engine_settings import EngineSettings
from kdcache.pipelines.sweep.stage import sweep
from tests.kits import stages
from tests.kits.stages import NETWORK, Stage, metrics, weights_of
from tests.pipelines.test_sweep import rows, written

stage = stages.stage


def test_points_on_two_workers_are_those_of_one_process(stage: Stage, tmp_path: Path) -> None:
    """Two groups of two; one student fails on its worker, and tells why."""
    grid = {"student": [NETWORK, "tests.kits.together_students:exploding"], "seed": [0, 1]}
    base = {"store": stage.store, "student_set": {}, "epochs": 1}
    dask = EngineSettings(engine="dask", dask_workers=2)
    there = sweep(written(tmp_path / "there", base=base, grid=grid), together=2, engine=dask)
    here = sweep(written(tmp_path / "here", base=base, grid=grid), together=2)
    assert [row.point for row in there.rows] == [row.point for row in here.rows]
    assert [row.status for row in there.rows] == [row.status for row in here.rows] == ["done"] * 2 + ["failed"] * 2
    assert [row["error"] for row in rows(there)] == [row["error"] for row in rows(here)]
    for one, other in zip(there.rows[:2], here.rows[:2], strict=True):
        assert weights_of(Path(there.folder) / one.point) == weights_of(Path(here.folder) / other.point)
        assert metrics(Path(there.folder) / one.point) == metrics(Path(here.folder) / other.point)
