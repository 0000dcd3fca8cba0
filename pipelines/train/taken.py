"""The outputs of stores that students learn from beside soft labels: taps by store, and negatives."""

from collections.abc import Iterable
from dataclasses import dataclass

from kdcache.objectives.joined import AnyObjective, negatives, teacher_taps


@dataclass(frozen=True)
class Taken:
    """taps: their names, of each store, `features` among them. negatives: rows that are drawn with each batch."""

    taps: tuple[tuple[str, ...], ...] = ()
    negatives: int = 0

    @classmethod
    def by(cls, objectives: Iterable[AnyObjective], stores: int) -> "Taken":
        """What all of these objectives take together of so many stores."""
        taps: list[dict[str, None]] = [{} for _ in range(stores)]
        count = 0
        for objective in objectives:
            count = max(count, negatives(objective))
            for names, more in zip(taps, teacher_taps(objective, stores), strict=True):
                names.update(dict.fromkeys(more))
        return cls(tuple(map(tuple, taps)) if any(taps) else (), count)


NOTHING = Taken()
