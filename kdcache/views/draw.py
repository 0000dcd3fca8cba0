"""Drawing views: seeding, decoding, transforming, and thumbnails.

View v of sample i is a pure function of (view plan, i, v). Its pixels are the same in every batch, worker and order, in
extract and in train. Shape letters: V views, B rows, and [ch, H, W] of one view.
"""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.user_code import sample_error
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, SampleError
from kdcache.labels.encoding import Contents
from kdcache.store.plan import ViewPlan, key_word
from kdcache.views.contents import (
    ContentArrays,
    content_fingerprint,
    fingerprints_in,
    put_fingerprints,
    unread_fingerprint,
)
from kdcache.views.images import difference_error
from kdcache.views.pixel_caches import NO_CACHES, PixelCaches
from kdcache.views.reading import is_strikable, read_image
from kdcache.views.texts import sequence_of
from kdcache.views.transforms import Transform, as_tensor, image_of, is_known
from kdcache.views.view_stack import Drawn, EmptyImages, ViewRequest, ViewStack, empty_images

Array = npt.NDArray[Any]


class Samples(Protocol):
    """A data set: (image, label) by index, untransformed and always the same; label -1 for none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class DrawnRows:
    """Rows of one view as they were drawn, D of them: `positions` [D] i64, `pixels` [D] u8 and, by what they are taken
    over, `contents` [D] u32."""

    positions: IntArray
    pixels: npt.NDArray[np.uint8]
    contents: Mapping[Contents, npt.NDArray[np.uint32]]


class ViewDataset(torch.utils.data.Dataset[Drawn]):
    """Draws the views of requests, in the main process or in a worker. A sample is decoded once for all its views. Of
    texts `order` [Q] is that of texts, and requests name texts by their place in it.
    `contents`: what content fingerprints are taken over. `ids`: names of the samples, for messages. `stand_in`
    [ch, H, W] is the view of samples that cannot be read and may be struck; None where they may not. `caches` serve
    pixels that were drawn before, and keep those that are drawn.

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
        caches: PixelCaches = NO_CACHES,
    ) -> None:
        self.samples = samples
        self.order = order
        self.plan = plan
        self.transform = transform
        self.contents = contents
        self.ids = ids
        self.stand_in = stand_in
        self.caches = caches
        self.index: Any = None  # in a worker, where the main process reads which sample is drawn
        self.empty_images: EmptyImages = empty_images
        self.sequence = sequence_of(samples)
        self._known = is_known(transform)

    def __getitem__(self, request: ViewRequest) -> Drawn:
        stack = ViewStack(self.plan, request, len(self.order), self.empty_images)
        contents = {kind: np.empty(len(request.positions), dtype=np.uint32) for kind in self.contents}
        indices = self.order[request.positions].tolist()
        missing: Sequence[int] = range(len(indices))
        if (cache := self.caches.views) is not None and cache.serves:
            missing, fingerprints = cache.serve(request.views, indices, stack.put)
            put_fingerprints(contents, fingerprints)
            stack.served = len(indices) - len(missing)
        with drawing() if missing else nullcontext():
            try:
                for row in missing:
                    self._fill(stack, row, indices[row], contents)
            except InvalidInputError:  # views of two sizes
                if not stack.served:
                    raise
                return self.afresh()[request]
        return stack.result(contents)

    def _fill(self, stack: ViewStack, row: int, index: int, contents: ContentArrays) -> None:
        """Draw the views of one sample into their row, and keep them where there is a cache."""
        try:
            image = self._read(index, row, contents)
        except SampleError as error:
            if self.stand_in is None or not is_strikable(error):
                raise
            stack.put_unread(row, index, self.stand_in)
            for kind, fingerprints in contents.items():
                fingerprints[row] = unread_fingerprint(self.samples, index, kind)
            return
        for offset, view in enumerate(stack.views):
            digest = stack.put(offset, row, index, self._draw(image, index, view))
            if self.caches.views is not None:
                self.caches.views.keep(view, index, stack.image(offset, row), digest, fingerprints_in(contents, row))

    def afresh(self) -> "ViewDataset":
        """The same views, all of them drawn; caches keep what is drawn."""
        return self.filling(self.caches)

    def filling(self, caches: PixelCaches) -> "ViewDataset":
        """The same views, all of them drawn; these caches keep what is drawn."""
        dataset = copy.copy(self)
        dataset.caches = caches.keeping()
        return dataset

    def _draw(self, image: Any, index: int, view: int) -> Array:
        """One view, as `draw_view` gives it. A known transform needs no copy, and torch's generator alone. A text is
        the same in all views."""
        if self.sequence > 1:
            return np.asarray(image)
        seed_generators(self.plan.seed, index, view, torch_alone=self._known)
        try:
            return _values(self.transform(image if self._known else _copy(image)), index)
        except (Exception, SystemExit) as error:
            raise sample_error(error, index, self.sample_name(index), "transform") from error

    def _read(self, index: int, row: int, contents: ContentArrays) -> Any:
        """The image of a sample, as its transform takes it; its content fingerprints are put into their `row`."""
        if self.index is not None:
            self.index.value = index
        try:
            return image_of(self._decoded(index, row, contents), index, self.transform)
        except (Exception, SystemExit) as error:
            raise sample_error(error, index, self.sample_name(index), "data set") from error

    def _decoded(self, index: int, row: int, contents: ContentArrays) -> Any:
        cache = self.caches.decoded
        if cache is not None and cache.serves and (stored := cache.get(index)) is not None:
            image, fingerprints = stored
            for kind, value in zip(sorted(contents), fingerprints, strict=False):
                contents[kind][row] = value
            return image
        image = read_image(self.samples, index)
        for kind, values in contents.items():
            values[row] = content_fingerprint(self.samples, index, image, kind)
        if cache is not None:
            cache.keep(index, image, fingerprints_in(contents, row))
        return image

    def fingerprints(self, position: int, views: ViewSpan) -> tuple[list[int], dict[Contents, int]]:
        """The low bytes of the fingerprints of one sample's views, the last of them drawn first, and its content
        fingerprints. It leaves the generators as they come, since it is for a process that does nothing else."""
        index, request = int(self.order[position]), ViewRequest(views, np.array([position]))
        contents = {kind: np.empty(1, dtype=np.uint32) for kind in self.contents}
        stack = ViewStack(self.plan, request, len(self.order), empty_images)
        image = self._read(index, 0, contents)
        for view in reversed(range(views.start, views.stop)):
            stack.put(view - views.start, 0, index, self._draw(image, index, view))
        pixels: list[int] = stack.result(contents).pixels[:, -1].tolist()  # of a text the last covers all tokens
        return pixels, {kind: int(values[0]) for kind, values in contents.items()}

    def sample_name(self, index: int) -> str:
        """The id of a sample; "" where it is not known."""
        return self.ids[index] if 0 <= index < len(self.ids) else ""

    def named_sample(self, index: int) -> str:
        """A sample as messages name it: by its index, and its id where it is known."""
        name = self.sample_name(index)
        return f"sample {index}" + (f" ({name})" if name else "")


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
def drawing() -> Iterator[None]:
    """Around all drawing of a request."""
    with own_generators(), one_thread():
        yield


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
