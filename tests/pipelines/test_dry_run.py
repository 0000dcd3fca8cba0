"""dry run: what an extraction would cost and keep is what it then costs and keeps, and nothing is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.user_files import load_file
from kdcache.errors import KdcacheError
from kdcache.networks.checks import CHECK_ROWS
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


COUNTED = '''"""Pictures of one colour each, whose data set counts the samples that it is asked for."""
import numpy as np


class Colours:
    def __init__(self, rows):
        self.labels, self.class_names, self.calls = np.arange(rows) % 10, [str(i) for i in range(10)], 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.calls += 1
        return np.full((8, 8, 1), index % 256, dtype=np.uint8), int(self.labels[index])


made = []


def colours(rows):
    made.append(Colours(rows))
    return made[-1]
'''


@pytest.mark.parametrize(("rows", "views"), [(20_000, 16), (2**19, 1)])
def test_about_a_thousand_rows_are_asked_for_whatever_the_blocks(
    stage: Stage, tmp_path: Path, rows: int, views: int
) -> None:
    """Blocks here have 256 positions in 16 views, and 8,192."""
    (file := tmp_path / "colours.py").write_text(COUNTED)
    asked = stage.asked(
        tmp_path / "big.kd",
        data=f"{file}:colours",
        data_set={"rows": rows},
        views=f"0:{views}",
        min_accuracy=0.0,
        workers=0,
    )
    result = estimate(asked)
    assert result.block * views > 2 * result.rows_tried
    assert 512 <= result.rows_tried <= 1024
    assert load_file(str(file), "data").made[-1].calls < 1024 + CHECK_ROWS
    assert result.rows == rows * views
