"""A page shows a comparison: one HTML file with its figures, style and script inside, that asks no network for more."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from kdcache.base.visible import visible
from kdcache.base.whole_files import write_whole
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare import page_text
from kdcache.pipelines.compare.by_setting import setting_panels
from kdcache.pipelines.compare.class_changes import SHOWN, class_panels
from kdcache.pipelines.compare.comparison import By, Comparison
from kdcache.pipelines.compare.confusions import confusions
from kdcache.pipelines.compare.exaggeration import exaggeration_panels
from kdcache.pipelines.compare.figures import Panel, drawing
from kdcache.pipelines.compare.flip_tables import flip_table, thumbnails
from kdcache.pipelines.compare.learning_curves import curve_panels
from kdcache.pipelines.compare.marks import TEACHER, Marked, Truth, drawn_groups, marked_groups, truth
from kdcache.pipelines.compare.page_tables import common_settings, measure_table, member_table, setting_table
from kdcache.pipelines.compare.reliability import reliability_panels
from kdcache.pipelines.compare.scatter import accuracy_and_agreement, agreement_by_group, bytes_and_accuracy

MOST_SETTINGS = 8  # that have a figure
INTERVALS: dict[By, str] = {
    "seeds": "95 % over the runs of a group; differences are paired by seed where two groups have the same seeds",
    "rows": "95 % over the rows of a single run, by a jackknife of 20 parts; other seeds may differ by more",
    "none": "none: a single run tells no spread",
}


@dataclass(frozen=True)
class Figures:
    """The panels of a page; an empty tuple leaves its section out."""

    accuracy: tuple[Panel, ...] = ()
    agreement: tuple[Panel, ...] = ()
    reliability: tuple[Panel, ...] = ()
    exaggeration: tuple[Panel, ...] = ()
    classes: tuple[Panel, ...] = ()
    curves: tuple[Panel, ...] = ()
    bytes: tuple[Panel, ...] = ()
    settings: tuple[Panel, ...] = ()


def require_page(path: str) -> None:
    """Refuse, before the work is done, a page that could not be made at its end. Raises InvalidInputError."""
    file = Path(path)
    if file.suffix not in (".html", ".htm"):
        raise InvalidInputError(f"page {file} ends in {file.suffix or 'no suffix'!r}; let it end in .html")
    if file.is_dir():
        raise InvalidInputError(f"page {file} is a folder; name a file in it")
    if not file.parent.is_dir():
        raise InvalidInputError(f"page {file}: there is no folder {file.parent}; make it first")


def write_page(comparison: Comparison, path: str) -> None:
    """Write the page of a comparison, whole or not at all. Raises CannotWriteError."""
    write_whole(Path(path), page(comparison).encode())


def page(comparison: Comparison) -> str:
    """The page's HTML."""
    groups, held = marked_groups(comparison), truth(comparison)
    drawn = drawn_groups(groups)
    with drawing():
        figures = _figures(comparison, groups, drawn, held)
    folder = files("kdcache.pipelines.compare")
    template, style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    setting_names, setting_rows = setting_table(groups)
    member_measures, members = member_table(groups)
    kinds = {member.kind for marked in groups for member in marked.group.members}
    return _environment().from_string(template).render(
        comparison=comparison, groups=groups, drawn=drawn, truth=held, figures=figures, teacher=TEACHER,
        style=Markup(style), script=Markup(script), digest=digest, text=page_text,
        title=_title(comparison), intervals=INTERVALS[comparison.intervals],
        kind=kinds.pop() if len(kinds) == 1 else "member", rows=len(comparison.labels),
        labelled=int((comparison.labels >= 0).sum()),
        table=measure_table(comparison, groups), setting_names=setting_names, setting_rows=setting_rows,
        common=common_settings(comparison.common), member_measures=member_measures, members=members,
        confusions=confusions(comparison, drawn, held) if comparison.is_asked else (),
        flips=flip_table(groups), most_classes=2 * SHOWN,
        thumbnails=thumbnails(comparison, drawn),
    )  # fmt: skip


def _title(comparison: Comparison) -> str:
    name = page_text.cut(comparison.teacher_name, 90)
    return f"Students of “{name}”" if name else "Runs and their own validation"


def _figures(comparison: Comparison, groups: Sequence[Marked], drawn: Sequence[Marked], held: Truth) -> Figures:
    if not groups:
        return Figures()
    figures = Figures(
        settings=setting_panels(groups, held.word)[:MOST_SETTINGS],
        curves=curve_panels(drawn),
        bytes=_one(bytes_and_accuracy(comparison, groups, held.word)),
    )
    if held.is_labels:
        figures = replace(figures, accuracy=_one(accuracy_and_agreement(comparison, groups)))
    else:
        figures = replace(figures, agreement=_one(agreement_by_group(groups)))
    if not comparison.is_asked:
        return figures
    return replace(
        figures,
        reliability=reliability_panels(comparison, drawn) if held.is_labels else (),
        exaggeration=exaggeration_panels(comparison, drawn),
        classes=class_panels(drawn, held, comparison.class_names),
    )


def _one(panel: Panel | None) -> tuple[Panel, ...]:
    return () if panel is None else (panel,)


def _environment() -> Environment:
    """Every text that the template shows is escaped, its control characters shown."""

    def harmless(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        autoescape=True, finalize=harmless, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
