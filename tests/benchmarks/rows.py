"""Teachers' logits that behave as real ones do, made once in a run of the benchmarks and shared by all of them.

ImageNet: EfficientNet-lite0 with its weights over crops of the photographs that packages bring along. A sample is a
window of a photograph, a view is a random resized crop of a window, so that two views of a sample overlap as views do
and two samples differ. Windows of one photograph overlap too: whatever learns from some rows must be judged on the rows
of other photographs (`Rows.photographs`). Fashion-MNIST: a small network, trained here for one epoch.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.harness import Bench
from tests.kits.photographs import folded_teacher, photographs

Array = npt.NDArray[Any]

SAMPLES, VIEWS, TOY_SAMPLES, TOY_VIEWS = 2048, 10, 40, 2
PIXELS = 128  # 224 would take three times the time; strong crops are enlarged either way
BATCH = 16  # what lies in a core's cache: batches of 64 take twice the time


@dataclass(frozen=True)
class Rows:
    """A teacher's answers: `logits` [V, N, C] f32; `labels` [N] i64, the hard label of each position; `photographs` [N]
    i64, which picture a sample is cut from (all different where pictures are whole)."""

    logits: Array
    labels: Array
    photographs: Array

    @property
    def classes(self) -> int:
        return int(self.logits.shape[-1])


def imagenet_rows(bench: Bench) -> Rows:
    """Views of windows of photographs under an ImageNet teacher. No window has a label that people gave it: the label
    is the teacher's own answer for the whole window."""
    sizes = (TOY_SAMPLES, TOY_VIEWS) if bench.quick else (SAMPLES, VIEWS)
    return _shared(bench, "imagenet", lambda: _imagenet(*sizes))


def fashion_rows(bench: Bench) -> Rows:
    """Shifted and flipped views of Fashion-MNIST training images under a convnet that was trained on others."""
    return _shared(bench, "fashion", lambda: _fashion(*((256, 40, 2) if bench.quick else (8_000, 2048, 5))))


def _shared(bench: Bench, name: str, make: Any) -> Rows:
    paths = {field.name: bench.shared / f"{name}-{field.name}.npy" for field in fields(Rows)}
    if not all(path.exists() for path in paths.values()):
        made = make()
        for field, path in paths.items():
            np.save(path, getattr(made, field))
    return Rows(**{field: np.load(path) for field, path in paths.items()})


def _imagenet(samples: int, views: int) -> Rows:
    import torch

    rng, pictures = np.random.RandomState(0), [torch.from_numpy(each).permute(2, 0, 1) for each in photographs()]
    chosen = rng.permutation(np.arange(samples) % len(pictures))
    windows = [_window(pictures[picture], rng) for picture in chosen]
    answer = folded_teacher()

    def labels_of(start: int) -> Array:
        return answer(torch.stack([_resized(each, (0, 0, *each.shape[1:])) for each in windows[start : start + BATCH]]))

    def view_of(job: tuple[int, int]) -> Array:
        own = np.random.RandomState(list(job))  # a batch draws for itself, so that no thread waits for another
        return answer(torch.stack([_crop(each, own) for each in windows[job[1] : job[1] + BATCH]]))

    starts = range(0, samples, BATCH)
    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        labels = np.concatenate(list(pool.map(labels_of, starts))).argmax(axis=1)
        logits = np.concatenate(list(pool.map(view_of, [(view, start) for view in range(views) for start in starts])))
    return Rows(logits.reshape(views, samples, -1), labels, chosen)


def _window(picture: Any, rng: np.random.RandomState) -> Any:
    """A quarter to three quarters of each side."""
    height, width = (int(side * rng.uniform(0.25, 0.75)) for side in picture.shape[1:])
    top, left = rng.randint(picture.shape[1] - height + 1), rng.randint(picture.shape[2] - width + 1)
    return picture[:, top : top + height, left : left + width]


def _crop(window: Any, rng: np.random.RandomState) -> Any:
    """A random resized crop as ImageNet is trained with (8 % to 100 % of the area, sides 3:4 to 4:3), half flipped."""
    full_height, full_width = window.shape[1:]
    area, shape = full_height * full_width * rng.uniform(0.08, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    height = min(max(int((area / shape) ** 0.5), 8), full_height)
    width = min(max(int((area * shape) ** 0.5), 8), full_width)
    top, left = rng.randint(full_height - height + 1), rng.randint(full_width - width + 1)
    resized = _resized(window, (top, left, height, width))
    return resized.flip(-1) if rng.randint(2) else resized


def _resized(window: Any, box: tuple[int, int, int, int]) -> Any:
    from torchvision.transforms.v2 import functional

    return functional.resized_crop(window, *box, size=[PIXELS, PIXELS], antialias=True)


def _fashion(train_rows: int, samples: int, views: int) -> Rows:
    import torch

    from kdcache.views.built_in import read_idx

    folder = fashion_folder()
    pixels = read_idx(folder / "train-images-idx3-ubyte.gz")[: train_rows + samples, None]
    images = torch.from_numpy(pixels.astype(np.float32)) / 128 - 1
    hard = torch.from_numpy(read_idx(folder / "train-labels-idx1-ubyte.gz").astype(np.int64))
    rng = np.random.RandomState(0)
    teacher = _trained(images[:train_rows], hard[:train_rows], rng)
    chosen, labels = images[train_rows : train_rows + samples], hard[train_rows : train_rows + samples]
    with torch.inference_mode():
        logits = [torch.cat([teacher(_moved(part, rng)) for part in chosen.split(64)]) for _ in range(views)]
    return Rows(torch.stack(logits).numpy(), labels.numpy(), np.arange(samples))


def _trained(images: Any, labels: Any, rng: np.random.RandomState) -> Any:
    import torch

    from kdcache.networks.small import convnet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, order = convnet(8, 2), torch.randperm(len(images))
    steps = order.split(64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=len(steps))
    for batch in steps:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(_moved(images[batch], rng)), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _moved(images: Any, rng: np.random.RandomState) -> Any:
    """Each image shifted by up to 2 pixels, half of them flipped."""
    import torch

    padded, (height, width) = torch.nn.functional.pad(images, (2, 2, 2, 2), value=-1.0), images.shape[-2:]
    moved = torch.empty_like(images)
    shifts, flips = rng.randint(0, 5, (len(images), 2)).tolist(), rng.rand(len(images)) < 0.5
    for row, ((top, left), flip) in enumerate(zip(shifts, flips, strict=True)):
        view = padded[row, :, top : top + height, left : left + width]
        moved[row] = view.flip(-1) if flip else view
    return moved


def fashion_folder() -> Path:
    """Where the data set lies: KDCACHE_FASHION_MNIST, or where Debian's package puts it."""
    return Path(os.environ.get("KDCACHE_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
