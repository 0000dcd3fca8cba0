"""The memory that the views of a request are drawn into, one by one, with their pixel fingerprints.

Shape letters: V views, B samples, and [ch, H, W] of one view. A text of S tokens is a view [S], and S rows of the
store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Contents
from kdcache.store.plan import Mixing, ViewPlan, mixing_of
from kdcache.views.fingerprint import header, tails, token_fingerprints
from kdcache.views.images import difference_error

Array = npt.NDArray[Any]

EmptyImages = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Memory for images of a shape and dtype; in a worker it is shared with the main process."""


def empty_images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory of this process alone."""
    return torch.empty(shape, dtype=dtype)


@dataclass(frozen=True)
class ViewRequest:
    """A request for some views of some positions, drawn together; `tag` is handed back untouched. Those of texts count
    texts."""

    views: ViewSpan
    positions: IntArray
    tag: tuple[int, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """The views of a request, not mixed yet: `images` [V, B, ch, H, W] and, by view, the `mixing` that is to be done.

    `pixels` [V, B] u8 are the low bytes of the fingerprints, which cover the mixing too. `contents` [B] u32 are the
    samples' content fingerprints, by what they are taken over. `unread` [U] are the rows whose samples could not be
    read, and whose views are stand-ins. `served`: the number of rows that a cache gave.

    Of texts `images` are tokens [V, B, S] i32; `pixels` [V, B S] and `contents` [B S] are of their tokens.
    """

    request: ViewRequest
    images: Tensor
    mixing: list[Mixing]
    pixels: npt.NDArray[np.uint8]
    contents: dict[Contents, npt.NDArray[np.uint32]]
    unread: tuple[int, ...] = ()
    served: int = 0


class ViewStack:
    """Collects the views of a request, one by one, in the memory that is handed over: in a worker it is shared."""

    def __init__(self, plan: ViewPlan, request: ViewRequest, rows: int, empty_images: EmptyImages) -> None:
        self._plan, self._request, self._rows, self._empty_images = plan, request, rows, empty_images
        self._images: Tensor | None = None
        self.served = 0  # rows that a cache gave
        self._unread: list[int] = []

    def put_unread(self, row: int, index: int, stand_in: Array) -> None:
        """Note a row whose sample could not be read, and let one picture [ch, H, W] stand for its views."""
        self._unread.append(row)
        for offset in range(len(self._request.views)):
            self.put(offset, row, index, stand_in)

    @property
    def views(self) -> ViewSpan:
        """The views of the request."""
        return self._request.views

    def put(self, offset: int, row: int, index: int, image: Array) -> int:
        """Copy one view [ch, H, W] of sample `index` in and take its fingerprint while it lies in the processor's
        cache. Returns 64 bits of xxh3 over dtype, shape and pixels of the copy, with which the fingerprint begins."""
        if self._images is None:
            self._begin(image)
            self._first_index = index
        elif image.shape != self._array.shape[2:] or image.dtype != self._array.dtype:
            raise difference_error(self._array[0, 0], image, (self._first_index, index))
        target = self._array[offset, row]
        np.copyto(target, image)
        if self._sequence > 1:
            first = row * self._sequence
            self._pixels[offset, first : first + self._sequence] = token_fingerprints(target)
            return 0
        digest = self._header.copy()
        digest.update(target.data)
        pixels = digest.intdigest()
        digest.update(self._tails[offset][row])
        self._pixels[offset, row] = digest.intdigest() & 0xFF
        return pixels

    def image(self, offset: int, row: int) -> Array:
        """A view [ch, H, W] that was put in."""
        view: Array = self._array[offset, row]
        return view

    def _begin(self, image: Array) -> None:
        """Make memory for all views, and draw their mixing, by the size of the first view [ch, H, W]."""
        request, size = self._request, (int(image.shape[-2]) if image.ndim > 1 else 1, int(image.shape[-1]))
        views, row_count = request.views, len(request.positions)
        self._sequence = image.shape[0] if image.ndim == 1 else 1
        dtype = torch.from_numpy(np.empty(0, image.dtype)).dtype
        self._images = self._empty_images((len(views), row_count, *image.shape), dtype)
        self._array = self._images.numpy()
        self._mixing = [mixing_of(self._plan, request.positions, view, self._rows, size) for view in views]
        self._tails = [tails(mixing) for mixing in self._mixing]
        self._header = header(self._images[0, 0])
        self._pixels = np.empty((len(views), row_count * self._sequence), dtype=np.uint8)

    def result(self, contents: dict[Contents, npt.NDArray[np.uint32]]) -> Drawn:
        assert self._images is not None
        by_row = {kind: np.repeat(values, self._sequence) for kind, values in contents.items()}
        return Drawn(self._request, self._images, self._mixing, self._pixels, by_row, tuple(self._unread), self.served)
