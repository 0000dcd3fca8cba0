"""Extracting one block: drawn views through the teacher, reduced on its device, encoded as the store's arrays.

Every engine calls this one extractor. Batches are cut inside a block, so that a block's bytes do not
depend on what was extracted before it. Shape letters: G rows of a mixing group, B rows of a batch, R rows of a block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.commits import Counts
from kdcache.encoding import encode_full, encode_topk
from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.layout import CANARY_ROWS, SegmentLayout
from kdcache.manifest import Identity
from kdcache.plan import GROUP, IntArray, Mixing
from kdcache.reduction import TopK, centre, finite_rows, label_distances, reduce_topk, tail_sums
from kdcache.teachers import Teacher
from kdcache.views import Drawn, ViewRequest, mix_images, thumbnails

Array = npt.NDArray[Any]
UNIT_BYTES = 128_000_000  # views that a worker hands over at once; more views of a group are drawn in several requests


@dataclass(frozen=True)
class Unit:
    """One view of one mixing group: unmixed images [G, ch, H, W] and how they are mixed."""

    view: int
    first: int
    images: Tensor
    mixing: Mixing


@dataclass(frozen=True)
class Asked:
    """A batch's answer: (view, first position, rows) of each unit in it, reduced tensors [B, ...] by name, and
    `reduction.tail_sums` [2, C] where class means are kept and this is block 0."""

    spans: list[tuple[int, int, int]]
    reduced: dict[str, Tensor]
    tail_sums: Tensor | None


@dataclass(frozen=True)
class BlockAnswer:
    """What the teacher said of a block, on its way to the host; `drawn` without images but for the canary's."""

    block: int
    drawn: list[Drawn]
    batches: list[Asked]
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

    def requests(self, block: int) -> Iterator[ViewRequest]:
        """The views that make up a block: a mixing group at a time, all its views at once where memory allows."""
        first, last = self.layout.block_rows(block)
        views = max(1, UNIT_BYTES // (GROUP * max(self.view_bytes, 1)))
        for start in range(first, last, GROUP):
            positions = np.arange(start, min(start + GROUP, last), dtype=np.int64)
            for view in range(self.layout.start, self.layout.stop, views):
                yield ViewRequest(view, min(view + views, self.layout.stop), positions, (block,))

    def ask(self, block: int, drawn: Iterator[Drawn]) -> BlockAnswer:
        """Run the teacher over one block; `drawn` yields its requests in order.

        The last batch is padded, so that kernels and their rounding do not change with the rows that are left.
        """
        first, last = self.layout.block_rows(block)
        rows = min(self.batch_rows, -(-(last - first) // GROUP) * GROUP * (self.layout.stop - self.layout.start))
        kept: list[Drawn] = []
        batches: list[Asked] = []
        pending: list[Unit] = []
        for _ in self.requests(block):
            item = next(drawn)
            kept.append(_without_images(item))
            for unit in units_of(item):
                if sum(len(each.images) for each in pending) + len(unit.images) > rows:
                    batches.append(self._ask_batch(block, pending, rows))
                    pending = []
                pending.append(unit)
        batches.append(self._ask_batch(block, pending, rows))
        return BlockAnswer(block, kept, batches, _recorded(self.teacher.preparation.device))

    def _ask_batch(self, block: int, units: list[Unit], rows: int) -> Asked:
        """Reduced answers of a batch on the host; on a GPU the copies are still under way."""
        images = torch.cat([unit.images for unit in units])
        count = len(images)
        if count < rows:
            images = torch.cat([images, images[:1].expand(rows - count, *images.shape[1:])])
        mixing = _joined(units, rows)
        mix = self.identity.views.mix
        logits, features = self.teacher.answer(
            mix_images(self.teacher.preparation(images), mixing, mixing.partners, mix)
        )
        own = np.concatenate([self.labels[unit.first : unit.first + len(unit.images)] for unit in units])
        given = own[:, None] if mix == "none" else np.stack([own, own[mixing.partners[:count]]], axis=1)
        with torch.inference_mode():
            reduced = reduce_answer(logits[:count], torch.from_numpy(given).to(logits.device), self.identity)
            if self.identity.encoding.features:
                reduced["features"] = self._kept_features(features)[:count].half()
            sums = None
            if self.identity.encoding.class_means and block == 0:
                sums = _to_host(tail_sums(logits[:count], reduced["classes"], self.identity.teacher.masked_classes))
            spans = [(unit.view, unit.first, len(unit.images)) for unit in units]
            return Asked(spans, {name: _to_host(value) for name, value in reduced.items()}, sums)

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
        first, last = self.layout.block_rows(answer.block)
        fields = _assembled(answer, self.layout, last - first)
        _require_finite(fields.pop("finite"), self.layout, first, self.sample_name)
        if self.identity.encoding.k is None:
            encoded = encode_full(fields["logits"])
        else:
            rows = TopK(fields["classes"], fields["distances"], fields["tail"], fields["label"])
            encoded = encode_topk(rows, self.identity.encoding, self.identity.teacher.classes)
        arrays = {**encoded.arrays, "pixels": _pixels(answer, self.layout, last - first)}
        if self.identity.encoding.features:
            arrays["features"] = fields["features"]
        if answer.block == 0:
            parts = [item.images.numpy() for item in answer.drawn if item.request.positions[0] == 0]
            arrays["canary"] = np.concatenate(parts)[:, :CANARY_ROWS]
            if self.identity.encoding.class_means:
                arrays["class_means"] = _class_means(answer)
        return arrays, _counts(fields["label"], int(encoded.clamped.sum()))


def units_of(item: Drawn) -> Iterator[Unit]:
    """A request's views one by one."""
    for offset, mixing in enumerate(item.mixing):
        yield Unit(item.request.first + offset, int(item.request.positions[0]), item.images[offset], mixing)


def _without_images(item: Drawn) -> Drawn:
    """Drop the pixels as soon as the teacher has seen them; keep the canary's thumbnails in their place."""
    small = torch.empty(0)
    if item.request.positions[0] == 0:
        views, rows = item.images.shape[:2]
        small = torch.from_numpy(thumbnails(item.images.flatten(0, 1))).reshape(views, rows, 3, 8, 8)
    return Drawn(item.request, small, item.mixing, item.pixels)


def reduce_answer(logits: Tensor, labels: Tensor, identity: Identity) -> dict[str, Tensor]:
    """Logits [B, C] to what is kept of them, on their device: `finite` and `correct` [B], and the encoding's arrays."""
    if logits.shape[-1] != identity.teacher.classes:
        raise InvalidInputError(f"the teacher answered {logits.shape[-1]} classes, expected {identity.teacher.classes}")
    masked = identity.teacher.masked_classes
    reduced = {"finite": finite_rows(logits, masked)}
    if identity.encoding.k is None:
        reduced["logits"] = centre(logits, masked)
        reduced["label"] = label_distances(reduced["logits"], labels)
    else:
        kept = reduce_topk(logits, labels, identity.encoding.k, masked)
        reduced |= {"classes": kept.classes, "distances": kept.distances, "tail": kept.tail, "label": kept.label}
    return reduced


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


def _to_host(value: Tensor) -> Tensor:
    if value.device.type != "cuda":
        return value.cpu()
    pinned = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return pinned.copy_(value, non_blocking=True)


def _recorded(device: str) -> torch.cuda.Event | None:
    """An event after which the copies to the host are done; None where there is nothing to wait for."""
    if torch.device(device).type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(torch.device(device)))  # the copies run on this device's stream
    return event


def _class_means(answer: BlockAnswer) -> Array:
    """[1, C] f32 from the batches' tail sums; 0, the mean of the tail, for a class that was never outside the top k."""
    total = np.sum(
        [batch.tail_sums.numpy().astype(np.float64) for batch in answer.batches if batch.tail_sums is not None], axis=0
    )
    return np.asarray(total[:1] / np.maximum(total[1:], 1), dtype=np.float32)


def _pixels(answer: BlockAnswer, layout: SegmentLayout, rows: int) -> Array:
    pixels = np.empty((layout.stop - layout.start, rows), dtype=np.uint8)
    for item in answer.drawn:
        start = int(item.request.positions[0]) - layout.block_rows(answer.block)[0]
        views = slice(item.request.first - layout.start, item.request.last - layout.start)
        pixels[views, start : start + item.pixels.shape[1]] = item.pixels
    return pixels


def _counts(label: Array, clamped: int) -> Counts:
    """A row counts as correct where one of its labels has the top logit."""
    known = ~np.isnan(label)
    nearest = label.min(axis=-1, initial=np.inf, where=known)
    return Counts(clamped=clamped, labelled=int(known.any(axis=-1).sum()), correct=int((nearest == 0).sum()))


def _assembled(answer: BlockAnswer, layout: SegmentLayout, rows: int) -> dict[str, Array]:
    """Batches put back into [V, R, ...] arrays by name."""
    first = layout.block_rows(answer.block)[0]
    fields: dict[str, Array] = {}
    for batch in answer.batches:
        start = 0
        values = {name: value.numpy() for name, value in batch.reduced.items()}
        for view, position, count in batch.spans:
            stop, at = start + count, position - first
            for name, value in values.items():
                if name not in fields:
                    fields[name] = np.empty((layout.stop - layout.start, rows, *value.shape[1:]), dtype=value.dtype)
                fields[name][view - layout.start, at : at + count] = value[start:stop]
            start = stop
    return fields


def _require_finite(finite: Array, layout: SegmentLayout, first: int, sample_name: Callable[[int], str]) -> None:
    if finite.all():
        return
    bad = np.argwhere(~finite)
    named = [f"{sample_name(first + int(row))} (view {layout.start + int(view)})" for view, row in bad[:5]]
    raise BadLogitsError(
        f"the teacher answered NaN or Inf for {len(bad)} rows: {', '.join(named)}; nothing of this block was written. "
        "Classes that are masked by design are named once with --mask-classes"
    )
