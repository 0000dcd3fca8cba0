"""Numbers that change over a training: piecewise linear in epochs."""

from dataclasses import dataclass
from math import isfinite

from kdcache.errors import InvalidInputError


@dataclass(frozen=True)
class Ramp:
    """(epoch, value) points, epochs ascending: linear between them, constant outside, a jump where two share an
    epoch."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, time: float) -> float:
        """The value at a time in epochs; at a jump the later value."""
        before = [point for point in self.points if point[0] <= time]
        after = [point for point in self.points if point[0] > time]
        if not before or not after:
            return before[-1][1] if before else after[0][1]
        (start, low), (end, high) = before[-1], after[0]
        return low + (high - low) * (time - start) / (end - start)

    @classmethod
    def parse(cls, text: str, name: str) -> "Ramp":
        """`0:0.9,30:0.1` as a ramp. Raises InvalidInputError."""
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
