"""Students of digits and held-out stores of their teacher, for tests of `compare`."""

from pathlib import Path
from typing import Any

from kdcache.pipelines.compare.comparison import Comparison
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.compare.stage import compare
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from tests.kits.stages import Stage, student

TEST: dict[str, Any] = {"split": "test", "limit": 150}
CLEAN: dict[str, Any] = {"transform": "none", "transform_set": {}, "views": "1"}


class Bench:
    """Stores of held-out digits by two teachers, and four students: kd and dkd with two seeds each."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        extract(stage.asked(folder / "held.kd", data_set=TEST, **CLEAN))
        other = {"weights": "", "teacher_set": {"width": 5}, "min_accuracy": 0.0}
        extract(stage.asked(folder / "other.kd", data_set=TEST, **CLEAN, **other))
        for objective in ("kd", "dkd"):
            for seed in (0, 1):
                train(self.student(f"{objective}-{seed}", objective=objective, seed=seed))
        self.runs = [str(folder / f"{objective}-{seed}") for objective in ("kd", "dkd") for seed in (0, 1)]

    def student(self, name: str, **changes: Any) -> Any:
        judged = {"val_set": TEST, "val_store": str(self.folder / "held.kd")}
        return student(self.folder / name, store=(self.stage.store,), **judged, **changes)

    def compare(self, *runs: str, **changes: Any) -> Comparison:
        given = {
            "runs": runs or tuple(self.runs), "store": (str(self.folder / "held.kd"),), "data": "digits",
            "data_set": TEST, "workers": 0, "device": "cpu", **changes,
        }  # fmt: skip
        return compare(CompareSettings.model_validate(given))
