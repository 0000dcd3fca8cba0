"""Extracting a block of texts: the teacher reads whole texts, and answers their tokens some rows at a time.

Shape letters: V views, T texts of a forward, S tokens of a text, R rows of a chunk, C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kdcache.base.devices import to_device
from kdcache.networks.extract_block import NO_LABEL, BlockAnswer, BlockExtractor, reduce_answer
from kdcache.networks.loop_memory import LoopMemory, loop_memory
from kdcache.networks.preparation import record_event
from kdcache.networks.text_teacher import TextTeacher
from kdcache.store.plan import draw_words
from kdcache.views.view_stack import Drawn, ViewRequest


@dataclass(frozen=True)
class TextExtractor(BlockExtractor):
    """Extracts blocks of texts. Rows without a label, of padding and of prompts, are kept as equal logits."""

    teacher: TextTeacher

    @property
    def sequence(self) -> int:
        """S."""
        return self.identity.dataset.sequence

    @property
    def memory(self) -> LoopMemory:
        rows = self.teacher.chunk_rows(self.identity.teacher.classes)
        texts = self.teacher.texts_of(self.sequence, self.batch_rows)
        return loop_memory(
            self.layout,
            self.identity,
            view_bytes=self.view_bytes,
            request=(texts, len(self.layout.views)),
            batch_rows=rows,
            forward=self.forward,
        )

    def requests(self, block: int) -> Iterator[ViewRequest]:
        """Requests for all views of a block's texts, those of a forward at a time."""
        start, stop = (row // self.sequence for row in self.layout.block_rows(block))
        texts = self.teacher.texts_of(self.sequence, self.batch_rows)
        for text in range(start, stop, texts):
            yield ViewRequest(self.layout.views, np.arange(text, min(text + texts, stop), dtype=np.int64), (block,))

    def ask(self, block: int, drawn_views: Iterator[Drawn]) -> BlockAnswer:
        """Run the teacher over one block; `drawn_views` are those of its requests, in order. A forward that is not full
        is filled up with its first text, so that few shapes of kernels round."""
        answer = self.empty_answer(block)
        texts = self.teacher.texts_of(self.sequence, self.batch_rows)
        for request in self.requests(block):
            item = next(drawn_views)
            assert (item.request.views, item.request.positions[0]) == (request.views, request.positions[0])
            start = int(request.positions[0]) * self.sequence
            row = start - self.layout.block_rows(block)[0]
            answer.pixels[:, row : row + item.pixels.shape[1]] = item.pixels
            if (contents := self.identity.encoding.contents) is not None:
                answer.contents[row : row + item.pixels.shape[1]] = item.contents[contents]
            for view, tokens in zip(request.views, item.images, strict=True):
                filling = tokens[:1].expand(texts - len(tokens), -1)
                self._ask_texts(answer, torch.cat([tokens, filling]), view, start, len(tokens) * self.sequence)
        return replace(answer, ready=record_event(self.teacher.preparation.device))

    def _ask_texts(self, answer: BlockAnswer, tokens: Tensor, view: int, start: int, count: int) -> None:
        """Put the reduced answers to texts [T, S] into the block's; `count` of their rows are kept, from position
        `start` on."""
        for first, logits in self.teacher.chunks(self.teacher.prepared(tokens)):
            rows = min(len(logits), count - first)
            if rows <= 0:
                break
            position = start + first
            labels = self.labels[position : position + rows]
            with torch.inference_mode():
                fields = self._reduced(answer, logits[:rows], labels, view, position)
                self._put(answer, fields, [(view, position, rows)])

    def _reduced(
        self, answer: BlockAnswer, logits: Tensor, row_labels: np.ndarray, view: int, position: int
    ) -> dict[str, Tensor]:
        """The fields of a chunk [R, C], where rows without a label have equal logits."""
        labels = to_device(torch.from_numpy(row_labels[:, None]), self.teacher.preparation.device)
        counted = to_device(torch.from_numpy(np.flatnonzero(row_labels != NO_LABEL)), self.teacher.preparation.device)
        if len(counted) < len(logits):
            logits = torch.zeros_like(logits).index_copy_(0, counted, logits[counted])
        fields = reduce_answer(logits, labels, self.identity)
        if self.identity.encoding.DRAWN:
            words = draw_words(self.identity.plan.seed, self.order[position : position + len(logits)], view)
            fields |= self.identity.encoding.draw(logits, words, self.identity.space)
        if answer.block == 0:
            answer.sums.append(self._sums(logits, fields, counted))
        return fields
