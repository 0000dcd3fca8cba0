"""The drawing of views for training: batches of rows become images, drawn, normalised and mixed.

Shape letters: B rows, [ch, H, W] of an image.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import tee

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.errors import ReplayError
from kdcache.networks.answers import are_tokens
from kdcache.networks.preparation import Preparation, normalisation
from kdcache.training.batch_order import BatchOrder, BatchRows
from kdcache.training.loader_options import FeedOptions
from kdcache.views.draw import DrawnRows, ViewDataset
from kdcache.views.mixing import mix_rows, with_partners
from kdcache.views.texts import rows_of_texts
from kdcache.views.view_stack import Drawn, ViewRequest
from kdcache.views.workers import draw_requests


@dataclass(frozen=True)
class BatchImages:
    """The images of a batch: `images` [B, ch, H, W] f32 on the device, mixed with those of their `partners` [B]; of
    texts their tokens [B, S] i64.

    drawn: all rows that were drawn, those of partners alone behind the batch's. lam: [B] f64, the weight of each row
    itself. served: the number of rows that a cache gave.
    """

    images: Tensor
    drawn: DrawnRows
    partners: IntArray
    lam: npt.NDArray[np.float64]
    served: int = 0


class ViewDrawing:
    """Draws the images of batches, in this process or ahead in `workers` processes, which serve one stream."""

    def __init__(self, dataset: ViewDataset, options: FeedOptions) -> None:
        self.dataset, self.options = dataset, options
        self._preparation: Preparation | None = None
        self.rows = self.served = 0  # rows that were drawn so far, and those of them that a cache of views gave
        self.row_bytes = 0  # of a view
        self.distrusts = False  # true once rows of a cache were not the store's

    def stream(self, batches: Iterable[BatchRows]) -> Generator[tuple[BatchRows, BatchImages]]:
        """Each batch with its images. The workers end with the stream, or when it is closed."""
        batches, ahead = tee(batches)
        requests, options = _requests(self.dataset, ahead), self.options
        with closing(draw_requests(self.dataset, requests, options.workers, options.worker_start)) as items:
            for batch in batches:
                yield batch, self._images(batch, next(items)) if len(batch.positions) else self._no_rows()
            assert next(items, None) is None

    @cached_property
    def _afresh(self) -> ViewDataset:
        return self.dataset.afresh()

    def compared(self, batch: BatchRows, images: BatchImages, compare: Callable[[DrawnRows], None]) -> BatchImages:
        """The images of a batch once `compare` finds their rows to be the store's. Where it does not, and caches serve,
        which may have other pictures, this batch and all that follow are drawn from their samples. Raises what
        `compare` raises."""
        if not len(batch.positions):
            return images
        self.rows += len(images.drawn.positions)
        if not self.distrusts:
            try:
                compare(images.drawn)
                self.served += images.served
                return images
            except ReplayError:
                if not self.dataset.caches.serve:
                    raise
            self.distrusts = True
        images = self._images(batch, self._afresh[_request(self.dataset, batch)])
        compare(images.drawn)
        return images

    def spread_views(self, order: BatchOrder, rows: int) -> dict[str, Tensor]:
        """Prepared views [1, ch, H, W] of up to `rows` positions, spread over those of an order, not mixed, by the
        sample's name."""
        views, span = {}, ViewSpan.of(order.cycle[0])
        for place in np.unique(np.linspace(0, len(order.positions) - 1, rows).astype(np.int64)).tolist():
            position = int(order.positions[place])
            index = int(self.dataset.order[position])
            name = f"sample {index} ({self.dataset.sample_name(index)})"
            views[name] = self._prepared(self.dataset[ViewRequest(span, np.array([position]))].images[0])
        return views

    def _images(self, batch: BatchRows, drawn: Drawn) -> BatchImages:
        count, mixing = len(batch.positions), drawn.mixing[0]
        self.row_bytes = drawn.images[0, 0].nbytes
        images = self._prepared(drawn.images[0])
        images = mix_rows(images, mixing, drawn.request.positions, count, self.dataset.plan.mix)
        positions = rows_of_texts(drawn.request.positions, self.dataset.sequence)
        rows = DrawnRows(positions, drawn.pixels[0], drawn.contents)
        return BatchImages(images, rows, mixing.partners[:count], mixing.lam[:count], drawn.served)

    def _no_rows(self) -> BatchImages:
        """The images of a share without rows, whose size nobody has seen."""
        sequence = self.dataset.sequence
        images = torch.empty(0, 1, 1, 1) if sequence == 1 else torch.empty(0, sequence, dtype=torch.int64)
        no_rows = np.empty(0, np.int64)
        drawn = DrawnRows(no_rows, np.empty(0, np.uint8), {})
        return BatchImages(images.to(self.options.device), drawn, no_rows, np.empty(0))

    def _prepared(self, images: Tensor) -> Tensor:
        if self._preparation is None:
            options = self.options
            is_float = images.is_floating_point()
            mean, std = tuple[float, ...](), tuple[float, ...]()
            if not are_tokens(images):
                mean, std = normalisation(options.mean, options.std, channels=images.shape[1], floating=is_float)
            self._preparation = Preparation(mean, std, options.device)
        return self._preparation(images)


def served_share(drawings: Sequence[ViewDrawing]) -> float | None:
    """The share of the views that were dealt so far which a cache gave; None without a cache of views."""
    cached = [drawing for drawing in drawings if drawing.dataset.caches.views is not None]
    rows = sum(drawing.rows for drawing in cached)
    return sum(drawing.served for drawing in cached) / rows if rows else None


def _requests(dataset: ViewDataset, batches: Iterable[BatchRows]) -> Iterator[ViewRequest]:
    """A request for each batch that has rows, with the partners that are drawn only to be mixed in."""
    for batch in batches:
        if len(batch.positions):
            yield _request(dataset, batch)


def _request(dataset: ViewDataset, batch: BatchRows) -> ViewRequest:
    positions = with_partners(dataset.plan, batch.positions, batch.view, len(dataset.order))
    return ViewRequest(ViewSpan.of(batch.view), positions)
