"""Objectives that are made of others: a sum of several, and phases that follow one another."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.selection import Selection
from kdcache.objectives.tokens import counted_rows


class Joint(nn.Module):
    """The sum of several objectives, `kd+hint`: the first one counts the hard labels, each its own term.

    selection: the policy that switches their terms on and off, None where all count always. Hard labels always count.
    """

    selection: Selection | None

    def __init__(self, parts: Sequence[Objective], selection: Selection | None = None) -> None:
        super().__init__()
        self.selection = selection
        self.parts = nn.ModuleList(parts)
        if counting := [type(part.term).__name__ for part in parts[1:] if part.w_ce]:
            raise InvalidInputError(
                f"{', '.join(counting)} of a joint objective counts the hard labels once more; set w_ce of the first "
                "alone"
            )

    def forward(self, outputs: Outputs | Tensor, batch: Batch) -> Tensor:
        """The scalar loss: the sum of the parts'."""
        outputs, batch = counted_rows(Outputs.of(outputs), batch)
        chosen = [True] * len(self.parts) if self.selection is None else self.selection.chosen.tolist()
        losses: list[Tensor] = [
            part(outputs, batch, with_term=is_on) for part, is_on in zip(self.parts, chosen, strict=True)
        ]
        return sum(losses[1:], losses[0])

    def gathers(self, epoch: int) -> bool:
        """True where one part needs the whole batch on each of several processes."""
        return any(part.gathers(epoch) for part in objectives_in(self))

    @property
    def counts_by_total(self) -> bool:
        """True where the loss of a step depends on the number of epochs in the whole training."""
        return any(part.counts_by_total for part in objectives_in(self))


class Phases(nn.Module):
    """Phases switch from one objective to the next. `parts` are (epoch from which the objective holds, objective)."""

    def __init__(self, parts: Sequence[tuple[int, Objective | Joint]]) -> None:
        super().__init__()
        self.starts = [start for start, _ in parts]
        self.parts = nn.ModuleList([part for _, part in parts])
        if self.starts[0] != 0 or self.starts != sorted(set(self.starts)):
            raise InvalidInputError(
                f"phases begin at epochs {self.starts}; the first begins at 0, each later one later"
            )

    def forward(self, outputs: Outputs | Tensor, batch: Batch) -> Tensor:
        """The loss of the objective that holds at the batch's epoch; its epochs count from the start of its phase."""
        current = self._current(batch.epoch)
        start, end = self.starts[current], [*self.starts, batch.epochs][current + 1]
        loss: Tensor = self.parts[current](outputs, replace(batch, epoch=batch.epoch - start, epochs=end - start))
        return loss

    def gathers(self, epoch: int) -> bool:
        """True where, at an epoch, each of several processes needs the whole batch."""
        return cast("Objective | Joint", self.parts[self._current(epoch)]).gathers(epoch)

    @property
    def counts_by_total(self) -> bool:
        """True where the last phase depends on where the training ends."""
        return cast("Objective | Joint", self.parts[-1]).counts_by_total

    def _current(self, epoch: int) -> int:
        return max(index for index, start in enumerate(self.starts) if start <= epoch)


AnyObjective = Objective | Joint | Phases


def objectives_in(objective: AnyObjective) -> Iterator[Objective]:
    """Every objective of one term in a sum or in phases, or the one itself."""
    if isinstance(objective, Objective):
        yield objective
        return
    for part in objective.parts:
        yield from objectives_in(cast("AnyObjective", part))


def student_taps(objective: AnyObjective) -> tuple[str, ...]:
    """The student's taps that an objective is handed, each once."""
    return tuple(dict.fromkeys(name for part in objectives_in(objective) for name in part.student_taps))


def teacher_taps(objective: AnyObjective, stores: int) -> tuple[tuple[str, ...], ...]:
    """The taps of each store that an objective is handed, each once."""
    lists: list[dict[str, None]] = [{} for _ in range(stores)]
    for part in objectives_in(objective):
        for names, taps in zip(lists, part.teacher_taps, strict=False):
            names.update(dict.fromkeys(taps))
    return tuple(map(tuple, lists))


def negatives(objective: AnyObjective) -> int:
    """The number of negatives that an objective is handed with each batch."""
    return max(part.negatives for part in objectives_in(objective))


def wrapped(objective: AnyObjective, network: nn.Module) -> nn.Module:
    """The network that is trained, validated and saved. Raises InvalidInputError where two terms wrap it, or another
    term sees layers of a student that one wraps: these are no longer its own."""
    results = [(part, result) for part in objectives_in(objective) if (result := part.wrap(network)) is not network]
    if len(results) > 1:
        raise InvalidInputError(f"{len(results)} terms let the student answer through parts of their own; choose one")
    if not results:
        return network
    wrapping, result = results[0]
    for part in objectives_in(objective):
        if part is not wrapping and part.student_taps:
            raise InvalidInputError(
                f"{type(wrapping.term).__name__} lets the student answer through a part of its own, and "
                f"{type(part.term).__name__} sees layers of the student alone; join it with objectives of logits, or "
                "train by one after the other in two runs"
            )
    return result
