"""What extracting and training cost on a GPU, on top of the networks alone: one command, under 8 minutes, no network.

    python -m tests.benchmarks.gpu [--trials 5] [--out gpu.json]

ViT-L/16 and ResNet-152, initialised at random, answer in bf16: the block loop of extract against the bare forward over
data that is resident on the device, and against a bare loader; the checks before block 0; normalising. Then a ResNet-50
student: its step on a store against plain cross-entropy, and its epoch fed from JPEG files, drawn and from a warm cache
of views, against batches that are resident. `--toy` runs it all at toy size on any device, to see that it runs; its
figures are not to be quoted.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcache import KD, CacheOptions, FeedOptions, Loader, Objective, Store
from kdcache.networks.build import build_network
from kdcache.views.data import Data
from kdcache.views.provenance import provenance
from tests.benchmarks.extracting import Contest, contest
from tests.benchmarks.harness import Bench, Figure, Times, alternate, exact, timed_ratio
from tests.benchmarks.jpegs import write_jpegs
from tests.benchmarks.report import line_of
from tests.benchmarks.unnamed import UNNAMED

TARGET = 1.01


@dataclass(frozen=True)
class Scale:
    """How large everything is. `blocks` of 64 positions are timed."""

    teachers: tuple[str, ...] = ("torchvision:vit_l_16", "torchvision:resnet152")
    student: str = "torchvision:resnet50"
    size: int = 224
    pictures: int = 2048
    views: int = 1  # a bare loop decodes each view anew: what that saves is measured elsewhere
    batch: int = 256
    blocks: int = 32
    steps: int = 24
    workers: int = 8
    precision: str = "bfloat16"


TOY = Scale(
    teachers=("torchvision:squeezenet1_1",), student="torchvision:squeezenet1_1", size=32, pictures=64, views=2,
    batch=64, blocks=1, steps=1, workers=0, precision="float32",
)  # fmt: skip


def measure(bench: Bench, scale: Scale, device: str) -> Iterator[Figure]:
    """Figures of extraction for each teacher, then of a student's step on the last store."""
    jpegs = write_jpegs(bench.scratch / "jpegs", scale.pictures)
    for number, teacher in enumerate(scale.teachers):
        blocks = contest(
            bench, f"teacher{number}", scale.blocks, data=UNNAMED,
            data_set={"root": str(jpegs), "decoder": "torchvision"},
            transform="imagenet", transform_set={"size": scale.size}, teacher=teacher,
            teacher_set={"num_classes": 1000}, precision=scale.precision, top_k=20, views=str(scale.views),
            batch_size=scale.batch, workers=scale.workers, device=device,
        )  # fmt: skip
        yield from extraction(bench, scale, blocks, teacher, device)
        yield from checks(scale, blocks, teacher, device)
    yield from normalising(bench, scale, blocks, device)
    yield from student_step(bench, scale, blocks, device)


def extraction(bench: Bench, scale: Scale, blocks: Contest, teacher: str, device: str) -> Iterator[Figure]:
    """The block loop against the forward alone, data resident, and against a bare loader and forward."""
    batches = -(-blocks.rows * scale.views // scale.batch)
    resident = torch.randint(0, 256, (scale.batch, 3, scale.size, scale.size), dtype=torch.uint8, device=device)

    def forward() -> None:
        for _ in range(batches):
            blocks.job.teacher.answer(blocks.job.teacher.preparation(resident))

    drawn = [
        replace(item, images=item.images.clone()) for item in _drawn(blocks)
    ]  # out of /dev/shm; kept, so that the loop over resident views waits for no loader

    def extract_resident() -> None:
        blocks.runner(blocks.segment(), drawn).run(list(blocks.blocks))

    arms = {"extract_resident": extract_resident, "forward": forward, "extract": blocks.extract, "bare": blocks.bare}
    times = alternate({name: synchronised(arm, device) for name, arm in arms.items()}, bench.trials)
    setting = f"{teacher}, {scale.precision}, {scale.size} px, batch {scale.batch}, {blocks.rows} rows x {scale.views}"
    yield timed_ratio(
        "extract, views at hand / bare forward, data resident", times, "extract_resident", "forward", target=TARGET,
        setting=setting,
    )  # fmt: skip
    yield timed_ratio("extract / bare loader and forward", times, "extract", "bare", target=TARGET, setting=setting)


def checks(scale: Scale, blocks: Contest, teacher: str, device: str) -> Iterator[Figure]:
    """The checks before block 0, once, against the forward of 10,000 rows."""
    resident = torch.randint(0, 256, (scale.batch, 3, scale.size, scale.size), dtype=torch.uint8, device=device)

    def seconds(arm: Callable[[], Any]) -> float:
        began = time.perf_counter()
        synchronised(arm, device)()
        return time.perf_counter() - began

    job, batches = blocks.job, 2 if scale is TOY else 10
    checking = seconds(lambda: job.check(0.0))
    forward = seconds(lambda: [job.teacher.answer(job.teacher.preparation(resident)) for _ in range(batches)])
    share = checking / (forward / (batches * scale.batch) * 10_000)
    yield exact(
        "checks before block 0 / the forward of 10,000 rows", share, "ratio", target=0.05, setting=teacher,
        check_seconds=checking,
    )  # fmt: skip


def normalising(bench: Bench, scale: Scale, blocks: Contest, device: str) -> Iterator[Figure]:
    """u8 views on the device made network input, against the usual expression."""
    preparation = blocks.job.teacher.preparation
    shape = (scale.batch, 3, scale.size, scale.size)
    views = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    mean, std = (
        torch.tensor(values, device=device)[None, :, None, None] for values in (preparation.mean, preparation.std)
    )

    def usual() -> None:
        for _ in range(scale.steps):
            (views.to(memory_format=torch.channels_last).float() / 255.0 - mean) / std

    def ours() -> None:
        for _ in range(scale.steps):
            preparation(views)

    times = alternate({"ours": synchronised(ours, device), "usual": synchronised(usual, device)}, bench.trials)
    yield timed_ratio("normalising / the usual expression", times, "ours", "usual", target=1.0, setting=f"{shape}")


def _drawn(blocks: Contest) -> Iterator[Any]:
    from kdcache.views.workers import draw_requests

    extractor = blocks.extractor
    requests = [request for block in blocks.blocks for request in extractor.requests(block)]
    yield from draw_requests(blocks.job.dataset, requests, blocks.settings.workers)


def student_step(bench: Bench, scale: Scale, blocks: Contest, device: str) -> Iterator[Figure]:
    """A student's steps over batches that are on the device: KD on the store's top 20 against plain cross-entropy."""
    store = blocks.whole_store()
    network = build_network(scale.student, {"num_classes": 1000}, 1000, "student")
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    batches = _batches(blocks.job.data, store, scale, device)
    objective = Objective(KD(temperature=2.0), w_ce=0.1, w_kd=0.9)
    losses: dict[str, Callable[[Tensor, Any], Tensor]] = {
        "kd": objective,
        "ce": lambda outputs, batch: nn.functional.cross_entropy(outputs, batch.y),
    }

    def train(loss_of: Callable[[Tensor, Any], Tensor]) -> None:
        for number in range(scale.steps):
            step(batches[number % len(batches)], loss_of)

    def step(batch: Any, loss_of: Callable[[Tensor, Any], Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=scale.precision == "bfloat16"):
            outputs = network(batch.images)
        loss_of(outputs.float(), batch).backward()
        optimizer.step()

    arms = {name: synchronised(lambda loss=loss: train(loss), device) for name, loss in losses.items()}  # type: ignore[misc]
    times: Times = alternate(arms, bench.trials)
    yield timed_ratio(
        "student step, kd on top 20 / plain cross-entropy", times, "kd", "ce", target=TARGET,
        setting=f"{scale.student}, batch {scale.batch}, batches on the device",
    )  # fmt: skip

    def fed(loader: Loader) -> Callable[[], None]:
        def epoch() -> None:
            loader.set_epoch(0)
            for batch in loader:
                step(batch, objective)

        return synchronised(epoch, device)

    def resident() -> None:
        for number in range(len(loaders["drawn"])):
            step(batches[number % len(batches)], objective)

    caches = {"drawn": CacheOptions(), "warm": CacheOptions(views=str(bench.scratch / "views"), gigabytes=64.0)}
    loaders = {name: _loader(blocks.job.data, store, scale, device, options) for name, options in caches.items()}
    feeds = {name: fed(loader) for name, loader in loaders.items()}
    feeds["warm"]()  # which fills it
    feeds["resident"] = synchronised(resident, device)
    times = alternate(feeds, bench.trials)
    setting = f"{scale.student}, batch {scale.batch}, JPEGs of 500 x 375 to {scale.size} px, {scale.workers} workers"
    yield timed_ratio(
        "epoch fed from a warm view cache / batches on the device", times, "warm", "resident", setting=setting
    )
    yield timed_ratio(
        "epoch whose views are drawn / batches on the device", times, "drawn", "resident", setting=setting
    )
    for loader in loaders.values():
        loader.close()


def _batches(data: Data, store: Store, scale: Scale, device: str) -> list[Any]:
    loader = _loader(data, store, scale, device, CacheOptions())
    batches = list(islice(loader, 4))
    loader.close()
    return batches


def _loader(data: Data, store: Store, scale: Scale, device: str, caches: CacheOptions) -> Loader:
    feed = FeedOptions(workers=scale.workers, device=device, caches=caches)
    return Loader(data, [store], batch_size=min(scale.batch, len(data)), epochs=1, feed=feed)


def synchronised(arm: Callable[[], None], device: str) -> Callable[[], None]:
    """The arm, begun on an idle device and ended when all of it is done: the clock would not see it else."""

    def run() -> None:
        wait(device)
        arm()
        wait(device)

    return run


def wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: list[str] | None = None) -> list[Figure]:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="toy sizes on any device: to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON of figures, device and versions; refused with --toy")
    given = parser.parse_args(arguments)
    if given.toy and given.out:
        raise SystemExit("--toy figures are not to be published: leave --out away, or run without --toy on a GPU")
    if not given.toy and not torch.cuda.is_available():
        raise SystemExit(
            "no CUDA device is here, and figures of a CPU are not published as those of a GPU: run this on a machine "
            "with a GPU, or with --toy to see that it runs"
        )
    device, scale = ("cpu", TOY) if not torch.cuda.is_available() else ("cuda:0", TOY if given.toy else Scale())
    began, figures = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(scratch=Path(folder), shared=Path(folder), quick=given.toy, trials=given.trials)
        for figure in measure(bench, scale, device):
            figures.append(figure)
            verdict = "toy      not to be quoted: " if given.toy else ""
            sys.stdout.write(f"{verdict}{line_of(figure)}\n")
    found = provenance(device)
    minutes = (time.monotonic() - began) / 60
    sys.stdout.write(f"{found.device}; {found.versions}; {minutes:.1f} minutes\n")
    if given.out:
        record = {"device": found.device, "versions": found.versions, "minutes": minutes}
        shown = json.dumps({**record, "figures": [figure.model_dump() for figure in figures]}, indent=1)
        given.out.write_text(shown + "\n")
    return figures


if __name__ == "__main__":
    main()
