"""Extracting one block: drawn views through the teacher, reduced on its device, encoded as the store's arrays.

Every engine calls this one extractor. Batches are cut inside a block, so that a block's bytes do not
depend on what was extracted before it. Shape letters: G rows of a mixing group, B rows of a batch, R rows of a block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.devices import to_device
from kdcache.base.view_span import ViewSpan
from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.labels.quantising import LOWEST_F16, Encoded, encode_topk
from kdcache.labels.reduction import TopK, centre, finite_rows, label_distances, reduce_topk, tail_sums
from kdcache.networks.batch_buffers import Feed, recorded
from kdcache.networks.loop_memory import LoopMemory, loop_memory
from kdcache.networks.teacher import Teacher
from kdcache.store.commits import Counts
from kdcache.store.layout import SegmentLayout
from kdcache.store.manifest import Identity
from kdcache.store.plan import GROUP, Mixing
from kdcache.views.draw import Drawn, ViewRequest, thumbnails
from kdcache.views.mixing import mix_images

Array = npt.NDArray[Any]
UNIT_BYTES = 16_000_000  # views that a worker hands over at once: all views of some rows, where they fit
GROUP_BYTES = 128_000_000  # under mixing a group is drawn whole, with as many of its views as this allows


@dataclass(frozen=True)
class Unit:
    """One view of one mixing group: unmixed images [G, ch, H, W] and how they are mixed."""

    view: int
    first: int
    images: Tensor
    mixing: Mixing


@dataclass(frozen=True)
class BlockAnswer:
    """What the teacher said of a block, on its way to the host: `fields` [V, R, ...] by name, `pixels` [V, R] u8, in
    block 0 the canary's thumbnails [V, 64, 3, 8, 8] u8 and, where class means are kept, each batch's
    `reduction.tail_sums` [2, C]. Nothing may be read before `ready`."""

    block: int
    fields: dict[str, Tensor]
    pixels: Array
    canary: Array | None
    tail_sums: list[Tensor]
    ready: torch.cuda.Event | None


@dataclass(frozen=True)
class BlockExtractor:
    """Extracts blocks of one segment: `requests`, then `ask` on the device, then `encode` on the writer's thread.

    `labels` [N] are hard labels by position; `sample_name(position)` names a sample in errors; every forward sees
    `batch_rows` rows, a multiple of 64; `view_bytes` is the size of one drawn view.
    """

    layout: SegmentLayout
    identity: Identity
    teacher: Teacher
    labels: IntArray
    sample_name: Callable[[int], str]
    batch_rows: int
    view_bytes: int

    @cached_property
    def feed(self) -> Feed:
        """Buffers on the way to the teacher; blocks are asked one at a time."""
        return Feed(self.teacher.preparation)

    @property
    def memory(self) -> LoopMemory:
        """What extracting blocks with this may take over what stands before the first."""
        return loop_memory(
            self.layout,
            classes=self.identity.teacher.classes,
            view_bytes=self.view_bytes,
            request=request_size(self.identity, len(self.layout.views), self.view_bytes),
            batch_rows=self.batch_rows,
        )

    def requests(self, block: int) -> Iterator[ViewRequest]:
        """The views that make up a block. A sample is decoded once a request: so all its views at once where memory
        allows, and fewer rows instead; under mixing whole groups, since partners differ from view to view."""
        (start, stop), views = self.layout.block_rows(block), self.layout.views
        rows, count = request_size(self.identity, len(views), self.view_bytes)
        for first in range(start, stop, rows):
            positions = np.arange(first, min(first + rows, stop), dtype=np.int64)
            for view in range(views.start, views.stop, count):
                yield ViewRequest(ViewSpan(view, min(view + count, views.stop)), positions, (block,))

    def ask(self, block: int, drawn: Iterator[Drawn]) -> BlockAnswer:
        """Run the teacher over one block; `drawn` yields its requests in order.

        The last batch is padded, so that kernels and their rounding do not change with the rows that are left.
        """
        start, stop = self.layout.block_rows(block)
        rows = min(self.batch_rows, -(-(stop - start) // GROUP) * GROUP * len(self.layout.views))
        feed = self.feed
        answer = _empty_answer(block, self.layout)
        pending: list[Unit] = []
        for wanted in self.requests(block):
            item = next(drawn)
            assert (item.request.views, item.request.positions[0]) == (wanted.views, wanted.positions[0]), "out of step"
            self._note(answer, item)
            for unit in units_of(item):
                if sum(len(each.images) for each in pending) + len(unit.images) > rows:
                    self._ask_batch(answer, pending, rows, feed)
                    pending = []
                pending.append(unit)
        self._ask_batch(answer, pending, rows, feed)
        return replace(answer, ready=recorded(self.teacher.preparation.device))

    def _note(self, answer: BlockAnswer, item: Drawn) -> None:
        """Keep fingerprints and the canary's thumbnails; the pixels go as soon as the teacher has seen them."""
        start = int(item.request.positions[0])
        at = start - self.layout.block_rows(answer.block)[0]
        first = self.layout.views.start
        drawn = slice(item.request.views.start - first, item.request.views.stop - first)
        answer.pixels[drawn, at : at + item.pixels.shape[1]] = item.pixels
        if answer.canary is not None and start < answer.canary.shape[1]:
            images = item.images[:, : answer.canary.shape[1] - start]
            small = thumbnails(images.flatten(0, 1)).reshape(*images.shape[:2], 3, 8, 8)
            answer.canary[drawn, start : start + images.shape[1]] = small

    def _ask_batch(self, answer: BlockAnswer, units: list[Unit], rows: int, feed: Feed) -> None:
        """Reduced answers of a batch into the block's; on a GPU the copies are still under way."""
        count = sum(len(unit.images) for unit in units)
        own = np.concatenate([self.labels[unit.first : unit.first + len(unit.images)] for unit in units])
        images, given = feed([unit.images for unit in units], rows), own[:, None]
        if (mix := self.identity.plan.mix) != "none":
            mixing = _joined(units, rows)
            images = mix_images(images, mixing, mixing.partners, mix)
            given = np.stack([own, own[mixing.partners[:count]]], axis=1)
        labels = to_device(torch.from_numpy(given), self.teacher.preparation.device)  # the forward is not waited for
        logits, features = self.teacher.answer(images)
        with torch.inference_mode():
            reduced = reduce_answer(logits[:count], labels, self.identity)
            if self.identity.encoding.features:
                reduced["features"] = self._kept_features(features)[:count].half()
            if self.identity.encoding.class_means and answer.block == 0:
                ids, masked = reduced["classes"].long(), self.identity.teacher.masked_classes
                answer.tail_sums.append(_room((2, logits.shape[1]), torch.float32, logits.device))
                _copy_out(answer.tail_sums[-1], tail_sums(logits[:count], ids, masked))
            self._put(answer, reduced, units)

    def _put(self, answer: BlockAnswer, reduced: dict[str, Tensor], units: list[Unit]) -> None:
        (first, end), views = self.layout.block_rows(answer.block), self.layout.views
        for name, values in reduced.items():
            if name not in answer.fields:
                shape = (len(views), end - first, *values.shape[1:])
                answer.fields[name] = _room(shape, values.dtype, values.device)
            start = 0
            for unit in units:
                at, stop = unit.first - first, start + len(unit.images)
                place = answer.fields[name][unit.view - views.start, at : at + len(unit.images)]
                _copy_out(place, values[start:stop])
                start = stop

    def _kept_features(self, features: Tensor | None) -> Tensor:
        if features is None or features.shape[1] != self.identity.encoding.features:
            raise InvalidInputError(
                "the teacher gives no pooled features before its head; extract without --keep features"
            )
        return features

    def encode(self, answer: BlockAnswer) -> tuple[dict[str, Array], Counts]:
        """The arrays of a block in the store's shapes and dtypes, and what was counted on the way.

        Raises BadLogitsError where a logit is NaN or infinite.
        """
        if answer.ready is not None:
            answer.ready.synchronize()
        first = self.layout.block_rows(answer.block)[0]
        fields = {name: value.numpy() for name, value in answer.fields.items()}
        _require_finite(fields["finite"], self.layout, first, self.sample_name)
        if self.identity.encoding.k is None:
            encoded = Encoded({"logits": fields["logits"]}, fields["clamped"])
        else:
            rows = TopK(fields["classes"], fields["distances"], fields["tail"], fields["label"])
            teacher = self.identity.teacher
            encoded = encode_topk(rows, self.identity.encoding, teacher.classes, teacher.masked_classes)
        arrays = {**encoded.arrays, "pixels": answer.pixels}
        if self.identity.encoding.features:
            arrays["features"] = fields["features"]
        if answer.canary is not None:
            arrays["canary"] = answer.canary
            if self.identity.encoding.class_means:
                arrays["class_means"] = _class_means(answer)
        return arrays, _counts(fields["label"], int(encoded.clamped.sum()))


def request_size(identity: Identity, view_count: int, view_bytes: int) -> tuple[int, int]:
    """Rows, and how many of the views, are drawn together."""
    if identity.plan.mix != "none":
        return GROUP, min(view_count, max(1, GROUP_BYTES // (GROUP * view_bytes)))
    rows = GROUP
    while rows > 1 and rows * view_count * view_bytes > UNIT_BYTES:
        rows //= 2
    return rows, min(view_count, max(1, UNIT_BYTES // (rows * view_bytes)))


def units_of(item: Drawn) -> Iterator[Unit]:
    """A request's views one by one."""
    for view, images, mixing in zip(item.request.views, item.images, item.mixing, strict=True):
        yield Unit(view, int(item.request.positions[0]), images, mixing)


def reduce_answer(logits: Tensor, labels: Tensor, identity: Identity) -> dict[str, Tensor]:
    """Logits [B, C] to what is kept of them, on their device: `finite` and `correct` [B], and the encoding's arrays."""
    if logits.shape[-1] != identity.teacher.classes:
        raise InvalidInputError(f"the teacher answered {logits.shape[-1]} classes, expected {identity.teacher.classes}")
    masked = identity.teacher.masked_classes
    reduced = {"finite": finite_rows(logits, masked)}
    if identity.encoding.k is None:
        centred = centre(logits, masked)
        reduced["label"] = label_distances(centred, labels)
        reduced["logits"], reduced["clamped"] = narrowed(centred)
    else:
        kept = reduce_topk(logits, labels, identity.encoding.k, masked)
        reduced |= {"classes": kept.classes.int(), "distances": kept.distances, "tail": kept.tail, "label": kept.label}
    return reduced


def narrowed(centred: Tensor) -> tuple[Tensor, Tensor]:
    """`encoding.encode_full` on the teacher's device, where it halves what is copied: f16 [B, C], clamped rows [B]."""
    low = (centred < LOWEST_F16) & ~torch.isneginf(centred)
    return torch.where(low, LOWEST_F16, centred).half(), low.any(dim=-1)


def _joined(units: list[Unit], rows: int) -> Mixing:
    """The mixing of a whole batch, partners as rows of the batch; padding stays unmixed."""
    partners = np.arange(rows, dtype=np.int64)
    lam, boxes = np.ones(rows), np.zeros((rows, 4), dtype=np.int64)
    start = 0
    for unit in units:
        stop = start + len(unit.images)
        partners[start:stop] = unit.mixing.partners - unit.first + start
        lam[start:stop], boxes[start:stop] = unit.mixing.lam, unit.mixing.boxes
        start = stop
    return Mixing(partners, lam, boxes)


def _empty_answer(block: int, layout: SegmentLayout) -> BlockAnswer:
    start, stop = layout.block_rows(block)
    canary = np.empty(layout.arrays["canary"].shape, dtype=np.uint8) if block == 0 else None
    return BlockAnswer(block, {}, np.empty((len(layout.views), stop - start), dtype=np.uint8), canary, [], None)


def _room(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Host memory that a device's values are copied into; torch keeps pinned memory for the next block's."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def _copy_out(place: Tensor, values: Tensor) -> None:
    """Without waiting where `recorded` gives an event to wait for later: on CUDA alone."""
    place.copy_(values, non_blocking=values.device.type == "cuda")


def _class_means(answer: BlockAnswer) -> Array:
    """[1, C] f32 from the batches' tail sums; 0, the mean of the tail, for a class that was never outside the top k."""
    total = np.sum([sums.numpy().astype(np.float64) for sums in answer.tail_sums], axis=0)
    return np.asarray(total[:1] / np.maximum(total[1:], 1), dtype=np.float32)


def _counts(label: Array, clamped: int) -> Counts:
    """A row counts as correct where one of its labels has the top logit."""
    known = ~np.isnan(label)
    nearest = label.min(axis=-1, initial=np.inf, where=known)
    return Counts(clamped=clamped, labelled=int(known.any(axis=-1).sum()), correct=int((nearest == 0).sum()))


def _require_finite(finite: Array, layout: SegmentLayout, first: int, sample_name: Callable[[int], str]) -> None:
    if finite.all():
        return
    bad = np.argwhere(~finite)
    named = [f"{sample_name(first + int(row))} (view {layout.views.start + int(view)})" for view, row in bad[:5]]
    raise BadLogitsError(
        f"the teacher answered NaN or Inf for {len(bad)} rows: {', '.join(named)}; nothing of this block was written. "
        "Classes that are masked by design are named once with --mask-classes"
    )
