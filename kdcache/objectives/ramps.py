"""A ramp is a number that changes over a training, piecewise linear in epochs."""

from dataclasses import dataclass
from math import isfinite

from kdcache.errors import InvalidInputError


@dataclass(frozen=True)
class Ramp:
    """A ramp runs through (epoch, value) points, epochs ascending.

    It is linear between them and constant outside; where two points share an epoch it jumps.

    Examples:
        >>> from kdcache.objectives.ramps import Ramp
        >>> Ramp(((0.0, 8.0), (40.0, 1.0)))(20.0)
        4.5
    """

    points: tuple[tuple[float, float], ...]

    def __call__(self, time: float) -> float:
        """The value at a time in epochs; at a jump the later value."""
        past = [point for point in self.points if point[0] <= time]
        future = [point for point in self.points if point[0] > time]
        if not past or not future:
            return past[-1][1] if past else future[0][1]
        (start, first), (end, second) = past[-1], future[0]
        return first + (second - first) * (time - start) / (end - start)

    @property
    def values(self) -> list[float]:
        """The values of the points, between which all others lie."""
        return [value for _, value in self.points]

    @classmethod
    def parse(cls, text: str, name: str) -> "Ramp":
        """The ramp that a text such as `0:0.9,30:0.1` describes. Raises InvalidInputError."""
        try:
            pairs = [part.split(":") for part in text.split(",")]
            points = tuple((float(epoch), float(value)) for epoch, value in pairs)
            if not all(isfinite(number) for point in points for number in point):
                raise ValueError
        except ValueError:
            raise InvalidInputError(
                f"{name} {text!r} is not a ramp; write EPOCH:VALUE,... such as {name}=0:0.9,30:0.1"
            ) from None
        if [epoch for epoch, _ in points] != sorted(epoch for epoch, _ in points):
            raise InvalidInputError(f"{name} {text!r}: epochs must not fall; write the earlier ones first")
        return cls(points)
