"""Sampled soft labels: draws from the teacher, which serve the forward cross-entropy at one temperature alone.

Shape letters: B any leading axes, L hard labels a row, R draws a row.
"""

from dataclasses import dataclass
from typing import ClassVar

from array_api_compat import array_namespace

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import Array, TopK
from kdcache.labels.soft_labels import SoftLabels, Tail
from kdcache.labels.spread import Spread
from kdcache.labels.temperatures import require_only


@dataclass(frozen=True, kw_only=True)
class SampledLabels(SoftLabels):
    """Sampled soft labels hold R draws from p at the temperature T for each of B rows: they serve the forward
    cross-entropy at that T, and no more. `logits` is [B, 0], since none is known, and `label` is log p(hard label) at
    T.

    Raises InvalidInputError, naming T, for everything that draws cannot tell.

    Attributes:
        draws: [B, R] ids, ascending, repeats kept.
        draw_temperature: The temperature T of the draws.

    Examples:
        >>> nothing, label = torch.zeros(1, 0), torch.tensor([-0.5])
        >>> drawn = SampledLabels(nothing, label, 3, draws=torch.tensor([[0, 0, 2]]), draw_temperature=1.0)
        >>> drawn.counts
        tensor([[2, 0, 1]])
    """

    draws: Array
    draw_temperature: float

    DRAWN: ClassVar[bool] = True
    BY_ROW: ClassVar[tuple[str, ...]] = ("draws", "logits", "label")

    @property
    def tail_classes(self) -> int:
        """Refused, as is all else of single classes."""
        raise self._unknown("a tail")

    @property
    def top_class(self) -> Array:
        """Refused: draws tell no class apart."""
        raise self._unknown("the top class")

    def best(self, k: int) -> Array:
        raise self._unknown(f"the best {k} classes")

    def tail_log_mass(self, temperature: float | Array) -> Array:
        raise self._unknown("log-probabilities by class")

    def log_spread(self, temperature: float | Array, *, tail: Tail = "uniform") -> Spread:
        raise self._unknown("log-probabilities by class")

    def logit_spread(self, offsets: Array | None = None) -> Spread:
        raise self._unknown("logits")

    def tail_moments(self) -> tuple[Array, Array]:
        raise self._unknown("logits")

    def tail_mean(self) -> Array:
        raise self._unknown("logits")

    def prefix(self, k: int) -> SoftLabels:
        raise self._unknown(f"the best {k} classes")

    def reduced(self, k: int, hard_BL: Array) -> TopK:
        raise self._unknown(f"the best {k} classes")

    def require_temperature(self, temperature: float | Array, *, tail: Tail = "uniform") -> None:
        """Raises InvalidInputError for any temperature but that of the draws."""
        require_draw_temperature(temperature, self.draw_temperature)

    def label_log_prob(self, temperature: float | Array) -> Array:
        """[B] or [B, 2] log-probability of the hard label; NaN where there is none."""
        self.require_temperature(temperature)
        return self.label

    @property
    def counts(self) -> Array:
        """[B, R] i64: how often the id at each place of `draws` was drawn, standing at its first place; 0 at repeats.
        The counts of a row sum to R."""
        xp, draws = array_namespace(self.draws), self.draws
        equal = draws[..., :, None] == draws[..., None, :]
        sizes = xp.astype(xp.count_nonzero(equal, axis=-1), xp.int64)
        repeats = xp.concat([xp.zeros_like(equal[..., :1, 0]), draws[..., 1:] == draws[..., :-1]], axis=-1)
        return xp.where(repeats, xp.zeros_like(sizes), sizes)

    def shown(self) -> tuple[Array, Array, Array | None]:
        """Ids [B, R] with the shares of the draws that they have, a repeat's share standing at its first place."""
        xp = array_namespace(self.draws)
        return self.draws, xp.astype(self.counts, self.logits.dtype) / self.draws.shape[-1], None

    def _unknown(self, noun: str) -> InvalidInputError:
        known = f"{self.draws.shape[-1]} draws at T = {self.draw_temperature:g}"
        return InvalidInputError(
            f"{noun} cannot be had of {known}: they serve the forward cross-entropy at that temperature alone; use an "
            "objective such as kd there, or extract with --encoding topk or full"
        )


def require_draw_temperature(temperature: float | Array, known: float) -> None:
    advice = f"give --temperature {known:g}, or extract with another --draw-temperature"
    require_only(temperature, known, "drawn soft labels", advice)
