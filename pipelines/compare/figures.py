"""The frame of a page's figures: SVG by matplotlib, whose colours are variables of the page and whose text is text.

Figures are drawn in colours that stand for a role (`INK`, `hue(3)`); `svg` replaces each by `var(--ink)`, `var(--g3)`,
so that the page's theme decides.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kdcache.base.figures import figure_class
from kdcache.pipelines.compare.marks import Mark
from kdcache.pipelines.compare.page_text import cut

INK, MUTED, RULE, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
ROLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"}
POINTS = 72  # an inch; a figure's units are points
SMALL, LARGE = 360, 420  # widths of a panel among others, and of a figure that stands alone

TAG = re.compile(r"<[^>]*>")
ROLE = re.compile(r"#0a0b[01][0-9]")
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
FONT = re.compile(r"font: (?:(bold|700) )?([\d.]+)px [^;\"]*")
IDS = re.compile(r"<g id=\"[a-zA-Z0-9_.]+\"")
FAMILY = re.compile(r" ?font-family: [^;\"]*;?")
UPRIGHT = re.compile(r" transform=\"rotate\(-?0 [^\"]*\)\"")
EMPTY = re.compile(r"<g/>|<defs></defs>|<defs/>")


@dataclass(frozen=True)
class Panel:
    """A drawn figure. title and note stand above it; mark: the group's that it shows, None for several groups."""

    svg: Markup
    title: str = ""
    note: str = ""
    mark: Mark | None = None


def hue(mark: Mark) -> str:
    """The colour that stands for a group's."""
    return f"#0a0b1{mark.hue}" if mark.hue else INK


@contextmanager
def drawing() -> Iterator[None]:
    """While open, matplotlib draws as the page needs it, whatever the user's own settings are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none", "text.parse_math": False, "text.usetex": False, "font.size": 12,
                "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": RULE, "axes.facecolor": "none",
                "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
                "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": RULE,
                "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.linewidth": 0.8, "axes.labelpad": 5,
                "axes.titlesize": 12, "axes.labelsize": 12, "xtick.labelsize": 12, "ytick.labelsize": 12,
                "xtick.major.size": 0, "ytick.major.size": 0, "xtick.major.pad": 6, "ytick.major.pad": 6,
                "lines.linewidth": 1.6, "lines.solid_capstyle": "round", "axes.unicode_minus": True,
            }
        )  # fmt: skip
        yield


def blank(width: float, height: float) -> Any:
    """An empty figure of so many points."""
    return figure_class()(figsize=(width / POINTS, height / POINTS), facecolor="none")


def axes_at(figure: Any, *, left: float, right: float, top: float, bottom: float) -> Any:
    """Axes whose edges lie so many points from the figure's left and top."""
    width, height = (float(inches) * POINTS for inches in figure.get_size_inches())
    return figure.add_axes((left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height))


def svg(figure: Any, *, name: str, label: str) -> Markup:
    """The figure as an SVG element. name: tells its parts from those of other figures of the page. label: for people
    who do not see it."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = name
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = TAG.sub(lambda tag: _themed(tag.group()), text)
    text = EMPTY.sub("", re.sub(r">\s*\n\s*<", "><", text))
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None
    head = Markup('<svg {} role="img" aria-label="{}">').format(Markup(view_box.group()), cut(label, 200))
    return head + Markup(text[text.index(">") + 1 :].strip())  # matplotlib escapes all text


def _themed(tag: str) -> str:
    tag = UPRIGHT.sub("", FAMILY.sub("", IDS.sub("<g", tag)))
    tag = re.sub(r"\s+", " ", tag)
    tag = LONG_NUMBER.sub(lambda number: f"{float(number.group()):.2f}".rstrip("0").rstrip("."), tag)
    tag = FONT.sub(lambda font: f"font-size: {font[2]}px" + ("; font-weight: 600" if font[1] else ""), tag)
    return ROLE.sub(lambda colour: f"var(--{ROLES.get(colour.group(), 'g' + colour.group()[-1])})", tag)
