"""The outcome of a teacher's check, and the accuracy below which a teacher is suspect."""

from dataclasses import dataclass

from kdcache.networks.forward_memory import ForwardMemory
from kdcache.networks.loop_memory import NO_FORWARD


@dataclass(frozen=True)
class TeacherCheck:
    """The outcome of a teacher's check: its top-1 `accuracy` on the clean rows that were asked, None where none of them
    is labelled, notes on what looks odd and may be right, and the memory of its `forward`."""

    accuracy: float | None
    notes: tuple[str, ...] = ()
    forward: ForwardMemory = NO_FORWARD


def twice_chance(classes: int) -> float:
    """The accuracy below which a teacher is suspect: 2 / C, for few classes a quarter of the way from chance to 1."""
    chance = 1.0 / max(classes, 2)
    return min(2.0 * chance, chance + (1.0 - chance) / 4.0)
