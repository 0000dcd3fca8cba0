"""What a sweep costs: students side by side on one stream, and n students with kdcache against n with a live teacher.

    python -m tests.benchmarks.sweeps --data fashion-mnist:FOLDER --out docs/figures

Two studies, in CPU seconds of one process with one thread, so that other work on the machine counts little. Side by
side: an epoch of 1, 2, 4, 8 students of 94,858 parameters (10 classes), on JPEG photographs and on the data set. Total
time: one extraction and n students, against n students that ask the teacher at every step, through the same loop; the
smaller n are run whole, the larger are sums of the medians of what was run. Writes sweep_total_time.json and .png.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcache.batch import Batch
from kdcache.pipelines.extract import extract
from kdcache.pipelines.prepare import make_student, open_inputs, open_loaders, open_run
from kdcache.pipelines.run import Run
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.together import train_together
from kdcache.pipelines.train import serve, train
from kdcache.progress import StopRequest, silent
from kdcache.teachers import Preparation, Teacher, build_network, default_normalisation, load_weights
from tests.benchmarks.live_vs_cached import live_labels
from tests.benchmarks.paired_report import write_json
from tests.benchmarks.sweeps_picture import plot
from tests.photographs import photographs

TEACHER = "kdcache.networks:convnet"
STUDENT = "tests.benchmarks.sweeps:strided"
COUNTS = (1, 2, 4, 8, 16)


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Protocol:
    """All that decides the result; every field is a flag."""

    data: str = field(metadata={"help": "fashion-mnist:FOLDER, or another data set with splits train and test"})
    rows: int = _flag(800, "training rows of the students and the store")
    views: int = _flag(3, "views in the store")
    epochs: int = _flag(6, "epochs of each student; epoch e uses view e mod views")
    batch_size: int = _flag(64, "rows of a batch")
    teacher_rows: int = _flag(6_000, "training rows of the teacher, one epoch")
    teacher_width: int = _flag(32, "width of the teacher, a convnet of three stages")
    whole: int = _flag(4, "up to this n, n students are trained whole; above, times are summed")
    photographs: int = _flag(384, "JPEG files of 500 x 375 pixels")
    side: int = _flag(64, "pixels of their random crops")
    trials: int = _flag(3, "timed epochs side by side, alternating")

    @property
    def light(self) -> dict[str, Any]:
        return {"transform": "light", "transform_set": {"padding": 2, "flip": 0.5}}


def strided(num_classes: int = 10, channels: int = 1) -> nn.Sequential:
    """Three 3x3 convolutions of stride 2 with 32, 64 and 128 channels, mean over pixels, a linear head."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


class LiveTeacher:
    """The company of a run without a store: every batch is shown to the teacher first."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def going(self, run: Run) -> bool:
        return True

    def turn(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()

    def batch(self, run: Run, batch: Batch) -> Batch:
        return replace(batch, teachers=(live_labels(self.teacher, batch),))

    def images(self, run: Run, batch: Batch) -> Tensor:
        return batch.images


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU time of this process while some work is done."""
    began = time.process_time()
    work()
    return time.process_time() - began


def epoch_seconds(settings: Sequence[TrainSettings]) -> float:
    """CPU seconds a step of these students side by side, without the first step and what stands before it."""
    stamps: list[float] = []
    outcomes = train_together(settings, progress=lambda what, done, total: stamps.append(time.process_time()))
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1)


def side_by_side(protocol: Protocol, work: Path, name: str, base: dict[str, Any]) -> dict[str, Any]:
    """Seconds a step of 1, 2, 4, 8 students, and how many times the time of one that is."""
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS[:4]}
    for trial in range(protocol.trials):
        counts = list(seconds)
        for count in (*counts[trial % 4 :], *counts[: trial % 4]):
            runs = [
                TrainSettings.model_validate({**base, "run": str(work / f"{name}-{trial}-{count}-{each}"), "epochs": 1})
                for each in range(count)
            ]
            seconds[count].append(epoch_seconds([each.model_copy(update={"temperature": 2.0}) for each in runs]))
            _say(f"{name}: {count} together, {1000 * seconds[count][-1]:.1f} ms a step")
    medians = {count: median(each) for count, each in seconds.items()}
    return {
        "milliseconds_a_step": {str(count): 1000 * each for count, each in medians.items()},
        "times_one": {str(count): each / medians[1] for count, each in medians.items()},
        "trials_ms": {str(count): [1000 * each for each in trials] for count, trials in seconds.items()},
    }


def make_photographs(protocol: Protocol, folder: Path) -> None:
    """JPEG crops of photographs in ten folders, as large as an average picture of ImageNet."""
    from PIL import Image

    pictures, rng = photographs(), np.random.RandomState(0)
    for number in range(protocol.photographs):
        picture = Image.fromarray(pictures[number % len(pictures)])
        width, height = picture.size
        part = rng.uniform(0.5, 1.0)
        left, top = rng.uniform(0, width * (1 - part)), rng.uniform(0, height * (1 - part))
        box = (left, top, left + width * part, top + height * part)
        place = folder / f"{number % 10}" / f"{number:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((500, 375), Image.Resampling.BILINEAR, box).save(place, quality=90)


def photograph_base(protocol: Protocol, work: Path) -> dict[str, Any]:
    """Settings of students on JPEG photographs with a store of one view; what the teacher says does not matter."""
    make_photographs(protocol, work / "photographs")
    data = {"data": f"folder:{work / 'photographs'}", "workers": 0, "device": "cpu"}
    store, teacher_set = str(work / "photographs.kd"), {"width": 4, "channels": 3}
    extract(
        ExtractSettings(
            store=store, teacher=TEACHER, teacher_set=teacher_set, top_k=5, min_accuracy=0.0,
            transform="imagenet", transform_set={"size": protocol.side}, **data,
        )
    )  # fmt: skip
    return {**data, "store": (store,), "student": STUDENT, "student_set": {"channels": 3}, "batch_size": 64}


def student(protocol: Protocol, run: Path, store: Path, number: int = 0) -> TrainSettings:
    """The settings of one student of the sweep: each has a rate and a temperature of its own."""
    return TrainSettings(
        run=str(run), data=protocol.data, data_set={"split": "train", "limit": protocol.rows}, store=(str(store),),
        student=STUDENT, epochs=protocol.epochs, batch_size=protocol.batch_size, workers=0, device="cpu",
        lr=0.02 * (1 + number % 4), temperature=1.0 + number // 4,
    )  # fmt: skip


def train_live(protocol: Protocol, settings: TrainSettings, teacher: Teacher) -> None:
    """The same student, the same batches, the teacher asked at every step."""
    inputs = open_inputs(settings)
    made = make_student(settings, inputs)
    plain = settings.model_copy(update={"store": (), "seed": settings.seed, **protocol.light})
    loaders = open_loaders(plain, replace(inputs, stores=[]))
    run = open_run(made, inputs, loaders)
    serve([run], loaders, LiveTeacher(teacher), progress=silent, stop=StopRequest())


def totals(protocol: Protocol, work: Path) -> dict[str, Any]:
    """CPU seconds of extracting once, of each student in each way, and of n students."""
    teacher_set = {"width": protocol.teacher_width, "depth": 3}
    limit = {"split": "train", "limit": protocol.teacher_rows}
    asked = {"data": protocol.data, "workers": 0, "device": "cpu", **protocol.light}
    teacher_run = work / "teacher"
    train(
        TrainSettings(
            run=str(teacher_run), student=TEACHER, student_set=teacher_set, data_set=limit, epochs=1,
            val_set={"split": "test", "limit": 2000}, **asked,
        )
    )  # fmt: skip
    weights, store = str(teacher_run / "weights/last.safetensors"), work / "teacher.kd"
    once = ExtractSettings(
        store=str(store), teacher=TEACHER, teacher_set=teacher_set, weights=weights, views=str(protocol.views),
        top_k=5, data_set={"split": "train", "limit": protocol.rows}, **asked,
    )  # fmt: skip
    extracting = cpu_seconds(lambda: extract(once))
    _say(f"extracting {protocol.views} views: {extracting:.1f} s")
    network = build_network(TEACHER, teacher_set, 10, "teacher")
    load_weights(network, weights)
    teacher = Teacher(network, preparation=Preparation(*default_normalisation(1), "cpu"))
    apart, live, together = [], [], {}
    for number in range(protocol.whole):
        one = student(protocol, work / f"apart-{number}", store, number)
        apart.append(cpu_seconds(lambda one=one: train(one)))  # type: ignore[misc]
        other = one.model_copy(update={"run": str(work / f"live-{number}")})
        live.append(cpu_seconds(lambda other=other: train_live(protocol, other, teacher)))  # type: ignore[misc]
        _say(f"student {number}: {apart[-1]:.1f} s with the store, {live[-1]:.1f} s with the teacher")
    for count in COUNTS:
        group = [student(protocol, work / f"together-{count}-{each}", store, each) for each in range(count)]
        together[count] = cpu_seconds(lambda group=group: train_together(group))  # type: ignore[misc]
        _say(f"{count} together: {together[count]:.1f} s")
    return {
        "extract": extracting,
        "student_with_store": {"median": median(apart), "trials": apart},
        "student_with_teacher": {"median": median(live), "trials": live},
        "students_together": {str(count): seconds for count, seconds in together.items()},
        "totals": [_total(count, extracting, apart, live, together[count]) for count in COUNTS],
        "break_even": {
            "one_by_one": extracting / (median(live) - median(apart)) if median(live) > median(apart) else None,
            "views_equal_epochs": protocol.epochs / protocol.views * extracting / (median(live) - median(apart)),
        },
        "teacher_accuracy": _accuracy(teacher_run),
    }


def _total(
    count: int, extracting: float, apart: list[float], live: list[float], together: float
) -> dict[str, float | int | bool]:
    """Seconds for n students in each way; `whole`: all n were trained, else medians are multiplied."""
    whole = count <= len(apart)
    return {
        "n": count,
        "whole": whole,
        "live": sum(live[:count]) if whole else count * median(live),
        "store": extracting + (sum(apart[:count]) if whole else count * median(apart)),
        "store_together": extracting + together,
    }


def _accuracy(run: Path) -> float:
    from kdcache.checkpoints import read_metrics

    return float(read_metrics(run)[-1]["accuracy"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def run_study(protocol: Protocol, work: Path, command: str) -> dict[str, Any]:
    """Both studies as plain data."""
    torch.set_num_threads(1)
    total = totals(protocol, work)
    fashion = student(protocol, work / "side", work / "teacher.kd").model_dump()
    base = photograph_base(protocol, work)
    versions = {name: version(name) for name in ("kdcache", "torch", "torchvision", "numpy")}
    return {
        "command": command,
        "protocol": {**asdict(protocol), "data": protocol.data.partition(":")[0]},
        "device": "cpu, one thread, CPU seconds of one process",
        "versions": {"python": platform.python_version(), **versions},
        "parameters": {
            "student": _size(strided()),
            "teacher": _size(build_network(TEACHER, {"width": protocol.teacher_width, "depth": 3}, 10, "teacher")),
        },
        "total_seconds": total,
        "side_by_side": {
            f"JPEG, crops of {protocol.side}": side_by_side(protocol, work, "jpeg", base),
            "data set": side_by_side(protocol, work, "data", fashion),
        },
    }


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def main(arguments: list[str]) -> dict[str, Any]:
    """Parse, run, write."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.sweeps", description=__doc__)
    for each in fields(Protocol):
        given = {"required": True} if each.default is MISSING else {"default": each.default}
        parser.add_argument("--" + each.name.replace("_", "-"), type=each.type, help=each.metadata["help"], **given)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and the plot")
    parsed = vars(parser.parse_args(arguments))
    out = parsed.pop("out")
    protocol = Protocol(**parsed)
    changed = [
        f"--{e.name.replace('_', '-')} {parsed[e.name]}" for e in fields(Protocol)[1:] if parsed[e.name] != e.default
    ]
    kind, colon, _ = protocol.data.partition(":")
    command = " ".join(
        ["python -m tests.benchmarks.sweeps --data", f"{kind}{colon}{'FOLDER' if colon else ''}", *changed]
    )
    with tempfile.TemporaryDirectory() as temporary:
        study = run_study(protocol, Path(temporary), command)
    out.mkdir(parents=True, exist_ok=True)
    write_json(study, out / "sweep_total_time.json")
    plot(study, out / "sweep_total_time.png")
    return study


if __name__ == "__main__":
    main(sys.argv[1:])
