"""Flips: rows that a group lost to the baseline and won from it, and pictures of some."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from PIL import Image

from kdcache.measures.flips import mcnemar
from kdcache.pipelines.compare.comparison import Comparison, Picture
from kdcache.pipelines.compare.marks import TEACHER, Mark, Marked
from kdcache.pipelines.compare.page_text import class_name, probability

SIDE = 128  # pixels of a picture at most
MOST_PICTURES = 48

SURE = 0.05


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


def flip_table(comparison: Comparison, groups: Sequence[Marked]) -> tuple[Flips, ...]:
    """Of all groups but the baseline, on labelled rows; a run is held against the baseline's of the same seed, else
    against its first."""
    baseline = next((marked for marked in groups if marked.is_baseline), None)
    labelled = comparison.labels >= 0
    if baseline is None or not labelled.any():
        return ()
    labels = comparison.labels[labelled]
    first = baseline.group.members[0]
    by_seed = {member.seed: member for member in baseline.group.members if member.seed is not None}
    lines = []
    for marked in groups:
        if marked.is_baseline:
            continue
        lost, won, p_values = [], [], []
        for member in marked.group.members:
            other = first if member.seed is None else by_seed.get(member.seed, first)
            hits, right = (one.answers.decisions[labelled] == labels for one in (member, other))
            lost.append(int((right & ~hits).sum()))
            won.append(int((hits & ~right).sum()))
            p_values.append(mcnemar({"lost": lost[-1], "won": won[-1]}))
        ends = dict.fromkeys(probability(value) for value in (min(p_values), max(p_values)))
        is_sure, decimals = max(p_values) < SURE, int(len(p_values) > 1)
        lines.append(Flips(marked, fmean(lost), fmean(won), " to ".join(ends), is_sure, decimals))
    return tuple(lines)


def thumbnails(comparison: Comparison, groups: Sequence[Marked]) -> tuple[Thumbnail, ...]:
    """At most 48 of the comparison's pictures."""
    by_name = {name: marked for marked in groups for name in (marked.group.name, marked.group.members[0].name)}
    return tuple(_thumbnail(picture, comparison, by_name) for picture in comparison.pictures[:MOST_PICTURES])


def _thumbnail(picture: Picture, comparison: Comparison, by_name: dict[str, Marked]) -> Thumbnail:
    decisions: list[tuple[Mark, str, bool]] = []
    kind = "flipped"
    for name, number in picture.decisions.items():
        marked, fits = by_name.get(name), number == picture.label
        if marked is None and name != "teacher":
            continue
        decisions.append((marked.mark if marked else TEACHER, class_name(comparison.class_names, number), fits))
        if marked is not None and marked.is_baseline:
            kind = "lost" if fits else "won"
    decisions.sort(key=lambda decision: decision[0] is not TEACHER)
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
