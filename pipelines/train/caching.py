"""The caches of a training's views: what they cost and gain, for people, and why they do not hold all."""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kdcache.base.view_span import ViewSpan
from kdcache.errors import KdcacheError
from kdcache.pipelines.settings import TrainSettings
from kdcache.training.batch_stream import BatchStream
from kdcache.training.view_drawing import ViewDrawing
from kdcache.views.pixel_caches import NO_CACHES, room_notes
from kdcache.views.view_cache import cached_bytes
from kdcache.views.view_stack import ViewRequest

TRIED = 16  # views that are drawn to see how long they take
WORTH = 60.0  # seconds of drawing that a cache would save, for which it is named


@dataclass(frozen=True)
class DrawingCost:
    """The drawing of one view of all samples: its seconds on one core, and the bytes that it takes in a cache; 0 for
    views that are not of 8 bits."""

    samples: int
    seconds: float
    bytes: int

    @classmethod
    def tried(cls, drawing: ViewDrawing, view: int) -> "DrawingCost":
        """As some samples show, which are drawn for it."""
        dataset = copy.copy(drawing.dataset)
        dataset.caches = NO_CACHES
        rows = len(dataset.order)
        positions = np.unique(np.linspace(0, rows - 1, TRIED).astype(np.int64))
        start_time = time.thread_time()
        images = dataset[ViewRequest(ViewSpan.of(view), positions)].images
        seconds = (time.thread_time() - start_time) / len(positions)
        row_bytes = images[0, 0].nbytes if images.dtype == torch.uint8 else 0
        return cls(rows, rows * seconds, cached_bytes(rows, row_bytes) if row_bytes else 0)


def cache_text(settings: TrainSettings, stream: BatchStream) -> str:
    """Costs and gains of a cache of views in a training, or why there is none. Empty where none is named, and none
    would save a minute."""
    views = stream.cycle[: stream.epochs]
    try:
        costs = [DrawingCost.tried(drawing, views[0]) for drawing in stream.drawings]
    except KdcacheError:  # of a struck sample, or of what the first epoch will name
        return ""
    seconds = sum(cost.seconds for cost in costs)
    size = len(views) * sum(cost.bytes for cost in costs)
    rows = sum(cost.samples for cost in costs)
    subject = f"{len(views)} view{'s' * (len(views) > 1)} of {rows:,} samples"
    saved = seconds * (stream.epochs - len(views))
    if not settings.view_cache:
        is_worth = saved >= WORTH and size and not settings.decoded_cache
        later = _minutes(seconds * stream.epochs)
        gain = f"{_gigabytes(size)} and saves {_minutes(saved)} of one core here, {later} in each run that follows"
        return f"{subject}: --view-cache FOLDER keeps them in {gain}" if is_worth else ""
    caches = [drawing.dataset.caches for drawing in stream.drawings]
    if notes := [note for each in caches for note in each.notes]:
        return notes[0]
    if not size:
        return "view cache: views are not of 8 bits, and only such are kept"
    kept = sum(each.views.rows_kept(view) for each in caches if each.views is not None for view in views)
    share, effort = kept / (len(views) * rows), f"drawing a view of all samples takes {_minutes(seconds)} of one core"
    return f"view cache: {subject}, {_gigabytes(size)}, of which {share:.0%} are there; {effort}"


def cache_notes(stream: BatchStream) -> list[str]:
    """Why caches that were named do not hold all that a training drew."""
    views = stream.cycle[: stream.epochs]
    return [note for drawing in stream.drawings if drawing.rows for note in _notes(drawing, views)]


def _notes(drawing: ViewDrawing, views: Sequence[int]) -> Iterator[str]:
    caches = drawing.dataset.caches
    yield from caches.notes
    if drawing.distrusts:
        yield "what was cached is of other pictures than the store's, so views were drawn; remove the cache's folder"
    if caches.views is not None:
        yield from room_notes(caches.views, views, caches.views.file_bytes(drawing.row_bytes))
    if caches.decoded is not None and drawing.served < drawing.rows:
        yield from room_notes(caches.decoded, views, max(caches.decoded.folder.largest(), 1))


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


def _gigabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
