"""A comparison as plain data, for programs."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from kdcache.pipelines.compare.comparison import Comparison, Group, Member, Spread


def record_of(comparison: Comparison, page: str = "") -> dict[str, Any]:
    """The comparison without the answers of single rows; `page` is the report's path. Infinite numbers are None."""
    return {
        "teacher": comparison.teacher_name,
        "teacher_measures": {name: _number(value.value) for name, value in comparison.teacher_measures.items()},
        "data": comparison.data,
        "rows": len(comparison.labels),
        "classes": len(comparison.class_names) or None,
        "baseline": comparison.baseline,
        "intervals": comparison.intervals,
        "measures": {name: _facts(comparison, name) for name in comparison.measures},
        "groups": [_group(group) for group in comparison.groups],
        "common": _settings(comparison.common),
        "warnings": list(comparison.warnings),
        "notes": list(comparison.notes),
        "html": page or None,
    }


def _facts(comparison: Comparison, name: str) -> dict[str, Any]:
    """The unit of a measure, and the least exact of its values."""
    values = [
        member.measures[name] for group in comparison.groups for member in group.members if name in member.measures
    ]
    inexact = [value.exactness for value in values if value.exactness != "exact"]
    return {"unit": values[0].unit, "exactness": inexact[0] if inexact else "exact"}


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "settings": _settings(group.settings),
        "measures": {name: _spread(cell) for name, cell in group.cells.items()},
        "minus_baseline": {name: _spread(cell) for name, cell in group.differences.items()},
        "is_paired": group.is_paired,
        "members": [_member(member) for member in group.members],
    }


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, as JSON names them: `training_data` for what people read as training data."""
    return {name.replace(" ", "_"): value for name, value in settings.items()}


def _member(member: Member) -> dict[str, Any]:
    measures = {name: _number(value.value) for name, value in member.measures.items()}
    return {"name": member.name, "place": member.place, "kind": member.kind, "seed": member.seed, "measures": measures}


def _spread(cell: Spread) -> dict[str, Any]:
    return {"mean": _number(cell.mean), "low": cell.low, "high": cell.high, "n": cell.n}


def _number(value: float) -> float | None:
    return value if isfinite(value) else None
