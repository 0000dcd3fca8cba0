"""Numbers and names as a page shows them: at most four digits, shares in percent, names of strangers harmless."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, isnan, log10
from typing import Any
from unicodedata import east_asian_width

from kdcache.base.visible import visible

SHARES = ("share", "probability")  # units that are shown in percent
SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
LONG_NAME = 28  # columns; an axis has room for these
LONGEST_TEXT = 400  # characters of a setting's value


def cut(text: str, columns: int = LONG_NAME) -> str:
    """Text of at most so many columns, control characters shown; an ellipsis stands for what is cut. Wide characters
    take two."""
    text = visible(text)
    widths = [2 if east_asian_width(character) in "WF" else 1 for character in text[: columns + 1]]
    if len(text) <= columns and sum(widths) <= columns:
        return text
    room, kept = columns - 1, 0
    while kept < len(widths) and widths[kept] <= room:
        room -= widths[kept]
        kept += 1
    return text[:kept].rstrip() + "…"


def class_name(names: Sequence[str], number: int) -> str:
    """The name of a class, or `class 7` where nobody names it; `none` for -1."""
    if number < 0:
        return "none"
    return (names[number].strip() if number < len(names) else "") or f"class {number}"


def setting(value: Any) -> str:
    """A setting's value, for people."""
    if value is None or value == "" or value == [] or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return minus(f"{value:.4g}")
    if isinstance(value, Mapping):
        text = ", ".join(f"{name} {setting(item)}" for name, item in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(setting(item) for item in value)
    else:
        text = visible(str(value))
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def minus(text: str) -> str:
    """A number's text with a minus that is as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def percent(value: float, *, signed: bool = False) -> str:
    """A share as percent, with its sign where asked."""
    if not isfinite(value):
        return "–"
    value = 100 * value + 0.0
    decimals = 1 if abs(value) >= 99.995 else 2
    return minus(f"{value:{'+' if signed else ''}.{decimals}f}") + " %"


def count(value: float, decimals: int = 0) -> str:
    """A count; a mean of counts may have decimals, from a thousand on it has none."""
    return f"{value:,.{decimals if abs(value) < 1000 else 0}f}"


def probability(value: float) -> str:
    """A p value to two digits."""
    if isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


@dataclass(frozen=True)
class Scale:
    """How the values of one column are written: a share in percent, all with the same number of decimals."""

    unit: str
    decimals: int

    @property
    def is_share(self) -> bool:
        return self.unit in SHARES

    @property
    def word(self) -> str:
        """The unit, above the column."""
        return "%" if self.is_share else minus(self.unit)

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """A value without its unit."""
        if value is None or isnan(value):
            return "–"
        if not isfinite(value):
            return "∞" if value > 0 else minus("-∞")
        if self.unit == "p value" and not signed:
            return probability(value)
        value = 100 * value if self.is_share else value
        sign = "+" if signed else ""
        for scale, suffix in SCALES if abs(value) >= 1e4 else ():
            if abs(value) >= scale:
                return minus(f"{value / scale:{sign}.4g} {suffix}")
        text = f"{value:{sign}.{self.decimals}f}"
        if value and not self.is_share and not float(text):
            text = f"{value:{sign}.1g}"
        if not float(text):
            text = text.lstrip("-+")
        return minus(text)


def scale(unit: str, values: Sequence[float]) -> Scale:
    """The scale of a column of values: four digits for the largest, of a percentage at most two decimals."""
    factor = 100 if unit in SHARES else 1
    largest = max((abs(value) * factor for value in values if isfinite(value)), default=0.0)
    decimals = 3 - floor(log10(largest)) if largest else 2
    return Scale(unit, min(max(decimals, 0), 2 if unit in SHARES else 4))
