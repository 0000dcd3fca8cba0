"""Flips: rows that a group lost to the baseline and won from it, and pictures of some."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from PIL import Image

from kdcache.pipelines.compare.comparison import Comparison, Picture
from kdcache.pipelines.compare.marks import TEACHER, Mark, Marked
from kdcache.pipelines.compare.page_text import class_name, probability

SIDE = 128  # pixels of a picture at most
MOST_PICTURES = 48

SURE = 0.05
LOST, WON, P_VALUE = "lost_to_baseline", "won_from_baseline", "mcnemar_baseline"


@dataclass(frozen=True)
class Flips:
    """Rows that a group's runs lost and won, a run, and McNemar's p: of the run, or the least and the largest. is_sure:
    it is below 0.05 for all. decimals: of counts."""

    marked: Marked
    lost: float
    won: float
    p_values: str
    is_sure: bool
    decimals: int


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, how wide and high it is shown, and what was decided: (mark, class, whether it fits)."""

    uri: str
    width: int
    height: int
    sample: str
    label: str
    kind: str
    decisions: tuple[tuple[Mark, str, bool], ...]


def flip_table(groups: Sequence[Marked]) -> tuple[Flips, ...]:
    """Of groups whose runs all have the measures; the baseline has none."""
    lines = []
    for marked in groups:
        runs = [member.measures for member in marked.group.members]
        if marked.is_baseline or not all({LOST, WON, P_VALUE} <= measures.keys() for measures in runs):
            continue
        lost, won = (fmean(values[name].value * values[name].rows for values in runs) for name in (LOST, WON))
        p_values = sorted(values[P_VALUE].value for values in runs)
        ends = dict.fromkeys(probability(value) for value in (p_values[0], p_values[-1]))
        lines.append(Flips(marked, lost, won, " to ".join(ends), p_values[-1] < SURE, int(len(runs) > 1)))
    return tuple(lines)


def thumbnails(comparison: Comparison, groups: Sequence[Marked]) -> tuple[Thumbnail, ...]:
    """At most 48 of the comparison's pictures."""
    by_name = {marked.group.name: marked for marked in groups}
    return tuple(_thumbnail(picture, comparison, by_name) for picture in comparison.pictures[:MOST_PICTURES])


def _thumbnail(picture: Picture, comparison: Comparison, by_name: dict[str, Marked]) -> Thumbnail:
    names = comparison.class_names
    decisions = [(TEACHER, class_name(names, picture.teacher), picture.teacher == picture.label)]
    kind = "flipped"
    for name, number in picture.decisions.items():
        if (marked := by_name.get(name)) is None:  # of groups some are not drawn
            continue
        fits = number == picture.label
        decisions.append((marked.mark, class_name(names, number), fits))
        if marked.is_baseline:
            kind = "lost" if fits else "won"
    image = Image.fromarray(picture.pixels)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    zoom = max(SIDE // max(image.size), 1)
    return Thumbnail(
        uri="data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
        width=zoom * image.width, height=zoom * image.height, sample=picture.sample,
        label=class_name(comparison.class_names, picture.label), kind=kind, decisions=tuple(decisions),
    )  # fmt: skip
