"""An epoch from a warm cache of views against plain cross-entropy, and what is left of drawing; in CPU seconds.

The student is small (a convnet of width 8, batches of 64), so that what surrounds it shows. "bare" is the loop that
people write, see `training`. The cache was filled by the extraction.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from kdcache.pipelines.settings import TrainSettings
from kdcache.views.draw import ViewDataset
from tests.benchmarks.harness import Bench, Figure, Times, alternate, interval, timed_ratio
from tests.benchmarks.side_by_side import epoch_seconds, photograph_base
from tests.benchmarks.training import FASHION, Case, bare_epoch, extracted, our_epoch, write_pictures


def measure(bench: Bench) -> Iterator[Figure]:
    torch.set_num_threads(1)
    yield from _epochs(_photographs(bench), bench, target=0.7)
    yield from _epochs(_fashion(bench), bench, target=1.0)
    yield from _students(bench)


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
    shares = [_share_of_drawing(arms["warm"]) for _ in range(bench.trials)]
    measured, low, high = interval([100 * share for share in shares])
    yield Figure(
        name="share of drawing in an epoch from a warm view cache", unit="%", measured=measured, low=low, high=high,
        trials=bench.trials, target=3.0, setting=case.name,
    )  # fmt: skip


def _share_of_drawing(epoch: Callable[[], None]) -> float:
    """The part of an epoch's CPU time that `ViewDataset` takes, with its fingerprints."""
    seconds, plain = 0.0, ViewDataset.__getitem__

    def timed(*arguments: Any) -> Any:
        nonlocal seconds
        start_time = time.process_time()
        try:
            return plain(*arguments)
        finally:
            seconds += time.process_time() - start_time

    ViewDataset.__getitem__ = timed  # type: ignore[method-assign]
    try:
        start_time = time.process_time()
        epoch()
        return seconds / (time.process_time() - start_time)
    finally:
        ViewDataset.__getitem__ = plain  # type: ignore[method-assign]


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
