"""An epoch of `kdcache train` from a store against plain training and against a teacher in the loop, in CPU seconds.

One epoch of every arm is a trial; all arms draw their views in this process, decode, augment and train alike. "bare" is
the loop that people write: a DataLoader over the same samples and transform, default collate, cross-entropy, SGD. It
neither seeds its views nor compares them with anything. Validation and checkpoints are in the "whole command" alone.
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

from kdcache.datasets import open_data
from kdcache.pipelines.extract import extract
from kdcache.pipelines.objective import build_objective
from kdcache.pipelines.run import Run
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.student import build_student, train_loader
from kdcache.pipelines.train import train
from kdcache.store import Store
from kdcache.teachers import build_network, default_normalisation
from kdcache.transforms import as_tensor, build_transform
from tests.benchmarks import flat_store
from tests.benchmarks.flat_store import LARGE, SMALL, VIEWS
from tests.benchmarks.harness import Bench, Figure, Times, alternate, exact, timed_ratio
from tests.photographs import PHOTOGRAPHS

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


def measure(bench: Bench) -> Iterator[Figure]:
    torch.set_num_threads(1)
    for case in (_photographs(bench), _fashion(bench)):
        yield from _epochs(case, bench)
    yield from _memory(bench)


def _photographs(bench: Bench) -> Case:
    rows, size, network = (8, 32, "squeezenet1_1") if bench.quick else (64, 64, "resnet18")
    folder = bench.scratch / "photographs"
    _write_pictures(folder, rows)
    return Case(
        name=f"JPEG photographs at {size} pixels, {network}",
        shared={"data": f"folder:{folder}", "transform": "imagenet", "transform_set": {"size": size}},
        student=f"torchvision:{network}", student_set={"num_classes": 1000},
        teacher=f"torchvision:{network if bench.quick else 'resnet50'}", teacher_set={"num_classes": 1000},
        batch_size=4 if bench.quick else 32, top_k=20,
    )  # fmt: skip


def _write_pictures(folder: Path, count: int) -> None:
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
    data = {"data": f"fashion-mnist:{FASHION}", "data_set": {"split": "test", "limit": 128 if bench.quick else 1024}}
    if not FASHION.is_dir():
        data = {"data": "digits", "data_set": {"limit": 128 if bench.quick else 1024}}
    return Case(
        name=f"{data['data'].partition(':')[0]}, convnet of 72,000 parameters",
        shared={**data, "transform": "light", "transform_set": {"padding": 2}},
        student="kdcache.networks:convnet", student_set={"width": 4 if bench.quick else 16, "depth": 3},
        teacher="kdcache.networks:convnet", teacher_set={"width": 4 if bench.quick else 32, "depth": 3},
        batch_size=128, top_k=5,
    )  # fmt: skip


def _epochs(case: Case, bench: Bench) -> Iterator[Figure]:
    stores = {name: _extract(case, bench, name) for name in ("topk", "full")}
    epochs = bench.trials + 1
    arms: dict[str, Callable[[], Any]] = {
        "bare": _bare(case),
        "plain": _ours(case, bench, "plain", (), epochs),
        "topk": _ours(case, bench, "topk", (stores["topk"],), epochs),
        "full": _ours(case, bench, "full", (stores["full"],), epochs),
        "live": _bare(case, taught=True),
    }
    times = alternate(arms, bench.trials, clock="cpu")
    ratio = partial(_ratio, times, case.name)
    target = 1.02 if case.shared["data"].startswith("folder:") else None
    yield ratio("epoch from a top-k store / bare cross-entropy", "topk", "bare", target)
    yield ratio("epoch from a full store / bare cross-entropy", "full", "bare", target)
    yield ratio("epoch from a top-k store / plain kdcache train", "topk", "plain")
    yield ratio("epoch from a full store / plain kdcache train", "full", "plain")
    yield ratio("epoch from a top-k store / teacher in the loop", "topk", "live")
    saved = times.median("live") - times.median("topk")
    yield exact("teacher's seconds saved an epoch", saved, "s", better="higher", setting=case.name)
    whole = alternate({"train": partial(_whole, case, bench, stores["topk"]), "bare": arms["bare"]}, 2, clock="cpu")
    yield timed_ratio(
        "whole command of 1 epoch, opening and checkpoint included / bare epoch", whole, "train", "bare",
        setting=case.name,
    )  # fmt: skip


def _ratio(times: Times, setting: str, name: str, over: str, under: str, target: float | None = None) -> Figure:
    return timed_ratio(name, times, over, under, target=target, setting=setting)


def _extract(case: Case, bench: Bench, encoding: str) -> str:
    path = str(bench.scratch / f"{encoding}-{case.top_k}.kd")
    kept = {"top_k": case.top_k} if encoding == "topk" else {}
    extract(
        ExtractSettings(
            store=path, teacher=case.teacher, teacher_set=case.teacher_set, encoding=encoding, views="2", workers=0,
            device="cpu", min_accuracy=0.0, **case.shared, **kept,
        )
    )  # fmt: skip
    return path


def _settings(case: Case, run: Path, stores: tuple[str, ...], epochs: int) -> TrainSettings:
    kd = {"temperature": TEMPERATURE, "w_ce": W_CE, "w_kd": W_KD} if stores else {}
    return TrainSettings(
        run=str(run), store=stores, student=case.student, student_set=case.student_set, epochs=epochs, lr=0.01,
        batch_size=case.batch_size, workers=0, device="cpu", schedule="constant", **case.shared, **kd,
    )  # fmt: skip


def _ours(case: Case, bench: Bench, name: str, stores: tuple[str, ...], epochs: int) -> Callable[[], None]:
    """The parts of `train`, built as it builds them; a call runs the steps of one epoch."""
    settings = _settings(case, bench.scratch / f"{name}-{case.top_k}", stores, epochs)
    Path(settings.run).mkdir()
    torch.manual_seed(0)
    data, opened = open_data(settings.data, settings.data_set), [Store.open(url) for url in stores]
    network = build_student(settings, data, opened)
    loader = train_loader(settings, data, opened, "cpu")
    objective = build_objective(settings, opened, TEMPERATURE if stores else None)
    run = Run(network, objective, settings, loader, Path(settings.run), None, {})
    batches, steps = iter(loader), loader.steps(0)

    def epoch() -> None:
        for _ in range(steps):
            run.step(next(batches))

    return epoch


class _Views(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Samples under a transform, as every tutorial has them."""

    def __init__(self, samples: Any, transform: Callable[[Any], Any]) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.samples[index]
        return as_tensor(self.transform(image)), label


def _bare(case: Case, *, taught: bool = False) -> Callable[[], None]:
    """The plain loop; with a teacher in it where `taught`."""
    torch.manual_seed(0)
    data = open_data(case.shared["data"], case.shared.get("data_set", {}))
    transform, _ = build_transform(case.shared["transform"], case.shared["transform_set"])
    classes = case.student_set.get("num_classes", data.classes)
    network = build_network(case.student, case.student_set, classes, "student").train()
    teacher = build_network(case.teacher, case.teacher_set, classes, "teacher").eval() if taught else None
    loader = torch.utils.data.DataLoader(_Views(data.samples, transform), batch_size=case.batch_size, shuffle=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    channels = 1 if "convnet" in case.student else 3
    mean, std = (torch.tensor(each)[None, :, None, None] for each in default_normalisation(channels))

    def epoch() -> None:
        total = 0.0
        for images, labels in loader:
            images = (images.float() / 255.0 - mean) / std
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
    """Peak resident size of a training process, each in a process of its own."""
    small, large = (1_000, 4_000) if bench.quick else (SMALL, LARGE)
    few, many, large_few = (
        _peak(bench, rows, views) for rows, views in ((small, VIEWS[0]), (small, VIEWS[1]), (large, VIEWS[0]))
    )
    yield exact(
        f"peak memory of train, {VIEWS[1]} views / {VIEWS[0]} views", many / few, "ratio", target=1.05,
        setting=f"{small:,} rows, k 20", few_bytes=few, many_bytes=many,
    )  # fmt: skip
    yield exact(
        "growth of train's peak memory", (large_few - few) / (large - small), "bytes a row",
        setting=f"{small:,} to {large:,} rows, k 20", small_bytes=few, large_bytes=large_few,
    )  # fmt: skip
    yield exact("peak memory of train", few / 1e6, "MB", setting=f"{small:,} rows, k 20")


def _peak(bench: Bench, rows: int, views: int) -> int:
    """`flat_store` writes the store in one process and trains in another."""
    store = bench.scratch / f"flat-{rows}-{views}.kd"
    if bench.quick:  # in this process, whose peak it then is: to see that it runs
        flat_store.write(str(store), rows, views)
        return flat_store.peak_of(str(store), rows, views) or 0
    for verb in ("write", "train"):
        line = [sys.executable, "-m", "tests.benchmarks.flat_store", verb, str(store), str(rows), str(views)]
        found = subprocess.run(line, check=True, capture_output=True, text=True)
    return int(found.stdout.splitlines()[-1])
