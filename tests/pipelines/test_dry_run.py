"""dry run: what an extraction would cost and keep is what it then costs and keeps, and nothing is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import KdcacheError
from kdcache.pipelines.extract.dry_run import estimate
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import ROWS, Stage
from tests.kits.stores import all_files

stage = stages.stage

CASES: list[dict[str, Any]] = [
    {},
    {"top_k": 10},
    {"quantisation": "high", "top_k": 5, "mix": "mixup"},
    {"keep": ("features",), "mask_classes": (3, 4), "top_k": 1},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_the_estimate_is_what_the_store_then_takes(stage: Stage, tmp_path: Path, changes: dict[str, Any]) -> None:
    asked = stage.asked(tmp_path / "digits.kd", data_set={}, **changes)
    found = estimate(asked)
    assert list(tmp_path.iterdir()) == []
    summary = extract(asked)
    store = Store.open(asked.store)
    canary = store.segments[0].commits()[0].shards["canary"].size
    assert found.bytes_a_row == pytest.approx((summary.bytes - canary) / summary.rows, rel=0.25)
    assert found.bytes == pytest.approx(summary.bytes - canary, rel=0.25)
    assert found.rows == summary.rows
    assert found.accuracy_clean == summary.accuracy_clean
    assert (found.encoding, found.k) == (store.identity.encoding.name, store.identity.encoding.k)
    assert found.files == len(all_files(Path(asked.store)))


@pytest.mark.parametrize("changes", [{}, {"quantisation": "high"}, {"mix": "cutmix"}], ids=str)
def test_more_classes_keep_more_and_heat_keeps_less(stage: Stage, tmp_path: Path, changes: dict[str, Any]) -> None:
    found = estimate(stage.asked(tmp_path / "digits.kd", **changes))
    assert [each.k for each in found.by_k] == [1, 5]
    mass = np.array([each.kept_mass for each in found.by_k])
    assert (np.diff(mass, axis=0) > 0).all()
    assert (np.diff(mass, axis=1) < 0).all()
    assert (mass > 0).all()
    assert (mass <= 1).all()
    assert all(0 <= each.quantisation_kl <= 1e-4 for each in found.by_k)
    assert np.diff([each.bytes_a_row for each in found.by_k]) > 0


def test_the_kept_mass_is_what_the_store_keeps(stage: Stage, tmp_path: Path) -> None:
    found = estimate(stage.asked(tmp_path / "digits.kd"))
    assert found.rows_tried == 2 * ROWS
    extract(stage.asked(tmp_path / "digits.kd", top_k=5))
    store, rows = Store.open(tmp_path / "digits.kd"), np.arange(ROWS)
    for column, temperature in enumerate((1.0, 2.0, 4.0)):
        kept = np.mean([np.exp(store.read(view, rows).log_probs(temperature)).sum(axis=-1) for view in (0, 1)])
        assert found.by_k[1].kept_mass[column] == pytest.approx(kept, abs=0.005)


def test_a_dry_run_refuses_what_the_extraction_would_refuse(stage: Stage, tmp_path: Path) -> None:
    for changes in ({"weights": ""}, {"batch_size": 65}, {"data": "digit"}):
        with pytest.raises(KdcacheError):
            estimate(stage.asked(tmp_path / "digits.kd", **changes))
    assert list(tmp_path.iterdir()) == []
