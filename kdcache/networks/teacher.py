"""The teacher: a frozen network that answers logits in f32, with its identity and its head.

Shape letters: B rows, C classes, D width of the penultimate features.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kdcache.base.specs import portable_name
from kdcache.errors import InvalidInputError
from kdcache.networks.answers import Answers, answered
from kdcache.networks.precision import PRECISIONS, Precision
from kdcache.networks.preparation import Preparation
from kdcache.networks.weights import weights_digest
from kdcache.store.manifest import TeacherIdentity

AS_LOGITS = Answers()


class Teacher:
    """A network in eval mode with its input preparation; `answer` gives f32 logits and pooled features.

    `answers` says what the network answers, and how that becomes logits of the data's classes. `masked_classes` count
    as absent, with those that no class of the network maps to.
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
        network = network.eval().requires_grad_(False).to(preparation.device)
        if names := [name or "the network" for name, module in network.named_modules() if module.training]:
            raise InvalidInputError(
                f"the teacher stays in train mode: {names[0]} ({len(names)} modules) is in train mode after eval(); a "
                "teacher answers in eval mode: mend the train() or eval() that the network overrides"
            )
        self.network = network.to(memory_format=torch.channels_last)
        self.preparation = preparation
        self.precision = precision
        self._masked_classes = masked_classes
        self.map_answers(answers)
        self._features: Tensor | None = None
        self.head = find_head(network)
        if self.head is not None:
            self.head.register_forward_pre_hook(self._before_head)
            self.head.register_forward_hook(self._after_head)

    def map_answers(self, answers: Answers) -> None:
        """From now on the network's answers become logits as `answers` says."""
        self.answers = answers
        self.masked_classes = tuple(sorted({*self._masked_classes, *answers.unreached}))

    def answer(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [B, C] f32 of prepared images [B, ch, H, W], and features [B, D] f32, None without a linear head.

        Raises InvalidInputError where the network's answer is not [rows, classes], or of other classes than its map.
        """
        answer = self.raw_answer(images)
        with torch.inference_mode():
            return self.answers.logits(answer), self._features

    def raw_answer(self, images: Tensor) -> Tensor:
        """The network's own answer [B, N] to prepared images [B, ch, H, W], for its own classes. Raises
        InvalidInputError as `answer` does."""
        device = torch.device(self.preparation.device).type
        cast = torch.autocast(device, PRECISIONS[self.precision]) if self.precision != "float32" else nullcontext()
        self._features = None
        with torch.inference_mode(), cast:
            output = self.network(images)
        return answered(output, len(images), "teacher")

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

    def _before_head(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0].detach().float().flatten(1) if inputs[0].ndim == 2 else None

    def _after_head(self, module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The classifier in f32 under autocast: its rounding would be the largest error of the store."""
        if self.precision == "float32":
            return None
        with torch.autocast(output.device.type, enabled=False):
            bias = None if module.bias is None else module.bias.float()
            return nn.functional.linear(inputs[0].float(), module.weight.float(), bias)


def find_head(network: nn.Module) -> nn.Linear | None:
    """The classifier: the last linear layer among the modules."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linears[-1] if linears else None
