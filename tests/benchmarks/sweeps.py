"""What a sweep costs: students side by side on one stream, and n students with kdcache against n with a live teacher.

    python -m tests.benchmarks.sweeps --data fashion-mnist:FOLDER --out docs/figures

Two studies, in CPU seconds of one process with one thread, so that other work on the machine counts little. Side by
side: a step of 1, 2, 4, 8 students of about 94,000 parameters, on JPEG photographs and on the data set. Total
time: one extraction and n students, against n students that ask the teacher at every step, through the same loop; the
smaller n are run whole, the larger are sums of the medians of what was run. Writes sweep_total_time.json and .png.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from kdcache.base.progress import StopRequest, silent
from kdcache.networks.build import build_network
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.networks.teacher import Teacher
from kdcache.networks.weights import load_weights
from kdcache.objectives.batch import Batch
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.prepare import make_student, open_inputs, open_loaders, open_run
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.stage import serve, train
from kdcache.pipelines.train.together import train_together
from tests.benchmarks.live_vs_cached import flag, live_labels
from tests.benchmarks.paired_report import write_json
from tests.benchmarks.side_by_side import STUDENT, TEACHER, photograph_base, say, side_by_side, strided
from tests.benchmarks.sweeps_picture import plot

COUNTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Protocol:
    """All that decides the result; every field is a flag."""

    data: str = field(metadata={"help": "fashion-mnist:FOLDER, or another data set with splits train and test"})
    rows: int = flag(800, "training rows of the students and the store")
    views: int = flag(3, "views in the store")
    epochs: int = flag(6, "epochs of each student; epoch e uses view e mod views")
    batch_size: int = flag(64, "rows of a batch")
    teacher_rows: int = flag(6_000, "training rows of the teacher")
    teacher_epochs: int = flag(1, "epochs of the teacher")
    test_rows: int = flag(2_000, "test rows that tell the teacher's accuracy")
    teacher_width: int = flag(32, "width of the teacher, a convnet of three stages")
    whole: int = flag(4, "up to this n, n students are trained whole; above, times are summed")
    photographs: int = flag(384, "JPEG files of 500 x 375 pixels")
    side: int = flag(64, "pixels of their random crops")
    trials: int = flag(3, "timed epochs side by side, alternating")

    @property
    def light(self) -> dict[str, Any]:
        return {"transform": "light", "transform_set": {"padding": 2, "flip": 0.5}}


class LiveTeacher:
    """The isolation of a run without a store: every batch is shown to the teacher first."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def active(self, run: Run) -> bool:
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
    with ExitStack() as held:
        run = open_run(made, inputs, loaders, held)
        serve([run], loaders, LiveTeacher(teacher), progress=silent, stop=StopRequest())


def totals(protocol: Protocol, work: Path) -> dict[str, Any]:
    """CPU seconds of extracting once, of each student in each way, and of n students."""
    teacher_set = {"width": protocol.teacher_width, "depth": 3}
    limit = {"split": "train", "limit": protocol.teacher_rows}
    asked = {"data": protocol.data, "workers": 0, "device": "cpu", **protocol.light}
    teacher_run = work / "teacher"
    train(
        TrainSettings(
            run=str(teacher_run), student=TEACHER, student_set=teacher_set, data_set=limit,
            epochs=protocol.teacher_epochs, val_set={"split": "test", "limit": protocol.test_rows}, **asked,
        )
    )  # fmt: skip
    weights, store = str(teacher_run / "weights/last.safetensors"), work / "teacher.kd"
    once = ExtractSettings(
        store=str(store), teacher=TEACHER, teacher_set=teacher_set, weights=weights, views=str(protocol.views),
        top_k=5, data_set={"split": "train", "limit": protocol.rows}, **asked,
    )  # fmt: skip
    extracting = cpu_seconds(lambda: extract(once))
    say(f"extracting {protocol.views} views: {extracting:.1f} s")
    network = build_network(TEACHER, teacher_set, 10, "teacher")
    load_weights(network, weights)
    teacher = Teacher(network, preparation=Preparation(*default_normalisation(1), "cpu"))
    apart, live, together = [], [], {}
    for number in range(protocol.whole):
        one = student(protocol, work / f"apart-{number}", store, number)
        apart.append(cpu_seconds(lambda one=one: train(one)))  # type: ignore[misc]
        other = one.model_copy(update={"run": str(work / f"live-{number}")})
        live.append(cpu_seconds(lambda other=other: train_live(protocol, other, teacher)))  # type: ignore[misc]
        say(f"student {number}: {apart[-1]:.1f} s with the store, {live[-1]:.1f} s with the teacher")
    for count in COUNTS:
        group = [student(protocol, work / f"together-{count}-{each}", store, each) for each in range(count)]
        together[count] = cpu_seconds(lambda group=group: train_together(group))  # type: ignore[misc]
        say(f"{count} together: {together[count]:.1f} s")
    return {
        "extract": extracting,
        "student_with_store": {"median": median(apart), "trials": apart},
        "student_with_teacher": {"median": median(live), "trials": live},
        "students_together": {str(count): seconds for count, seconds in together.items()},
        "totals": [_total(count, extracting, apart, live, together[count]) for count in COUNTS],
        "break_even": {
            "one_by_one": _break_even(extracting, median(live) - median(apart)),
            "one_view_an_epoch": _break_even(
                extracting * protocol.epochs / protocol.views, median(live) - median(apart)
            ),
        },
        "teacher_accuracy": _accuracy(teacher_run),
    }


def _break_even(extracting: float, saved: float) -> float | None:
    """Students from which on extracting first takes less; None where a student saves nothing."""
    return extracting / saved if saved > 0 else None


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
    from kdcache.training.run_folder import read_metrics

    return float(read_metrics(run)[-1]["accuracy"])


def run_study(protocol: Protocol, work: Path, command: str) -> dict[str, Any]:
    """Both studies as plain data."""
    torch.set_num_threads(1)
    total = totals(protocol, work)
    fashion = student(protocol, work / "side", work / "teacher.kd").model_dump()
    base = photograph_base(work, count=protocol.photographs, side=protocol.side)
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
            f"JPEG, crops of {protocol.side}": side_by_side(work, "jpeg", base, trials=protocol.trials),
            protocol.data.partition(":")[0]: side_by_side(work, "data", fashion, trials=protocol.trials),
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
