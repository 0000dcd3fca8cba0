"""recode between the stages: what extract wrote at k 5 becomes what it writes at k 3, and a student learns from it."""

from pathlib import Path

import numpy as np

from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from tests.kits import stages
from tests.kits.stages import Stage, metrics, student
from tests.whole_store.test_recode import require_as_extracted

stage = stages.stage


def test_a_recoded_store_is_as_extracted_and_teaches(stage: Stage, tmp_path: Path) -> None:
    direct = Store.open(stage.store)
    extract(stage.asked(tmp_path / "5.kd", top_k=5))
    recode_store(str(tmp_path / "5.kd"), str(tmp_path / "3.kd"), Narrowing(top_k=3))
    found = Store.open(tmp_path / "3.kd")
    require_as_extracted(found, direct)
    assert np.abs(found.class_means(0) - direct.class_means(0)).max() < 0.3
    assert np.abs(found.class_means(0)).max() > 1.0
    counts = [[each.counts.model_dump() for each in store.segments[0].commits().values()] for store in (found, direct)]
    assert counts[0] == counts[1]
    extract(stage.asked(tmp_path / "3.kd", views="2:3"))  # the teacher adds a view to what was recoded
    assert Store.open(tmp_path / "3.kd").every_view == (0, 1, 2)
    extract(stage.asked(tmp_path / "full.kd", encoding="full"))
    recode_store(str(tmp_path / "full.kd"), str(tmp_path / "from-full.kd"), Narrowing(top_k=3))
    narrowed = Store.open(tmp_path / "from-full.kd")
    assert narrowed.identity == direct.identity
    assert np.abs(narrowed.class_means(0) - direct.class_means(0)).max() < 0.02
    for store in ("3.kd", "from-full.kd"):
        train(student(tmp_path / f"run-{store}", store=str(tmp_path / store), tail="class-mean", epochs=1))
        assert np.isfinite(metrics(tmp_path / f"run-{store}")[-1]["loss"])
