"""Answers of a network become logits of the data's classes: probabilities by their logarithm, its classes by a map.

Shape letters: B rows, N classes of the network, C classes of the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError

LEAST = 1e-12  # probability: a smaller one counts as this
SUM_ERROR = 0.01  # of a row of probabilities, by which its sum may differ from 1; f16 and bf16 stay below 0.004
FEW_ROWS, FEW_SUM_ERROR = 4, 1e-4  # so few rows of two logits may sum to about 1 by chance

Kind = Literal["logits", "probs"]


class Answering(Protocol):
    """A teacher's identity, as far as it says how the teacher answers."""

    @property
    def answers(self) -> Kind: ...

    @property
    def class_map(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> int: ...

    @property
    def subclasses(self) -> int: ...


@dataclass(frozen=True)
class Answers:
    """How a network answers.

    kind: "logits", or "probs" for probabilities. class_map [N]: for each class of the network the class of the data, or
    -1; empty where they are the same. classes: the number of classes C of the data, with a map. subclasses: logits that
    the network answers for each class of the data, which stay as they are.
    """

    kind: Kind = "logits"
    class_map: tuple[int, ...] = ()
    classes: int = 0
    subclasses: int = 1

    @classmethod
    def of(cls, identity: Answering) -> "Answers":
        """The answers of the teacher that a manifest names."""
        return cls(identity.answers, identity.class_map, identity.classes, identity.subclasses)

    @property
    def unreached(self) -> tuple[int, ...]:
        """Classes of the data that no class of the network maps to, ascending."""
        return tuple(sorted(set(range(self.classes)) - set(self.class_map))) if self.class_map else ()

    def logits(self, answer_BN: Tensor) -> Tensor:
        """Logits [B, C] f32 of a network's answer; a row that holds no probabilities, where it should, is NaN."""
        logits_BN = answer_BN.float()
        if self.kind == "probs":
            total_B1 = logits_BN.sum(dim=-1, keepdim=True)
            proper_B1 = (logits_BN >= 0).all(dim=-1, keepdim=True) & ((total_B1 - 1).abs() <= SUM_ERROR)
            logits_BN = torch.where(proper_B1, logits_BN.clamp(min=LEAST).log(), torch.nan)
        return self.by_class(logits_BN, dim=-1, fill=-torch.inf)

    def by_class(self, values: Tensor, *, dim: int, fill: float) -> Tensor:
        """Values by the data's class along `dim`, from values by the network's; `fill` where none is."""
        if not self.class_map:
            return values
        if values.shape[dim] != len(self.class_map):
            raise InvalidInputError(
                f"the class map has {len(self.class_map)} entries, the network answered {values.shape[dim]} classes; "
                "give an entry for each of them, -1 for one that the data set has not"
            )
        shape = [*values.shape]
        shape[dim] = self.classes
        network_ids, data_ids = (ids.to(values.device) for ids in self._ids)
        result = torch.full(shape, fill, dtype=values.dtype, device=values.device)
        return result.index_copy_(dim, data_ids, values.index_select(dim, network_ids))

    @cached_property
    def _ids(self) -> tuple[Tensor, Tensor]:
        """Classes of the network that are mapped, and those of the data that they are mapped to."""
        ids = torch.tensor(self.class_map)
        network_ids = torch.nonzero(ids >= 0)[:, 0]
        return network_ids, ids[network_ids]


def logits_of(output: Any, noun: str) -> Tensor:
    """The logits in a network's output: the tensor itself, or what a mapping or an object of any kind holds as
    `logits`.

    `noun` names the network in messages: teacher or student. Raises InvalidInputError for an output without.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise _answer_error(noun, _kind_text(output), f"let a wrapper return them: {_wrapper(_pick(output))}")
    return logits


def are_tokens(inputs: Tensor) -> bool:
    """True for network input that is texts: token ids [B, S]."""
    return inputs.ndim == 2 and not inputs.is_floating_point()


def answered(output: Any, inputs: Tensor, noun: str) -> Tensor:
    """The answer [B, N] of a network's output for network input of B rows, as `logits_of` finds it; [B, S, N] for
    texts. Raises InvalidInputError for an output that is no logits by row, or token, and class."""
    answer, rows = logits_of(output, noun), len(inputs)
    if are_tokens(inputs):
        if answer.ndim == 3 and answer.shape[:2] == inputs.shape and answer.is_floating_point():
            return answer
        raise InvalidInputError(
            f"the {noun} answered {answer.dtype} {list(answer.shape)} to tokens {list(inputs.shape)} [texts, tokens]; "
            "it must answer the logits of the next token, [texts, tokens, vocabulary]"
        )
    if answer.ndim == 2 and len(answer) == rows and answer.shape[1] > 1 and answer.is_floating_point():
        return answer
    text, numbers = str(list(answer.shape)), answer.numel()
    if numbers == rows and answer.is_floating_point():
        raise InvalidInputError(
            f"the {noun} answered {text}, one number a row; kdcache keeps distributions over two classes or more: "
            "where that number z goes through a sigmoid, answer the logits of both classes, by "
            f"{_wrapper('z = self.network(x).reshape(-1, 1); return torch.cat([torch.zeros_like(z), z], dim=1)')}"
            "; a regression has no classes"
        )
    if not answer.is_floating_point():
        raise _answer_error(
            noun, f"{answer.dtype} {text}", "numbers of classes are no logits: return what comes before"
        )
    if answer.ndim == 4 and len(answer) == rows:
        pooled = ".flatten(1)" if answer.shape[2:].numel() == 1 else ".mean((2, 3))"
        advice = f"it answers a map of places; kdcache keeps one answer a picture: pool it, {_wrapper(pooled)}"
        raise _answer_error(noun, text, advice)
    if answer.ndim == 3 and len(answer) == rows:
        advice = f"it answers several times a picture; kdcache keeps one answer: choose one, {_wrapper('[:, 0]')}"
        raise _answer_error(noun, text, advice)
    raise _answer_error(noun, text, f"it was asked about {rows} views: return a row for each, of all classes")


def _answer_error(noun: str, text: str, advice: str) -> InvalidInputError:
    return InvalidInputError(f"the {noun} answered {text}; it must answer logits [rows, classes]: {advice}")


def _kind_text(output: Any) -> str:
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"{kind} with {', '.join(map(str, list(output)[:5])) or 'nothing'}"
    return f"{kind} of {len(output)}" if isinstance(output, tuple | list) else kind


def _pick(output: Any) -> str:
    """The code that takes the likeliest answer out of an output."""
    if isinstance(output, Mapping):
        names = [name for name, value in output.items() if isinstance(value, Tensor)] or ["logits"]
        return f"[{names[0]!r}]"
    return "[0]" if isinstance(output, tuple | list) else ".logits"


def _wrapper(code: str) -> str:
    """The four lines of a wrapper, as one; `code` follows the network's output, or is a body of its own."""
    body = code if "return" in code else f"return self.network(x){code}"
    return (
        f"class Wrapped(nn.Module): def __init__(self, network): super().__init__(); self.network = network / "
        f"def forward(self, x): {body}"
    )


def unit_sums(answer_BN: Tensor) -> npt.NDArray[np.float64]:
    """[B] sums of the rows that lie in 0..1; infinite for other rows, NaN for those that hold NaN."""
    values = answer_BN.detach().double()
    in_unit = ((values >= 0) & (values <= 1 + SUM_ERROR)).all(dim=-1)
    total = torch.where(in_unit, values.sum(dim=-1), torch.inf)
    sums: npt.NDArray[np.float64] = torch.where(values.isnan().any(dim=-1), torch.nan, total).cpu().numpy()
    return sums


def are_probabilities(sums: npt.NDArray[np.float64]) -> bool:
    """True where all rows, by their `unit_sums` [R], lie in 0..1 and sum to 1; rows of NaN do not count."""
    sums = sums[~np.isnan(sums)]
    error = SUM_ERROR if len(sums) >= FEW_ROWS else FEW_SUM_ERROR
    return bool(len(sums)) and bool((np.abs(sums - 1) <= error).all())


def require_no_probabilities(sums: npt.NDArray[np.float64], noun: str, advice: str) -> None:
    """Raises InvalidInputError where a network's answers, by their `unit_sums` [R], are probabilities: kept as logits,
    their softmax would be taken twice."""
    if are_probabilities(sums):
        raise InvalidInputError(
            f"the {noun} answers probabilities: all {len(sums)} rows asked lie in 0..1 and sum to 1; softmax would be "
            f"taken twice: {advice}"
        )
