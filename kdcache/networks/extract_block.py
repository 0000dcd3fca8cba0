"""Extracting one block: the teacher answers drawn views, its device reduces the answers, the host encodes them.

Every engine calls this one extractor. Batches are cut inside a block, so that its bytes do not depend on the blocks
before it. Shape letters: V views, G rows of a request, B rows of a batch, R rows of a block, C classes.
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
from kdcache.base.limits import STRUCK_MAX
from kdcache.base.view_span import ViewSpan
from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.labels.reduction import finite_rows
from kdcache.networks.answers import Kind
from kdcache.networks.forward_memory import ForwardMemory
from kdcache.networks.kept_outputs import LARGEST, output_fields, require_storable
from kdcache.networks.loop_memory import NO_FORWARD, LoopMemory, loop_memory
from kdcache.networks.preparation import BatchBuffers, record_event
from kdcache.networks.steadiness import SteadyBatches
from kdcache.networks.teacher import Teacher
from kdcache.networks.units import Unit, batch_mixing, batches_of, request_size, units_of
from kdcache.store.commits import Counts
from kdcache.store.layout import SegmentLayout
from kdcache.store.manifest import Identity
from kdcache.store.plan import GROUP, draw_words
from kdcache.store.struck import struck_rows
from kdcache.views.draw import thumbnails
from kdcache.views.mixing import mix_images
from kdcache.views.view_stack import Drawn, ViewRequest

Array = npt.NDArray[Any]
NO_LABEL = -1
NAMED = 8  # samples that a message lists


@dataclass(frozen=True)
class BlockAnswer:
    """The teacher's answer for a block, on its way to the host: `fields` [V, R, ...] by name, `pixels` [V, R] u8, and
    `contents` [R] u32 where the encoding keeps them.

    In block 0 also the canary's thumbnails [V, 64, 3, 8, 8] u8, and `sums`, each batch's `Encoding.segment_sums`.
    `struck` are the positions whose samples could not be read; the fields of their rows and their partners' are those
    of equal logits, without a label. Nothing may be read before `ready`.
    """

    block: int
    fields: dict[str, Tensor]
    pixels: Array
    contents: Array
    canary: Array | None
    sums: list[dict[str, Tensor]]
    ready: torch.cuda.Event | None
    struck: tuple[int, ...] = ()


@dataclass(frozen=True)
class BlockExtractor:
    """Extracts blocks of one segment: `requests`, then `ask` on the device, then `encode` on the writer's thread.

    `order` [N] are dataset indices and `labels` [N] hard labels, by position. `sample_name(position)` names a sample in
    errors. A batch has `batch_rows` rows at most, a multiple of 64; the teacher's forwards may have fewer. `view_bytes`
    is the size of one drawn view, `forward` the memory of the checks' forward.
    """

    layout: SegmentLayout
    identity: Identity
    teacher: Teacher
    order: IntArray
    labels: IntArray
    sample_name: Callable[[int], str]
    batch_rows: int
    view_bytes: int
    forward: ForwardMemory = NO_FORWARD

    @cached_property
    def buffers(self) -> BatchBuffers:
        """Buffers of the teacher's batches, used by one block at a time."""
        return BatchBuffers(self.teacher.preparation)

    @cached_property
    def _batches(self) -> SteadyBatches:
        return SteadyBatches(self.teacher)

    @property
    def memory(self) -> LoopMemory:
        """The memory that extracting blocks may take, over that in use before the first."""
        return loop_memory(
            self.layout,
            self.identity,
            view_bytes=self.view_bytes,
            request=request_size(self.identity, len(self.layout.views), self.view_bytes),
            batch_rows=self.batch_rows,
            forward=self.forward,
        )

    def requests(self, block: int) -> Iterator[ViewRequest]:
        """Requests for all views of a block. A sample is decoded once a request, so a request has all views where
        memory allows, and fewer rows instead; under mixing a whole group, since partners differ from view to view."""
        (start, stop), views = self.layout.block_rows(block), self.layout.views
        rows, view_count = request_size(self.identity, len(views), self.view_bytes)
        for position in range(start, stop, rows):
            positions = np.arange(position, min(position + rows, stop), dtype=np.int64)
            for view in range(views.start, views.stop, view_count):
                yield ViewRequest(ViewSpan(view, min(view + view_count, views.stop)), positions, (block,))

    def ask(self, block: int, drawn_views: Iterator[Drawn]) -> BlockAnswer:
        """Run the teacher over one block; `drawn_views` are those of its requests, in order.

        No batch holds rows of two blocks. One that is not full, the last of the block, is padded to a multiple of 64,
        or of the teacher's forwards, so that few shapes of kernels round; only the store's last block has such rows
        that are asked and not kept.
        """
        answer = self.empty_answer(block)
        struck: set[int] = set()
        units = self._units(answer, drawn_views, struck)
        for batch in batches_of(units, self.batch_rows, cut=self.identity.plan.mix == "none"):
            self._ask_batch(answer, batch)
        return replace(answer, ready=record_event(self.teacher.preparation.device), struck=tuple(sorted(struck)))

    def empty_answer(self, block: int) -> BlockAnswer:
        """The answer of a block before anything is known of it."""
        layout, (start, stop) = self.layout, self.layout.block_rows(block)
        has_canary = block == 0 and "canary" in layout.arrays
        canary = np.empty(layout.arrays["canary"].shape, dtype=np.uint8) if has_canary else None
        pixels, contents = np.empty((len(layout.views), stop - start), np.uint8), np.empty(stop - start, np.uint32)
        return BlockAnswer(block, {}, pixels, contents, canary, [], None)

    def _units(self, answer: BlockAnswer, drawn_views: Iterator[Drawn], struck: set[int]) -> Iterator[Unit]:
        """The units of a block; what is noted of its drawn views comes into `answer` and `struck`."""
        for request in self.requests(answer.block):
            item = next(drawn_views)
            start_of_request = request.views, request.positions[0]
            assert (item.request.views, item.request.positions[0]) == start_of_request, "out of step"
            self._note_pixels(answer, item)
            struck |= {int(item.request.positions[row]) for row in item.unread}
            self._require_few(answer.block, struck)
            yield from units_of(item)

    def _require_few(self, block: int, struck: set[int]) -> None:
        """Raises InvalidInputError where more samples of a block cannot be read than a commit can strike."""
        if len(struck) > STRUCK_MAX:
            names = ", ".join(self.sample_name(position) for position in sorted(struck)[:NAMED])
            raise InvalidInputError(
                f"{len(struck)} samples of block {block} cannot be read, allowed are {STRUCK_MAX} a block: {names} and "
                "others; so many are no stray files: mend the data set, look at it with kdcache doctor --data, and run "
                "the same command again"
            )

    def _note_pixels(self, answer: BlockAnswer, item: Drawn) -> None:
        """Note fingerprints and the canary's thumbnails: images go as soon as the teacher has seen them."""
        position = int(item.request.positions[0])
        row = position - self.layout.block_rows(answer.block)[0]
        origin = self.layout.views.start
        views = slice(item.request.views.start - origin, item.request.views.stop - origin)
        answer.pixels[views, row : row + item.pixels.shape[1]] = item.pixels
        if (contents := self.identity.encoding.contents) is not None:
            answer.contents[row : row + item.pixels.shape[1]] = item.contents[contents]
        if answer.canary is not None and position < answer.canary.shape[1]:
            images = item.images[:, : answer.canary.shape[1] - position]
            canary = thumbnails(images.flatten(0, 1)).reshape(*images.shape[:2], 3, 8, 8)
            answer.canary[views, position : position + images.shape[1]] = canary

    def _ask_batch(self, answer: BlockAnswer, units: list[Unit]) -> None:
        """Put a batch's reduced answers into the block's. On a GPU their copies are still under way afterwards."""
        count = sum(len(unit.images) for unit in units)
        granule = self.teacher.forward_rows or GROUP
        rows = -(-count // granule) * granule
        absent = np.concatenate([unit.absent for unit in units])
        row_labels = np.concatenate([self.labels[unit.start : unit.start + len(unit.images)] for unit in units])
        row_labels[absent] = NO_LABEL  # rows without an answer count nowhere
        images, pairs = self.buffers([unit.images for unit in units], rows), row_labels[:, None]
        if (mix := self.identity.plan.mix) != "none":
            mixing = batch_mixing(units, rows)
            images = mix_images(images, mixing, mixing.partners, mix)
            pairs = np.stack([row_labels, row_labels[mixing.partners[:count]]], axis=1)
        kept = None if not absent.any() else torch.from_numpy(np.flatnonzero(~absent))
        labels = to_device(torch.from_numpy(pairs), self.teacher.preparation.device)  # the forward is not waited for
        teacher_answer = self._batches.answer(images)
        logits = teacher_answer.logits
        with torch.inference_mode():
            if kept is not None:  # a stand-in may be answered with NaN
                logits = torch.zeros_like(logits).index_copy_(0, kept.to(logits.device), logits[kept.to(logits.device)])
            fields = reduce_answer(logits[:count], labels, self.identity)
            if self.identity.encoding.DRAWN:
                fields |= self.identity.encoding.draw(logits[:count], self._draw_words(units), self.identity.space)
            if answer.block == 0:
                answer.sums.append(self._sums(logits[:count], fields, kept))
            fields |= output_fields(teacher_answer, self.identity.encoding, count)
            self._put(answer, fields, [(unit.view, unit.start, len(unit.images)) for unit in units])

    def _sums(self, logits: Tensor, fields: dict[str, Tensor], kept: Tensor | None) -> dict[str, Tensor]:
        """The sums of a batch over its rows, or over those that are `kept`."""
        if kept is not None:
            rows = kept.to(logits.device)
            logits, fields = logits[rows], {name: values[rows] for name, values in fields.items()}
        sums = self.identity.encoding.segment_sums(logits, fields, self.identity.space)
        return {name: _on_host(values) for name, values in sums.items()}

    def _draw_words(self, units: list[Unit]) -> Array:
        """[B] u64 key words of a batch's rows."""
        seed = self.identity.plan.seed
        parts = [draw_words(seed, self.order[unit.start :][: len(unit.images)], unit.view) for unit in units]
        return np.concatenate(parts)

    def _put(self, answer: BlockAnswer, fields: dict[str, Tensor], places: list[tuple[int, int, int]]) -> None:
        """Put fields [B, ...] into a block's, at places (view, first position, count) one after the other."""
        (start, stop), views = self.layout.block_rows(answer.block), self.layout.views
        for name, values in fields.items():
            if name not in answer.fields:
                shape = (len(views), stop - start, *values.shape[1:])
                answer.fields[name] = _host_memory(shape, values.dtype, values.device)
            parts = torch.split(values, [count for _, _, count in places])
            for (view, first, count), part in zip(places, parts, strict=True):
                _copy_out(answer.fields[name][view - views.start, first - start : first - start + count], part)

    def encode(self, answer: BlockAnswer) -> tuple[dict[str, Array], Counts]:
        """The arrays of a block in the store's shapes and dtypes, and the counts of its rows.

        Raises BadLogitsError where a logit is NaN or infinite, BadOutputsError where a kept output is, or beyond f16.
        """
        if answer.ready is not None:
            answer.ready.synchronize()
        start = self.layout.block_rows(answer.block)[0]
        fields = {name: value.numpy() for name, value in answer.fields.items()}
        _require_finite(fields["finite"], self._row_name(start), self.teacher.answers.kind)
        encoding = self.identity.encoding
        if LARGEST in fields:
            absent = struck_rows(self.identity.plan, self.layout, answer.block, answer.struck)
            require_storable(fields[LARGEST], encoding, self._row_name(start), absent)
        encoded = encoding.encode(fields, self.identity.space)
        arrays = {**encoded.arrays, "pixels": answer.pixels} | {name: fields[name] for name in encoding.outputs}
        if encoding.contents is not None:
            arrays["contents"] = answer.contents[None]
        if answer.canary is not None:
            arrays["canary"] = answer.canary
        if answer.block == 0:
            arrays |= encoding.segment_values(_totals(answer.sums))
        return arrays, Counts.of(fields["label"], int(encoded.clamped.sum()))

    def _row_name(self, start: int) -> Callable[[int, int], str]:
        """The name of a row of a block that begins at a position, by its view and row, both counted from 0."""
        return lambda view, row: f"{self.sample_name(start + row)} (view {self.layout.views.start + view})"


def reduce_answer(logits: Tensor, labels: Tensor, identity: Identity) -> dict[str, Tensor]:
    """The fields of a block's answer from logits [B, C] and `labels` [B, 1 or 2], on their device: `finite` [B], and
    those of `Encoding.reduce`."""
    if logits.shape[-1] != identity.teacher.classes:
        raise InvalidInputError(f"the teacher answered {logits.shape[-1]} classes, expected {identity.teacher.classes}")
    finite = finite_rows(logits, identity.teacher.masked_classes)
    return {"finite": finite, **identity.encoding.reduce(logits, labels, identity.space)}


def _host_memory(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Host memory for a device's values. Torch keeps pinned memory, and gives it to the next block."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def _copy_out(target: Tensor, values: Tensor) -> None:
    """Copy values to the host: on CUDA without waiting, since `record_event` gives an event to wait for later."""
    target.copy_(values, non_blocking=values.device.type == "cuda")


def _on_host(values: Tensor) -> Tensor:
    """Values on their way to the host."""
    target = _host_memory(tuple(values.shape), values.dtype, values.device)
    _copy_out(target, values)
    return target


def _totals(sums: list[dict[str, Tensor]]) -> dict[str, Array]:
    """The batches' sums added up in f64."""
    names = sums[0] if sums else ()
    return {name: np.sum([batch[name].numpy().astype(np.float64) for batch in sums], axis=0) for name in names}


def _require_finite(finite: Array, row_name: Callable[[int, int], str], kind: Kind) -> None:
    if finite.all():
        return
    rows = np.argwhere(~finite)
    names = [row_name(int(view), int(row)) for view, row in rows[:5]]
    problem = "NaN or Inf" if kind == "logits" else "no probabilities (numbers from 0, of sum 1)"
    raise BadLogitsError(
        f"the teacher answered {problem} for {len(rows)} rows: {', '.join(names)}; nothing of this block was written. "
        "Classes that are masked by design are named once with --mask-classes"
    )
