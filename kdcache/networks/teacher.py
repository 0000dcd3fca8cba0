"""The teacher: a frozen network that answers logits in f32, with its identity and its head.

On a CPU all its forwards have 16 rows, whatever the batch. The activations of more leave the caches: a forward of 256
costs 2.8 times as much a row for EfficientNet-lite0, and 1.3 times for ResNet-18. And a row's answer hangs neither on
--batch-size nor on the command that asks.

Shape letters: B rows, C classes, D width of the penultimate features.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdcache.base.specs import portable_name
from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.networks.answer import Answer, joined
from kdcache.networks.answers import Answers, answered
from kdcache.networks.heads import TAP_HOOK, answering_head, find_head, linear_outputs
from kdcache.networks.precision import PRECISIONS, Precision
from kdcache.networks.preparation import Preparation
from kdcache.networks.taps import Tapped
from kdcache.networks.weight_marks import weight_marks
from kdcache.networks.weights import weights_digest
from kdcache.store.manifest import TeacherIdentity

AS_LOGITS = Answers()
CPU_ROWS = 16  # of a forward; never tuned by time, since bytes would hang on it
NAMED = 3  # tensors that a message lists


class Teacher:
    """A network in eval mode with its input preparation; `answer` gives f32 logits, pooled features and taps.

    `answers` says what the network answers, and how that becomes logits of the data's classes. `masked_classes` count
    as absent, with those that no class of the network maps to. `forward_rows`: of every forward of `answer` and
    `raw_answer`; None where a forward has the whole batch.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        preparation: Preparation,
        precision: Precision = "float32",
        masked_classes: tuple[int, ...] = (),
        answers: Answers = AS_LOGITS,
    ) -> None:
        tensors = (*network.named_parameters(), *network.named_buffers())
        if names := sorted({name.rpartition(".")[0] for name, tensor in tensors if is_lazy(tensor)}):
            raise InvalidInputError(
                f"the teacher has lazy modules whose shapes nothing has set: {', '.join(names[:NAMED])} (of "
                f"{len(names)}): let its forward call them, call them once in its factory, or give --weights"
            )
        network = network.eval().requires_grad_(False).to(preparation.device)
        if names := [name or "the network" for name, module in network.named_modules() if module.training]:
            raise InvalidInputError(
                f"the teacher stays in train mode: {names[0]} ({len(names)} modules) is in train mode after eval(); a "
                "teacher answers in eval mode: mend the train() or eval() that the network overrides"
            )
        self.network = network.to(memory_format=torch.channels_last)
        self.preparation = preparation
        self.forward_rows = CPU_ROWS if torch.device(preparation.device).type == "cpu" else None
        self.precision = precision
        self._masked_classes = masked_classes
        self.map_answers(answers)
        self._tapped: Tapped | None = None
        self._features: Tensor | None = None
        self._head_input: Tensor | None = None
        self._is_settled, self._is_answering = False, True
        self._use_head(find_head(network))
        self._marks = weight_marks(network)

    def map_answers(self, answers: Answers) -> None:
        """From now on the network's answers become logits as `answers` says."""
        self.answers = answers
        self.masked_classes = tuple(sorted({*self._masked_classes, *answers.unreached}))

    def watch(self, taps: Sequence[str]) -> None:
        """From now on `answer` gives these taps. Raises InvalidInputError for a layer that the network has not."""
        self._tapped = Tapped(self.network, taps, "teacher") if taps else None

    def _use_head(self, head: nn.Linear | None) -> None:
        self.head = head
        if head is not None:
            before = head.register_forward_pre_hook(self._before_head, with_kwargs=True)
            self._head_hooks = before, head.register_forward_hook(self._after_head)

    @property
    def notes(self) -> tuple[str, ...]:
        """A note, after the first answer, where the classifier answers in low precision."""
        if self.precision == "float32" or self._is_answering:
            return ()
        return (
            "no linear layer's output is the teacher's answer (it may end in a convolution, or join several heads): "
            f"all of it answers in {self.precision}, its classifier too; --precision float32 is finer",
        )

    def answer(self, images: Tensor) -> Answer:
        """The answer to prepared images [B, ch, H, W].

        Raises InvalidInputError where the network's answer is not [rows, classes], or of other classes than its map,
        and where a layer that is watched gives no output by row.
        """
        return self._in_forwards(images, self.answer_at_once)

    def answer_at_once(self, images: Tensor) -> Answer:
        """The answer by one forward of just these rows, to be held against that of `answer`. Raises InvalidInputError
        as `answer` does."""
        if self._tapped is None:
            raw = self._raw_at_once(images)
        else:
            self._features = None
            with torch.inference_mode(), self._cast():
                output, taps = self._tapped(images)
            raw = Answer(output, self._features, taps)
        with torch.inference_mode():
            return replace(raw, logits=self.answers.logits(raw.logits))

    def raw_answer(self, images: Tensor) -> Answer:
        """The network's own answer to prepared images [B, ch, H, W], its `logits` [B, N] for its own classes, without
        taps. Raises InvalidInputError as `answer` does."""
        return self._in_forwards(images, self._raw_at_once)

    def _in_forwards(self, images: Tensor, ask: Callable[[Tensor], Answer]) -> Answer:
        if self.forward_rows is None:
            return ask(images)
        with torch.inference_mode():
            return joined([ask(part) for part in _whole_forwards(images, self.forward_rows)], len(images))

    def _raw_at_once(self, images: Tensor) -> Answer:
        output = self._settled(images)
        return Answer(output, self._features)

    def _settled(self, images: Tensor) -> Tensor:
        """The network's own answer [B, N] of one forward. The first one shows which layer answers."""
        if self._is_settled:
            return self._asked(images)
        copy = images.clone()  # the network may write into its input
        with linear_outputs(self.network) as outputs:
            answer = self._asked(images)
        self._is_settled = True
        head = answering_head(self.head, outputs, answer)
        self._is_answering = head is not None
        if head is self.head or (self.precision == "float32" and head is None):
            return answer
        if head is not None:
            if self.head is not None:
                for hook in self._head_hooks:
                    hook.remove()
            self._use_head(head)
        return self._asked(copy)

    def _asked(self, images: Tensor) -> Tensor:
        self._features = None
        with torch.inference_mode(), self._cast():
            output = self.network(images)
        return answered(output, images, "teacher")

    def _cast(self) -> AbstractContextManager[Any]:
        """Autocast to the teacher's precision."""
        device = torch.device(self.preparation.device).type
        return torch.autocast(device, PRECISIONS[self.precision]) if self.precision != "float32" else nullcontext()

    def identity(self, name: str, arguments: dict[str, Any], classes: int, text: str = "") -> TeacherIdentity:
        """The teacher's identity in a manifest; `text` as from `network_text`."""
        return TeacherIdentity(
            name=portable_name(name),
            arguments=arguments,
            text=text,
            weights=weights_digest(self.network),
            classes=classes,
            precision=self.precision,
            mean=self.preparation.mean,
            std=self.preparation.std,
            masked_classes=self.masked_classes,
            class_map=self.answers.class_map,
            answers=self.answers.kind,
            subclasses=self.answers.subclasses,
        )

    def head_arrays(self) -> dict[str, Any]:
        """The classifier's weight [C, D] and bias [C], f32 numpy, zeros for a class that the network has not.

        Raises InvalidInputError where there is none."""
        if self.head is None:
            raise InvalidInputError("the teacher does not end in a linear layer; extract without --keep head,features")
        weight = self.head.weight.detach().float()
        bias = torch.zeros(len(weight)) if self.head.bias is None else self.head.bias.detach().float()
        by_class = {"weight": weight, "bias": bias}
        return {name: self.answers.by_class(part, dim=0, fill=0.0).cpu().numpy() for name, part in by_class.items()}

    def require_same_weights(self) -> None:
        """Raises TeacherSuspectError, naming them, where weights or buffers are no longer those that the network was
        built with: one answer would be another teacher's than the next, and none that of the weights in the store."""
        marks = weight_marks(self.network)
        if names := sorted(
            name for name in marks.keys() | self._marks.keys() if marks.get(name) != self._marks.get(name)
        ):
            raise TeacherSuspectError(
                f"the teacher changes its own weights or buffers while it answers: {', '.join(names[:NAMED])} "
                f"({len(names)} of {len(marks)} tensors) are no longer what they were, so its rows come from different "
                "teachers: let its forward leave them alone, or register a buffer that changes no answer with "
                "persistent=False; blocks that were written since are not to be used: delete the store"
            )

    def _before_head(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensors = [value for value in (*inputs, *named.values()) if isinstance(value, Tensor)]
        self._head_input = tensors[0] if tensors else None
        self._features = tensors[0].detach().float().flatten(1) if tensors and tensors[0].ndim == 2 else None

    def _after_head(self, module: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """The classifier in f32 under autocast: its rounding would be the largest error of the store. One that does
        more than weight and bias, in its own forward or in a hook, keeps its output, as does one that is not the
        answer."""
        features, self._head_input = self._head_input, None
        if self.precision == "float32" or not self._is_answering or features is None or not _is_plain(module):
            return None
        with torch.autocast(output.device.type, enabled=False):
            bias = None if module.bias is None else module.bias.float()
            return nn.functional.linear(features.float(), module.weight.float(), bias)


def _is_plain(head: nn.Linear) -> bool:
    """True where the classifier answers by its weight and bias alone: no forward of its own, and no hook but one and
    those that note taps."""
    own_call = "forward" in vars(head) or type(head).forward is not nn.Linear.forward
    hooks = [hook for hook in head._forward_hooks.values() if not hasattr(hook, TAP_HOOK)]
    return not own_call and len(hooks) == 1


def _whole_forwards(images: Tensor, rows: int) -> Iterator[Tensor]:
    """Images in parts of so many rows; the last is filled up with its first row."""
    for part in torch.split(images, rows):
        if len(part) == rows:
            yield part
        else:
            filled = torch.cat([part, part[:1].expand(rows - len(part), *part.shape[1:])])
            yield filled.to(memory_format=torch.channels_last) if filled.ndim == 4 else filled
