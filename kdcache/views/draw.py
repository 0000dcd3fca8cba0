"""Drawing views: seeding, the memory they are drawn into, pixel fingerprints and thumbnails.

View v of sample i is a pure function of (view plan, i, v). Its pixels are the same in every batch, worker and order, in
extract and in train. Shape letters: V views, B rows, and [ch, H, W] of one view.
"""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from kdcache.base.user_code import sample_error
from kdcache.base.view_span import ViewSpan
from kdcache.errors import SampleError
from kdcache.labels.encoding import Contents
from kdcache.store.plan import Mixing, ViewPlan, key_word, mixing_of
from kdcache.views.contents import content_fingerprint, unread_fingerprint
from kdcache.views.fingerprint import header, tails
from kdcache.views.images import difference_error
from kdcache.views.reading import is_strikable, read_image
from kdcache.views.transforms import Transform, as_tensor, image_of, is_known

IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


EmptyImages = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Memory for images of a shape and dtype; in a worker it is shared with the main process."""


class Samples(Protocol):
    """A data set: (image, label) by index, untransformed and always the same; label -1 for none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class ViewRequest:
    """A request for some views of some positions, drawn together; `tag` is handed back untouched."""

    views: ViewSpan
    positions: IntArray
    tag: tuple[int, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """The views of a request, not mixed yet: `images` [V, B, ch, H, W] and, by view, the `mixing` that is to be done.

    `pixels` [V, B] u8 are the low bytes of the fingerprints, which cover the mixing too. `contents` [B] u32 are the
    samples' content fingerprints, by what they are taken over. `unread` [U] are the rows whose samples could not be
    read, and whose views are stand-ins.
    """

    request: ViewRequest
    images: Tensor
    mixing: list[Mixing]
    pixels: npt.NDArray[np.uint8]
    contents: dict[Contents, npt.NDArray[np.uint32]]
    unread: tuple[int, ...] = ()


@dataclass(frozen=True)
class DrawnRows:
    """Rows of one view as they were drawn, D of them: `positions` [D] i64, `pixels` [D] u8 and, by what they are taken
    over, `contents` [D] u32."""

    positions: IntArray
    pixels: npt.NDArray[np.uint8]
    contents: Mapping[Contents, npt.NDArray[np.uint32]]


class ViewDataset(torch.utils.data.Dataset[Drawn]):
    """Draws the views of requests, in the main process or in a worker. A sample is decoded once for all its views.
    `contents`: what content fingerprints are taken over. `ids`: names of the samples, for messages. `stand_in`
    [ch, H, W] is the view of samples that cannot be read and may be struck; None where they may not.

    Raises SampleError, with the sample's index, for whatever the data set or the transform raises.
    """

    def __init__(
        self,
        samples: Samples,
        order: IntArray,
        plan: ViewPlan,
        transform: Transform,
        contents: tuple[Contents, ...] = (),
        ids: Sequence[str] = (),
        stand_in: Array | None = None,
    ) -> None:
        self.samples = samples
        self.order = order
        self.plan = plan
        self.transform = transform
        self.contents = contents
        self.ids = ids
        self.stand_in = stand_in
        self.index: Any = None  # in a worker, where the main process reads which sample is drawn
        self.empty_images: EmptyImages = _empty_images
        self._known = is_known(transform)

    def __getitem__(self, request: ViewRequest) -> Drawn:
        stack = _Stack(self.plan, request, len(self.order), self.empty_images)
        contents = {kind: np.empty(len(request.positions), dtype=np.uint32) for kind in self.contents}
        with own_generators(), one_thread():
            for row, position in enumerate(request.positions.tolist()):
                index = int(self.order[position])
                try:
                    image = self._read(index, row, contents)
                except SampleError as error:
                    if self.stand_in is None or not is_strikable(error):
                        raise
                    stack.put_unread(row, index, self.stand_in)
                    for kind, fingerprints in contents.items():
                        fingerprints[row] = unread_fingerprint(self.samples, index, kind)
                    continue
                for view in request.views:
                    stack.put(view - request.views.start, row, index, self._draw(image, index, view))
        return stack.result(contents)

    def _draw(self, image: Any, index: int, view: int) -> Array:
        """One view, as `draw_view` gives it. A known transform needs no copy, and torch's generator alone."""
        seed_generators(self.plan.seed, index, view, torch_alone=self._known)
        try:
            return _values(self.transform(image if self._known else _copy(image)), index)
        except (Exception, SystemExit) as error:
            raise sample_error(error, index, self.sample_name(index), "transform") from error

    def _read(self, index: int, row: int, contents: dict[Contents, npt.NDArray[np.uint32]]) -> Any:
        """The image of a sample, as its transform takes it; its content fingerprints are put into their `row`."""
        if self.index is not None:
            self.index.value = index
        try:
            image = read_image(self.samples, index)
            for kind, fingerprints in contents.items():
                fingerprints[row] = content_fingerprint(self.samples, index, image, kind)
            return image_of(image, index, self.transform)
        except (Exception, SystemExit) as error:
            raise sample_error(error, index, self.sample_name(index), "data set") from error

    def fingerprints(self, position: int, views: ViewSpan) -> tuple[list[int], dict[Contents, int]]:
        """The low bytes of the fingerprints of one sample's views, the last of them drawn first, and its content
        fingerprints. It leaves the generators as they come, since it is for a process that does nothing else."""
        index, request = int(self.order[position]), ViewRequest(views, np.array([position]))
        contents = {kind: np.empty(1, dtype=np.uint32) for kind in self.contents}
        stack = _Stack(self.plan, request, len(self.order), _empty_images)
        image = self._read(index, 0, contents)
        for view in reversed(range(views.start, views.stop)):
            stack.put(view - views.start, 0, index, self._draw(image, index, view))
        pixels: list[int] = stack.result(contents).pixels[:, 0].tolist()
        return pixels, {kind: int(values[0]) for kind, values in contents.items()}

    def sample_name(self, index: int) -> str:
        """The id of a sample; "" where it is not known."""
        return self.ids[index] if 0 <= index < len(self.ids) else ""

    def named_sample(self, index: int) -> str:
        """A sample as messages name it: by its index, and its id where it is known."""
        name = self.sample_name(index)
        return f"sample {index}" + (f" ({name})" if name else "")


def _empty_images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)


class _Stack:
    """Collects the views of a request, one by one, in the memory that is handed over: in a worker it is shared."""

    def __init__(self, plan: ViewPlan, request: ViewRequest, rows: int, empty_images: EmptyImages) -> None:
        self._plan, self._request, self._rows, self._empty_images = plan, request, rows, empty_images
        self._images: Tensor | None = None
        self._unread: list[int] = []

    def put_unread(self, row: int, index: int, stand_in: Array) -> None:
        """Note a row whose sample could not be read, and let one picture [ch, H, W] stand for its views."""
        self._unread.append(row)
        for offset in range(len(self._request.views)):
            self.put(offset, row, index, stand_in)

    def put(self, offset: int, row: int, index: int, image: Array) -> None:
        """Copy one view [ch, H, W] of sample `index` in and take its fingerprint while it lies in the processor's
        cache."""
        if self._images is None:
            self._begin(image)
            self._first_index = index
        elif image.shape != self._array.shape[2:] or image.dtype != self._array.dtype:
            raise difference_error(self._array[0, 0], image, (self._first_index, index))
        target = self._array[offset, row]
        np.copyto(target, image)
        digest = self._header.copy()
        digest.update(target.data)
        digest.update(self._tails[offset][row])
        self._pixels[offset, row] = digest.intdigest() & 0xFF

    def _begin(self, image: Array) -> None:
        """Make memory for all views, and draw their mixing, by the size of the first view [ch, H, W]."""
        request, size = self._request, (int(image.shape[-2]), int(image.shape[-1]))
        views, row_count = request.views, len(request.positions)
        dtype = torch.from_numpy(np.empty(0, image.dtype)).dtype
        self._images = self._empty_images((len(views), row_count, *image.shape), dtype)
        self._array = self._images.numpy()
        self._mixing = [mixing_of(self._plan, request.positions, view, self._rows, size) for view in views]
        self._tails = [tails(mixing) for mixing in self._mixing]
        self._header = header(self._images[0, 0])
        self._pixels = np.empty((len(views), row_count), dtype=np.uint8)

    def result(self, contents: dict[Contents, npt.NDArray[np.uint32]]) -> Drawn:
        assert self._images is not None
        return Drawn(self._request, self._images, self._mixing, self._pixels, contents, tuple(self._unread))


def draw_view(transform: Transform, image: Any, seed: int, index: int, view: int) -> Tensor:
    """One view [ch, H, W] of a decoded sample: seeds the three global generators, then transforms a copy."""
    seed_generators(seed, index, view)
    image = transform(_copy(image_of(image, index, transform)))
    return torch.from_numpy(np.array(_values(image, index), order="C"))  # a transform may use its memory again


def _values(image: Any, index: int) -> Array:
    """A transform's result as [channels, height, width] in any strides. Raises InvalidInputError for no image."""
    if isinstance(image, PIL.Image.Image) and image.mode == "RGB":
        return np.asarray(image).transpose(2, 0, 1)
    return as_tensor(image, index).numpy()


def seed_generators(seed: int, index: int, view: int, *, torch_alone: bool = False) -> None:
    """Seed torch, random and numpy with independent words: equal seeds would give torch and numpy equal numbers."""
    torch.default_generator.manual_seed(key_word(seed, index, view, "torch") & 0x7FFF_FFFF_FFFF_FFFF)
    if torch_alone:
        return
    random.seed(key_word(seed, index, view, "random"))
    word = key_word(seed, index, view, "numpy")
    np.random.seed([word & 0xFFFFFFFF, word >> 32])


@contextmanager
def own_generators() -> Iterator[None]:
    """Restore the process's own generator states afterwards: once a request, since this costs more than a seed."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, as a loader worker does. Sums over several threads round otherwise: a float
    ColorJitter of 224 pixels differs in 13 of 16 views between one thread and two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def stack_views(images: Sequence[Tensor]) -> Tensor:
    """Views [ch, H, W] as one tensor [B, ch, H, W]. Raises InvalidInputError where they differ in shape or dtype."""
    for image in images:
        if image.shape != images[0].shape or image.dtype != images[0].dtype:
            raise difference_error(images[0].numpy(), image.numpy())
    return torch.stack(list(images))


def thumbnails(images: Tensor) -> npt.NDArray[np.uint8]:
    """Thumbnails [B, 3, 8, 8] u8 of views [B, ch, H, W]: area means. A float x counts as 48 x + 104, which covers
    normalised images."""
    values = images.to(torch.float32)
    if images.dtype != torch.uint8:
        values = 48.0 * values + 104.0
    values = values.expand(-1, 3, -1, -1) if values.shape[1] == 1 else values[:, :3]
    if values.shape[1] == 2:
        values = torch.cat([values, values[:, :1]], dim=1)
    means = torch.nn.functional.adaptive_avg_pool2d(values, (8, 8))
    return means.round().clamp(0, 255).to(torch.uint8).numpy()


def _copy(image: Any) -> Any:
    """A copy for one view, which a transform that works in place may change."""
    if isinstance(image, Tensor):
        return image.clone()
    return image.copy() if hasattr(image, "copy") else copy.deepcopy(image)
