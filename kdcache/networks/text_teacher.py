"""A teacher of texts answers a row for each token. Its head is applied to some rows at a time, so that logits of all
tokens never stand whole in f32: 8 texts of 1,024 tokens and 128,000 ids would take 4 GB.

Shape letters: T texts of a forward, S tokens of a text, R rows of a chunk, C classes, D width before the head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdcache.networks.answers import logits_of
from kdcache.networks.teacher import Teacher

CHUNK_BYTES = 2**25  # of a chunk's logits in f32; never tuned, since bytes would hang on it
CPU_TOKENS = 512  # of a forward on a CPU, in whole texts
EQUAL = 1e-3  # of the spread of the logits, by which the head's own answer may differ from the network's


class TextTeacher(Teacher):
    """A teacher of texts: `chunks` gives the logits of a forward's tokens, some rows at a time.

    `notes` says where the network does more after its head than to answer, so that its logits [T, S, C] stand whole.
    """

    is_split: bool | None = None  # True where the head alone makes the answer of what comes before; None: not asked yet

    def texts_of(self, sequence: int, batch_rows: int) -> int:
        """The texts of a forward: of `batch_rows` tokens on a GPU, always of the same number of tokens on a CPU."""
        tokens = CPU_TOKENS if self.forward_rows is not None else batch_rows
        return max(1, tokens // sequence)

    def prepared(self, tokens: Tensor) -> Tensor:
        """Tokens [T, S] as the network's input: i64, on its device."""
        return self.preparation(tokens)

    def chunks(self, tokens: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The first row and the logits [R, C] f32 of each chunk of the T S rows of a forward; tokens [T, S] as
        prepared.

        Raises InvalidInputError where the network answers anything but logits by token and class.
        """
        with torch.inference_mode():
            values = self._before_chunks(tokens)
            rows = self.chunk_rows(self.head.out_features if self.is_split and self.head else values.shape[-1])
            for start in range(0, len(values), rows):
                yield start, self.answers.logits(self._of_chunk(values[start : start + rows]))

    @staticmethod
    def chunk_rows(classes: int) -> int:
        """The rows of a chunk: the largest power of two whose logits fit, 16 at least."""
        return max(16, 1 << (CHUNK_BYTES // (4 * classes)).bit_length() - 1)

    @property
    def text_notes(self) -> tuple[str, ...]:
        """A note where the logits of all tokens stand whole."""
        if self.is_split is not False:
            return ()
        return (
            "the teacher does more after its last linear layer than to answer (a cap, a scale, several heads): the "
            "logits of a whole batch of texts stand in memory at once; a smaller --batch-size needs less",
        )

    def _before_chunks(self, tokens: Tensor) -> Tensor:
        """The input of the head [T S, D]; the logits [T S, C] of a network whose head does not make them."""
        if self.is_split is None:
            self.is_split = self._splits(tokens)
        if not self.is_split:
            return self._asked(tokens.clone()).flatten(0, 1)
        assert self.head is not None
        with _passing(self.head), self._cast():
            hidden = logits_of(self.network(tokens.clone()), "teacher")
        return hidden.flatten(0, 1)

    def _of_chunk(self, values: Tensor) -> Tensor:
        if not self.is_split:
            return values
        assert self.head is not None
        weight, bias = self.head.weight, self.head.bias
        with torch.autocast(values.device.type, enabled=False):
            return nn.functional.linear(values.to(weight.dtype), weight, bias)

    def _splits(self, tokens: Tensor) -> bool:
        """True where the head's answer to what comes before it is the network's own, on some tokens of one text."""
        few = tokens[:1, : min(tokens.shape[1], 64)]
        answer = self._asked(few.clone())[0].float()
        if self.head is None or self.head.out_features != answer.shape[-1]:
            return False
        with _passing(self.head), self._cast():
            hidden = logits_of(self.network(few.clone()), "teacher")
        if hidden.shape != (*few.shape, self.head.in_features):
            return False
        self.is_split = True
        of_head = self._of_chunk(hidden[0]).float()
        spread = float((answer - answer.mean(dim=-1, keepdim=True)).square().mean().sqrt())
        return (
            float((of_head - answer).square().mean().sqrt())
            <= (EQUAL if self.precision == "float32" else 0.05) * spread
        )


@contextmanager
def _passing(head: nn.Linear) -> Iterator[None]:
    """While open, the head passes on what it is given."""
    attributes: dict[str, Any] = {name: vars(head)[name] for name in ("forward",) if name in vars(head)}
    head.forward = _pass_on  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward
        vars(head).update(attributes)


def _pass_on(values: Tensor) -> Tensor:
    return values
