"""An epoch of `kdcache train` from a store against plain training and against a teacher in the loop, in CPU seconds.

One epoch of every arm is a trial; all arms draw their views in this process, decode, augment and train alike. "bare" is
the loop that people write: a DataLoader over the same samples and transform, default collate, cross-entropy, SGD. It
neither seeds its views nor compares them with anything. "plain" is kdcache's own training without a store. Validation
and checkpoints are in the "whole command" alone. JPEG photographs and ResNet-18 are the case with a target; on
Fashion-MNIST with a small convnet the cost of replaying views shows most.

Of the loader's time 95 % is drawing views, 5 % the label side (by a profile). A store adds to a step of 64 rows (k 20,
1,000 classes) about 0.6 ms for gathering, decoding and comparing, and 2.8 ms for the loss. Memory: a tiny student
learns 4,000 rows through all of 2 and of 10 views, and 40,000 rows for ten steps, each in a process.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from kdcache.networks.build import build_network
from kdcache.networks.preparation import default_normalisation
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.objective import build_objective
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.student import build_student, train_loader
from kdcache.pipelines.train.training_state import Student
from kdcache.store.store import Store
from kdcache.views.data import Data
from kdcache.views.sources import open_data
from kdcache.views.transforms import as_tensor, build_transform
from tests.benchmarks import flat_store
from tests.benchmarks.harness import Bench, Figure, Times, alternate, exact, timed_ratio
from tests.benchmarks.unnamed import UNNAMED
from tests.kits.photographs import PHOTOGRAPHS

FASHION = Path(os.environ.get("KDCACHE_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
TEMPERATURE, W_CE, W_KD = 4.0, 0.1, 0.9


@dataclass(frozen=True)
class Case:
    """One set of arms: settings that extract and train share, a student and a teacher."""

    name: str
    shared: dict[str, Any]
    student: str
    student_set: dict[str, Any]
    teacher: str
    teacher_set: dict[str, Any]
    batch_size: int
    top_k: int

    @property
    def taught(self) -> str:
        return f"taught by {self.teacher.partition(':')[2]}"


def measure(bench: Bench) -> Iterator[Figure]:
    torch.set_num_threads(1)
    photographs, small = _photographs(bench), _fashion(bench)
    yield from _epochs(photographs, bench, target=1.02)
    yield from _whole_command(photographs, bench)
    yield from _epochs(small, bench)
    yield from _memory(bench)


def _photographs(bench: Bench) -> Case:
    rows, size, network = (8, 32, "squeezenet1_1") if bench.quick else (48, 128, "resnet18")
    folder = bench.scratch / "photographs"
    write_pictures(folder, rows)
    return Case(
        name=f"JPEG photographs at {size} pixels, {network}",
        shared={
            "data": UNNAMED, "data_set": {"root": str(folder)},
            "transform": "imagenet", "transform_set": {"size": size},
        },
        student=f"torchvision:{network}", student_set={"num_classes": 1000},
        teacher=f"torchvision:{network if bench.quick else 'resnet50'}", teacher_set={"num_classes": 1000},
        batch_size=4 if bench.quick else 32, top_k=20,
    )  # fmt: skip


def write_pictures(folder: Path, count: int) -> None:
    """JPEG files of 256 x 256 pixels, random crops of photographs, one class a photograph."""
    rng, bundled = np.random.RandomState(0), Path(skimage.data.__file__).parent
    for number in range(count):
        name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
        picture = Image.open(bundled / name).convert("RGB")
        left, top = (int(rng.randint(max(size - 256, 0) + 1)) for size in picture.size)
        (folder / Path(name).stem).mkdir(parents=True, exist_ok=True)
        crop = picture.crop((left, top, left + 256, top + 256))
        crop.save(folder / Path(name).stem / f"{number:04}.jpg", quality=90)


def _fashion(bench: Bench) -> Case:
    """Fashion-MNIST where it lies, else scikit-learn's digits."""
    data = {"data": f"fashion-mnist:{FASHION}", "data_set": {"split": "test", "limit": 128 if bench.quick else 512}}
    if not FASHION.is_dir():
        data = {"data": "digits", "data_set": {"limit": 128 if bench.quick else 512}}
    return Case(
        name=f"{data['data'].partition(':')[0]}, convnet of 72,000 parameters",
        shared={**data, "transform": "light", "transform_set": {"padding": 2}},
        student="kdcache.networks:convnet", student_set={"width": 4 if bench.quick else 16, "depth": 3},
        teacher="kdcache.networks:convnet", teacher_set={"width": 4 if bench.quick else 32, "depth": 3},
        batch_size=128, top_k=5,
    )  # fmt: skip


def _epochs(case: Case, bench: Bench, *, target: float | None = None) -> Iterator[Figure]:
    """Only small classes have a full store as well: of 1,000 classes it is kept by few."""
    full = ("full",) if case.top_k < 10 else ()
    stores = {name: extracted(case, bench, name) for name in ("topk", *full)}
    taught_rounds = max(2, bench.trials // 2)
    epochs = bench.trials + 1 + taught_rounds
    arms = {"bare": bare_epoch(case), "plain": our_epoch(case, bench, "plain", (), epochs)}
    arms |= {name: our_epoch(case, bench, name, (stores[name],), epochs) for name in stores}
    times = alternate(arms, bench.trials, clock="cpu")
    for name in stores:
        called = {"topk": "top-k"}.get(name, name)
        yield _ratio(times, case, f"epoch from a {called} store / bare cross-entropy", name, "bare", target)
        yield _ratio(times, case, f"epoch from a {called} store / plain kdcache train", name, "plain", target)
    yield _ratio(times, case, "epoch of plain kdcache train / bare cross-entropy", "plain", "bare")
    taught = alternate(
        {"topk": arms["topk"], "live": bare_epoch(case, taught=True)}, taught_rounds, clock="cpu", warm=0
    )
    yield _ratio(taught, case, "epoch from a top-k store / teacher in the loop", "topk", "live")
    saved = 1 - taught.ratio("topk", "live")[0]
    yield exact("share of the time saved", 100 * saved, "%", better="higher", setting=f"{case.name}, {case.taught}")


def _ratio(times: Times, case: Case, name: str, over: str, under: str, target: float | None = None) -> Figure:
    return timed_ratio(name, times, over, under, target=target, setting=case.name)


def _whole_command(case: Case, bench: Bench) -> Iterator[Figure]:
    store = str(bench.scratch / f"topk-{case.top_k}.kd")
    times = alternate({"train": partial(_whole, case, bench, store), "bare": bare_epoch(case)}, 2, clock="cpu", warm=0)
    name = "whole command of 1 epoch, opening and checkpoint included / bare epoch"
    yield _ratio(times, case, name, "train", "bare")


def extracted(case: Case, bench: Bench, encoding: str, **options: Any) -> str:
    path = str(bench.scratch / f"{encoding}-{case.top_k}.kd")
    kept = {"top_k": case.top_k} if encoding == "topk" else {}
    extract(
        ExtractSettings(
            store=path, teacher=case.teacher, teacher_set=case.teacher_set, encoding=encoding, views="2", workers=0,
            device="cpu", min_accuracy=0.0, **case.shared, **kept, **options,
        )
    )  # fmt: skip
    return path


def _settings(case: Case, run: Path, stores: tuple[str, ...], epochs: int) -> TrainSettings:
    kd = {"temperature": TEMPERATURE, "set": {"w_ce": W_CE, "w_kd": W_KD}} if stores else {}
    return TrainSettings(
        run=str(run), store=stores, student=case.student, student_set=case.student_set, epochs=epochs, lr=0.01,
        batch_size=case.batch_size, workers=0, device="cpu", schedule="constant", **case.shared, **kd,
    )  # fmt: skip


def our_epoch(
    case: Case, bench: Bench, name: str, stores: tuple[str, ...], epochs: int, **options: Any
) -> Callable[[], None]:
    """The parts of `train`, built as it builds them; a call runs the steps of one epoch."""
    settings = _settings(case, bench.scratch / f"{name}-{case.top_k}", stores, epochs).model_copy(update=options)
    Path(settings.run).mkdir()
    torch.manual_seed(0)
    data, opened = open_data(settings.data, settings.data_set), [Store.open(url) for url in stores]
    network, _ = build_student(settings, data, opened)
    loader = train_loader(settings, data, opened, "cpu")
    objective = build_objective(settings, opened, TEMPERATURE if stores else None)
    run = Run.begin(Student(settings, network, objective, None), loader, {})

    def epoch() -> None:
        for batch in loader:
            run.step(batch)

    return epoch


class _Views(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Samples under a transform, as every tutorial has them."""

    def __init__(self, data: Data, transform: Callable[[Any], Any]) -> None:
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(self.data)  # its samples know nothing of a limit

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.data.samples[index]
        return as_tensor(self.transform(image)), label


def bare_epoch(case: Case, *, taught: bool = False) -> Callable[[], None]:
    """The plain loop; with a teacher in it where `taught`."""
    torch.manual_seed(0)
    data = open_data(case.shared["data"], case.shared.get("data_set", {}))
    transform, _ = build_transform(case.shared["transform"], case.shared["transform_set"])
    classes = case.student_set.get("num_classes", data.classes)
    network = build_network(case.student, case.student_set, classes, "student").train()
    teacher = build_network(case.teacher, case.teacher_set, classes, "teacher").eval() if taught else None
    loader = torch.utils.data.DataLoader(_Views(data, transform), batch_size=case.batch_size, shuffle=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    channels = 1 if "convnet" in case.student else 3
    mean, std = (torch.tensor(each)[None, :, None, None] for each in default_normalisation(channels))

    def epoch() -> None:
        total = 0.0
        for images, labels in loader:
            images = (images.to(memory_format=torch.channels_last).float() / 255.0 - mean) / std
            logits = network(images)
            loss = cross_entropy(logits, labels) if teacher is None else _kd(logits, labels, images, teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


def _kd(logits: Tensor, labels: Tensor, images: Tensor, teacher: nn.Module) -> Tensor:
    with torch.no_grad():
        target = torch.softmax(teacher(images) / TEMPERATURE, dim=-1)
    soft = kl_div(torch.log_softmax(logits / TEMPERATURE, dim=-1), target, reduction="batchmean") * TEMPERATURE**2
    return W_CE * cross_entropy(logits, labels) + W_KD * soft


def _whole(case: Case, bench: Bench, store: str) -> None:
    number = len(list(bench.scratch.glob("whole-*")))
    train(_settings(case, bench.scratch / f"whole-{number}", (store,), 1))


def _memory(bench: Bench) -> Iterator[Figure]:
    """Peak resident size of a training process, each in a process of its own; all views are trained on, but for the
    large store, whose first two are in memory after a few steps."""
    small, large, few_views, many_views = (200, 800, 2, 4) if bench.quick else (4_000, 40_000, 2, 10)
    few = _peak(bench, small, few_views)
    many = _peak(bench, small, many_views)
    long = _peak(bench, large, few_views, steps=10)
    setting = f"{small:,} rows, k 20"
    yield exact(
        f"peak memory of train, {many_views} views / {few_views} views", many / few, "ratio", target=1.05,
        setting=setting, few_bytes=few, many_bytes=many,
    )  # fmt: skip
    added = (many - few) / small / (many_views - few_views)
    yield exact("growth of train's peak memory with views", added, "bytes a row and view", setting=setting)
    yield exact(
        "growth of train's peak memory with rows", (long - few) / (large - small), "bytes a row",
        setting=f"{small:,} to {large:,} rows, k 20", small_bytes=few, large_bytes=long,
    )  # fmt: skip
    yield exact("peak memory of train", few / 1e6, "MB", setting=setting)


def _peak(bench: Bench, rows: int, views: int, steps: int = 10**9) -> int:
    """Written in this process, trained on in another."""
    store = str(bench.scratch / f"flat-{rows}-{views}.kd")
    flat_store.write(store, rows, views)
    if bench.quick:  # in this process, whose peak it then is: to see that it runs
        return flat_store.peak_of(store, rows, views, steps) or 0
    line = [sys.executable, "-m", "tests.benchmarks.flat_store", store, *map(str, (rows, views, steps))]
    found = subprocess.run(line, check=True, capture_output=True, text=True)
    return int(found.stdout.splitlines()[-1])
