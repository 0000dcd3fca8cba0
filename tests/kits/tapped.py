"""A store of digits that keeps taps, and a student with maps and without batch norm, which may be told to kill
itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings
from tests.kits.stages import Stage

LAST, EARLY = "13", "5"  # of the stage's teacher: maps [16, 2, 2] and [8, 8, 8]
STUDENT = '''"""A student of two maps, one process of which may be told to kill itself at a forward of the training."""
import os
import signal

from torch import nn

calls = 0


class Net(nn.Sequential):
    def forward(self, images):
        global calls
        calls += self.training
        if calls == int(os.environ.get("FAIL_AT", "-1")) and os.environ.get("RANK", "0") == os.environ["FAIL_RANK"]:
            os.kill(os.getpid(), getattr(signal, os.environ["FAIL_BY"]))
        return super().forward(images)


def net(width=6, num_classes=10):
    early = [nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)]
    late = [nn.Conv2d(width, 2 * width, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Net(*early, *late, nn.Linear(2 * width, num_classes))
'''
SETTINGS: dict[str, dict[str, Any]] = {
    "hint": {},
    "at": {"w_kd": 20.0},
    "sp": {"w_kd": 100.0},
    "rkd": {},
    "pkt": {"w_kd": 10.0},
    "crd": {},
    "srrl": {},
    "simkd": {},
    "mgd": {},
    "aligned": {},
}
"""Settings by objective: gentle weights for a tiny student."""


@dataclass(frozen=True)
class Tapped:
    """Where the store that keeps features, head and two maps lies, and the student's file."""

    folder: Path

    @classmethod
    def of(cls, stage: Stage, folder: Path) -> "Tapped":
        (folder / "student.py").write_text(STUDENT)
        keep = f"features,head,tap:{EARLY},tap:{LAST}"
        extract(stage.asked(folder / "taps.kd", keep=keep, transform="light"))
        extract(stage.asked(folder / "mixed.kd", keep=keep, mix="mixup"))
        return cls(folder)

    def settings(self, run: Path, objective: str, **changes: Any) -> TrainSettings:
        """Two epochs of five batches."""
        given = {
            "run": str(run), "student": f"{self.folder / 'student.py'}:net", "data": "digits",
            "data_set": {"limit": 300}, "store": (str(self.folder / "taps.kd"),), "workers": 0, "epochs": 2,
            "batch_size": 64, "lr": 0.01, "objective": objective, "set": SETTINGS.get(objective, {}),
        }  # fmt: skip
        return TrainSettings.model_validate({**given, **changes})
