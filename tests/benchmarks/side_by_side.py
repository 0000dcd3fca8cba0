"""Students side by side on one stream: CPU seconds of a step of 1, 2, 4 and 8, on JPEG photographs and on any data."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from torch import nn

from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.together import train_together
from tests.kits.photographs import photographs

TEACHER = "kdcache.networks:convnet"
STUDENT = "tests.benchmarks.side_by_side:strided"
COUNTS = (1, 2, 4, 8)


def strided(num_classes: int = 10, channels: int = 1) -> nn.Sequential:
    """Three 3x3 convolutions of stride 2 with 32, 64 and 128 channels, mean over pixels, a linear head."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


def epoch_seconds(settings: Sequence[TrainSettings]) -> float:
    """CPU seconds a step of these students side by side, without the first step and what stands before it."""
    stamps: list[float] = []
    outcomes = train_together(settings, progress=lambda what, done, total: stamps.append(time.process_time()))
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1)


def side_by_side(work: Path, name: str, base: dict[str, Any], *, trials: int) -> dict[str, Any]:
    """Seconds a step of 1, 2, 4, 8 students, and how many times the time of one that is."""
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
    for trial in range(trials):
        counts = list(seconds)
        for count in (*counts[trial % 4 :], *counts[: trial % 4]):
            runs = [
                TrainSettings.model_validate({**base, "run": str(work / f"{name}-{trial}-{count}-{each}"), "epochs": 1})
                for each in range(count)
            ]
            seconds[count].append(epoch_seconds([each.model_copy(update={"temperature": 2.0}) for each in runs]))
            say(f"{name}: {count} together, {1000 * seconds[count][-1]:.1f} ms a step")
    medians = {count: median(each) for count, each in seconds.items()}
    return {
        "milliseconds_a_step": {str(count): 1000 * each for count, each in medians.items()},
        "times_one": {str(count): each / medians[1] for count, each in medians.items()},
        "trials_ms": {str(count): [1000 * each for each in own] for count, own in seconds.items()},
    }


def make_photographs(folder: Path, count: int) -> None:
    """JPEG crops of photographs in ten folders, as large as an average picture of ImageNet."""
    from PIL import Image

    pictures, rng = photographs(), np.random.RandomState(0)
    for number in range(count):
        picture = Image.fromarray(pictures[number % len(pictures)])
        width, height = picture.size
        part = rng.uniform(0.5, 1.0)
        left, top = rng.uniform(0, width * (1 - part)), rng.uniform(0, height * (1 - part))
        box = (left, top, left + width * part, top + height * part)
        place = folder / f"{number % 10}" / f"{number:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((500, 375), Image.Resampling.BILINEAR, box).save(place, quality=90)


def photograph_base(work: Path, *, count: int, side: int) -> dict[str, Any]:
    """Settings of students on JPEG photographs with a store of one view; what the teacher says does not matter."""
    make_photographs(work / "photographs", count)
    data = {"data": f"folder:{work / 'photographs'}", "workers": 0, "device": "cpu"}
    store, teacher_set = str(work / "photographs.kd"), {"width": 4, "channels": 3}
    extract(
        ExtractSettings(
            store=store, teacher=TEACHER, teacher_set=teacher_set, top_k=5, min_accuracy=0.0,
            transform="imagenet", transform_set={"size": side}, **data,
        )
    )  # fmt: skip
    return {**data, "store": (store,), "student": STUDENT, "student_set": {"channels": 3}, "batch_size": 64}


def say(text: str) -> None:
    """A line on stderr while the benchmark goes on."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
