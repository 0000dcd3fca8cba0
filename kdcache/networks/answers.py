"""Answers of a network become logits of the data's classes: probabilities by their logarithm, its classes by a map.

Shape letters: B rows, N classes of the network, C classes of the data.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.store.manifest import TeacherIdentity

LEAST = 1e-12  # probability: a smaller one counts as this
SUM_ERROR = 0.01  # of a row of probabilities, by which its sum may differ from 1; f16 and bf16 stay below 0.004

Kind = Literal["logits", "probs"]


@dataclass(frozen=True)
class Answers:
    """How a network answers.

    kind: "logits", or "probs" for probabilities. class_map [N]: for each class of the network the class of the data, or
    -1; empty where they are the same. classes: the number of classes C of the data, with a map.
    """

    kind: Kind = "logits"
    class_map: tuple[int, ...] = ()
    classes: int = 0

    @classmethod
    def of(cls, identity: TeacherIdentity) -> "Answers":
        """The answers of the teacher that a manifest names."""
        return cls(identity.answers, identity.class_map, identity.classes)

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
