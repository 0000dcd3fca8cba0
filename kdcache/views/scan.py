"""A scan reads every sample of a data set, in parallel, and lists those that cannot be read, with sizes and modes."""

import os
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import torch

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.records import Record
from kdcache.base.user_code import exception_text
from kdcache.errors import InvalidInputError, KdcacheError, SampleError
from kdcache.views.data import Data
from kdcache.views.data_parts import part_of
from kdcache.views.reading import read_image
from kdcache.views.sources import open_data

SHARED_MEMORY = "/dev/shm"
KINDS = 20  # sizes, modes and classes that are told one by one


class BadSample(Record):
    """A sample that cannot be read: its index, its id and the reason."""

    index: int
    id: str
    reason: str


class Scan(Record):
    """The state of a data set. `sizes` (width x height), `modes` and `classes` have counts of samples; `empty_classes`
    are those without one. `shared_memory`: bytes that are free for workers, None where there is no such place."""

    data: str
    rows: int
    bad: tuple[BadSample, ...]
    classes: dict[str, int]
    empty_classes: tuple[str, ...]
    without_label: int
    sizes: dict[str, int]
    modes: dict[str, int]
    seconds: float
    shared_memory: int | None
    notes: tuple[str, ...] = ()


class _Reading(torch.utils.data.Dataset[tuple[str, str, str]]):
    """Size, mode and problem of each sample, as texts; images stay in the worker."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[str, str, str]:
        try:
            return *_form(read_image(self.samples, index)), ""
        except (Exception, SystemExit) as error:  # noqa: BLE001  of the user's own code
            return "", "", reason_of(error)


def reason_of(error: BaseException) -> str:
    """The reason of an error of a sample, in one line."""
    return " ".join(str(error).split()) if isinstance(error, KdcacheError) else exception_text(error)


def open_readable(spec: str, arguments: dict[str, Any], progress: Progress = silent) -> Data:
    """The data set of a spec; without labels where they can only be read with a sample that cannot be read."""
    try:
        return open_data(spec, arguments, progress=progress)
    except SampleError:
        data = open_data(spec, arguments, labels="none", progress=progress)
        note = "labels are read with their samples, some of which cannot be read: no label is told"
        return replace(data, notes=(*data.notes, note))


def scan_samples(data: Data, workers: int, progress: Progress = silent, indices: IntArray | None = None) -> Scan:
    """Read every sample once, or those at `indices` alone, in `workers` processes or in this one where it is 0."""
    start_time = time.monotonic()
    indices = np.arange(len(data.ids)) if indices is None else indices
    data = part_of(data, indices)
    bad, sizes, modes = list[BadSample](), Counter[str](), Counter[str]()
    for index, (size, mode, problem) in enumerate(_forms(data, workers)):
        if problem:
            bad.append(BadSample(index=int(indices[index]), id=data.ids[index], reason=problem))
        else:
            sizes[size] += 1
            modes[mode] += 1
        progress(Activity("reading", "samples"), index + 1, len(data.ids))
    labels, counts = np.unique(data.labels, return_counts=True)
    by_label = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    names = dict(enumerate(data.class_names)) or {label: str(label) for label in by_label if label >= 0}
    return Scan(
        data=data.name,
        rows=len(data),
        bad=tuple(bad),
        classes={name: by_label[label] for label, name in names.items() if label in by_label},
        empty_classes=tuple(name for label, name in names.items() if label not in by_label),
        without_label=sum(count for label, count in by_label.items() if label < 0),
        sizes=_most_frequent(sizes),
        modes=_most_frequent(modes),
        seconds=time.monotonic() - start_time,
        shared_memory=_free_shared_memory(),
        notes=tuple(getattr(data, "notes", ())),
    )


def _forms(data: Data, workers: int) -> Any:
    """Size, mode and problem of each sample in order."""
    loader = torch.utils.data.DataLoader(
        _Reading(data.samples),
        batch_size=None,
        sampler=range(len(data.ids)),
        num_workers=workers,
        collate_fn=_same,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        generator=torch.Generator(),
    )
    try:
        yield from loader
    except RuntimeError as error:  # a worker that was killed, as by the memory that a picture takes
        problem = f"a process that reads samples died ({error})"
        raise InvalidInputError(f"{problem}; read them in this one with --workers 0") from error


def _same(item: Any) -> Any:
    return item


def _form(image: Any) -> tuple[str, str]:
    """Size (width x height, or the shape) and mode (or the dtype and channels) of an image."""
    if isinstance(image, PIL.Image.Image):
        return f"{image.width}x{image.height}", image.mode
    if isinstance(image, torch.Tensor | np.ndarray):
        shape, dtype = tuple(image.shape), str(image.dtype).removeprefix("torch.")
        if isinstance(image, torch.Tensor) and len(shape) == 3:
            return f"{shape[2]}x{shape[1]}", f"tensor {dtype}, {shape[0]} channels"
        return "x".join(map(str, shape)), f"{type(image).__name__} {dtype}"
    return "-", type(image).__name__


def _most_frequent(counts: Counter[str]) -> dict[str, int]:
    """The most frequent kinds, and how many samples the others have."""
    shown = dict(counts.most_common(KINDS))
    rest = sum(counts.values()) - sum(shown.values())
    return shown | ({f"{len(counts) - len(shown)} others": rest} if rest else {})


def _free_shared_memory() -> int | None:
    try:
        place = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return place.f_bavail * place.f_frsize
