"""The temperatures at which soft labels are known: a number or an array, checked and shaped."""

from typing import Any

from kdcache.errors import InvalidInputError

Array = Any  # numpy or torch, as in `reduction`


def require_temperature(temperature: float | Array, *, complete: bool) -> None:
    """A temperature is 1 or more, above 0 for complete soft labels. Raises InvalidInputError for any other number.

    Below T = 1 the sketch would extrapolate, and no three numbers can carry the tail. An array is not looked at: that
    would wait for the device at every step.
    """
    if not isinstance(temperature, int | float):
        return
    if not (temperature > 0 if complete else temperature >= 1):
        limit = "above 0" if complete else "1 or more: a top-k store's tail is known between T = 1 and infinity"
        advice = "" if complete else "; extract with --encoding full for lower temperatures"
        raise InvalidInputError(f"temperature {temperature} was asked for; it must be {limit}{advice}")


def require_only(temperature: float | Array, known: float, holder: str, advice: str) -> None:
    """Raises InvalidInputError for any temperature but the one that a holder is known at. An array, such as a learned
    temperature, is refused unseen."""
    if isinstance(temperature, int | float) and temperature == known:
        return
    asked = f"temperature {temperature}" if isinstance(temperature, int | float) else "a temperature that changes"
    raise InvalidInputError(f"{asked} was asked of {holder}, which is known at T = {known:g} alone; {advice}")


def column(temperature: float | Array) -> float | Array:
    """The temperature in a shape that broadcasts with [B, K]: [B] gets an axis."""
    return temperature if isinstance(temperature, int | float) or temperature.ndim == 0 else temperature[..., None]
