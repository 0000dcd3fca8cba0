"""The tables of a page: groups x measures, the settings that differ, and the members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from kdcache.measures.catalogue import MEASURES
from kdcache.measures.facts import Value
from kdcache.pipelines.compare.comparison import Comparison, Spread
from kdcache.pipelines.compare.marks import Marked
from kdcache.pipelines.compare.page_text import Scale, scale, setting


@dataclass(frozen=True)
class Column:
    """A measure's column: how its values are written, how exact they are (empty where exact), and its facts."""

    name: str
    scale: Scale
    exactness: str
    formula: str
    source: str

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Cell:
    """A cell's texts. is_sure: the difference's interval excludes 0. sort: the number by which a script sorts, empty
    where there is none."""

    mean: str
    interval: str = ""
    difference: str = ""
    difference_interval: str = ""
    is_sure: bool = False
    sort: str = ""


@dataclass(frozen=True)
class Row:
    """A group's cells, in the order of the columns."""

    marked: Marked
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class MeasureTable:
    """Columns, the teacher's cells (empty without any), a row a group."""

    columns: tuple[Column, ...]
    teacher: tuple[Cell, ...]
    rows: tuple[Row, ...]


def measure_table(comparison: Comparison, groups: Sequence[Marked]) -> MeasureTable:
    """Measures that some group has, in the comparison's order."""
    names = [name for name in comparison.measures if any(name in marked.group.cells for marked in groups)]
    columns = tuple(_column(name, comparison, groups) for name in names)
    rows = tuple(Row(marked, tuple(_cell(column, marked) for column in columns)) for marked in groups)
    own = comparison.teacher_measures
    teacher = tuple(Cell(column.scale.text(own[column.name].value) if column.name in own else "") for column in columns)
    return MeasureTable(columns, teacher if any(cell.mean for cell in teacher) else (), rows)


def _column(name: str, comparison: Comparison, groups: Sequence[Marked]) -> Column:
    members = [member.measures[name] for marked in groups for member in marked.group.members if name in member.measures]
    facts = MEASURES.get(name) or MEASURES.get(name.split(" ")[0])  # such as `fidelity_gap` to one of several stores
    unit = members[0].unit if members else facts.unit if facts else ""
    means = [marked.group.cells[name].mean for marked in groups if name in marked.group.cells]
    formula, source = (facts.formula, facts.source) if facts else ("", "")
    return Column(name, scale(unit, means), _exactness(members), formula, source)


def _exactness(values: Sequence[Value]) -> str:
    return " and ".join(sorted({value.exactness for value in values} - {"exact"}))


def _cell(column: Column, marked: Marked) -> Cell:
    spread, difference = marked.group.cells.get(column.name), marked.group.differences.get(column.name)
    if spread is None:
        return Cell("–")
    sort = "" if isnan(spread.mean) else repr(float(spread.mean)).replace("inf", "Infinity")
    if column.scale.unit == "p value":
        return Cell(column.scale.text(spread.mean), sort=sort)
    return Cell(
        mean=column.scale.text(spread.mean),
        interval=_interval(column.scale, spread, signed=False),
        difference=column.scale.text(difference.mean, signed=True) if difference else "",
        difference_interval=_interval(column.scale, difference, signed=True) if difference else "",
        is_sure=excludes_zero(difference),
        sort=sort,
    )


def _interval(shown: Scale, spread: Spread, *, signed: bool) -> str:
    if spread.low is None or spread.high is None or spread.low == spread.high:
        return ""
    return f"{shown.text(spread.low, signed=signed)} … {shown.text(spread.high, signed=signed)}"


def excludes_zero(spread: Spread | None) -> bool:
    """True for an interval all of whose values have one sign."""
    if spread is None or spread.low is None or spread.high is None:
        return False
    return spread.low > 0 or spread.high < 0


def setting_table(groups: Sequence[Marked]) -> tuple[tuple[str, ...], tuple[tuple[Marked, tuple[str, ...]], ...]]:
    """Names of the settings that differ, and each group's values."""
    names = tuple(dict.fromkeys(name for marked in groups for name in marked.group.settings))
    return names, tuple(
        (marked, tuple(setting(marked.group.settings.get(name)) for name in names)) for marked in groups
    )


def common_settings(common: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Settings that all runs share, as text."""
    return tuple((name, setting(value)) for name, value in common.items())


@dataclass(frozen=True)
class MemberRow:
    """A member, and its accuracy and agreement as text."""

    marked: Marked
    name: str
    place: str
    seed: str
    values: tuple[str, ...]


def member_table(groups: Sequence[Marked]) -> tuple[tuple[str, ...], tuple[MemberRow, ...]]:
    """Of accuracy and agreement those that some member has, and a line a member."""
    members = [(marked, member) for marked in groups for member in marked.group.members]
    names = [name for name in ("accuracy", "agreement") if any(name in member.measures for _, member in members)]
    share = Scale("share", 2)
    rows = []
    for marked, member in members:
        values = [member.measures.get(name) for name in names]
        texts = tuple(share.text(value.value if value else None) for value in values)
        seed = "–" if member.seed is None else str(member.seed)
        rows.append(MemberRow(marked, member.name, member.place, seed, texts))
    return tuple(names), tuple(rows)
