"""An epoch from a warm cache of views against plain cross-entropy, and what is left of drawing; in CPU seconds.

The student is small (a convnet of width 8, batches of 64), so that what surrounds it shows. "bare" is the loop that
people write, see `training`. The cache was filled by the extraction.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.pipelines.settings import TrainSettings
from kdcache.training.data_parallel import DataParallel
from kdcache.training.label_reading import LabelReading
from kdcache.views.draw import ViewDataset
from kdcache.views.replay import ReplayCheck
from tests.benchmarks.harness import Bench, Figure, Times, alternate, interval, timed_ratio
from tests.benchmarks.side_by_side import epoch_seconds, photograph_base
from tests.benchmarks.training import FASHION, Case, bare_epoch, extracted, our_epoch, write_pictures


def measure(bench: Bench) -> Iterator[Figure]:
    torch.set_num_threads(1)
    yield from _epochs(_photographs(bench), bench, target=0.7)
    yield from _epochs(_fashion(bench), bench, target=1.0)
    yield from _normalising(bench)
    yield from _students(bench)


def _normalising(bench: Bench) -> Iterator[Figure]:
    """Views made network input in train, on a CPU, against the usual expression."""
    rows, side = (4, 32) if bench.quick else (64, 224)
    views = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8)
    preparation = Preparation(*default_normalisation(3), "cpu")
    mean, std = (torch.tensor(values)[None, :, None, None] for values in default_normalisation(3))
    arms = {
        "ours": lambda: preparation(views),
        "usual": lambda: (views.to(memory_format=torch.channels_last).float() / 255.0 - mean) / std,
    }
    times = alternate(arms, 3 * bench.trials, clock="cpu")
    yield timed_ratio(
        "normalising / the usual expression",
        times,
        "ours",
        "usual",
        target=0.2,
        setting=f"{rows} views of {side} pixels",
    )


def _photographs(bench: Bench) -> Case:
    rows, size = (16, 32) if bench.quick else (512, 64)
    folder = bench.scratch / "pictures"
    write_pictures(folder, rows)
    network = {"width": 8, "depth": 4, "channels": 3}
    return Case(
        name=f"{rows} JPEGs of 256 pixels, crops of {size}",
        shared={
            "data": f"folder:{folder}", "data_set": {}, "transform": "imagenet", "transform_set": {"size": size},
        },
        student="kdcache.networks:convnet", student_set=network, teacher="kdcache.networks:convnet",
        teacher_set=network, batch_size=8 if bench.quick else 64, top_k=4,
    )  # fmt: skip


def _fashion(bench: Bench) -> Case:
    rows = 64 if bench.quick else 2_048
    data = {"data": f"fashion-mnist:{FASHION}", "data_set": {"limit": rows}}
    if not FASHION.is_dir():
        data = {"data": "digits", "data_set": {"limit": min(rows, 1_024)}}
    network = {"width": 8, "depth": 3}
    return Case(
        name=f"{rows:,} rows of {str(data['data']).partition(':')[0]}",
        shared={**data, "transform": "light", "transform_set": {"padding": 2}},
        student="kdcache.networks:convnet", student_set=network, teacher="kdcache.networks:convnet",
        teacher_set=network, batch_size=64, top_k=5,
    )  # fmt: skip


def _epochs(case: Case, bench: Bench, *, target: float) -> Iterator[Figure]:
    cache = str(bench.scratch / f"cache-{case.top_k}")
    store = extracted(case, bench, "topk", fill_view_cache=cache)
    epochs = 2 * bench.trials + 3
    arms = {
        "warm": our_epoch(case, bench, "warm", (store,), epochs, view_cache=cache),
        "drawn": our_epoch(case, bench, "drawn", (store,), epochs),
        "bare": bare_epoch(case),
    }
    times = alternate(arms, bench.trials, clock="cpu")
    yield timed_ratio(
        "epoch from a warm view cache / bare cross-entropy", times, "warm", "bare", target=target, setting=case.name
    )
    yield timed_ratio("epoch whose views are drawn / bare cross-entropy", times, "drawn", "bare", setting=case.name)
    parts = [_parts_of(arms["warm"]) for _ in range(bench.trials)]
    measured, low, high = interval([100 * part["draw"] / part["all"] for part in parts])
    yield Figure(
        name="share of drawing in an epoch from a warm view cache", unit="%", measured=measured, low=low, high=high,
        trials=bench.trials, target=3.0, setting=case.name,
    )  # fmt: skip
    rests = [1000 * (part["all"] - sum(part[name] for name in PARTS)) / part["steps"] for part in parts]
    measured, low, high = interval(rests)
    yield Figure(
        name="the rest of a step: loop, loader, batch", unit="ms", measured=measured, low=low, high=high,
        trials=bench.trials, target=0.4, setting=case.name,
    )  # fmt: skip


PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "draw": ((ViewDataset, "__getitem__"),),
    "normalise": ((Preparation, "__call__"),),
    "labels": ((LabelReading, "rows"), (LabelReading, "soft_labels"), (ReplayCheck, "compare_all")),
    "network": ((DataParallel, "outputs"), (torch.Tensor, "backward")),
    "loss": ((DataParallel, "loss"),),
    "optimiser": ((torch.optim.SGD, "step"), (torch.optim.SGD, "zero_grad")),
}
"""What of a step has a name, by the methods that do it; none of them calls another."""


def _parts_of(epoch: Callable[[], None]) -> dict[str, float]:
    """CPU seconds of an epoch, `all` of it and its parts, and the number of its `steps`."""
    seconds = dict.fromkeys(PARTS, 0.0)
    steps = 0

    def timed(part: str, plain: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += part == "loss"
            start_time = time.process_time()
            try:
                return plain(*arguments, **options)
            finally:
                seconds[part] += time.process_time() - start_time

        return call

    with ExitStack() as stack:
        for part, methods in PARTS.items():
            for owner, name in methods:
                stack.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        start_time = time.process_time()
        epoch()
        whole = time.process_time() - start_time
    return {**seconds, "all": whole, "steps": float(steps)}


def _students(bench: Bench) -> Iterator[Figure]:
    """Students of about 94,000 parameters side by side, as `kdcache sweep --together` trains them."""
    count, side, together = (192, 32, 2) if bench.quick else (384, 64, 8)
    base = photograph_base(bench.scratch, count=count, side=side)
    cached = {**base, "view_cache": str(bench.scratch / "cache-students")}
    number = 0

    def seconds(settings: dict[str, Any], students: int) -> float:
        nonlocal number
        number += 1
        runs = [
            TrainSettings.model_validate(
                {**settings, "run": str(bench.scratch / f"run-{number}-{each}"), "epochs": 1, "temperature": 2.0}
            )
            for each in range(students)
        ]
        return epoch_seconds(runs)

    seconds(cached, 1)
    arms = {"one": (base, 1), "one, warm": (cached, 1), "many": (base, together), "many, warm": (cached, together)}
    times = Times({name: [] for name in arms})
    for trial in range(bench.trials):
        for name in arms if trial % 2 else reversed(arms):
            times.seconds[name].append(seconds(*arms[name]))
    setting = f"JPEGs of 500 x 375, crops of {side}"
    many = f"{together} students side by side"
    yield timed_ratio(
        f"{many} from a warm view cache / one that draws", times, "many, warm", "one", target=2.5, setting=setting
    )
    yield timed_ratio(f"{many} from a warm view cache / one from it", times, "many, warm", "one, warm", setting=setting)
    yield timed_ratio(f"{many} whose views are drawn / one", times, "many", "one", setting=setting)
