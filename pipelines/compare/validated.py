"""Runs compared by what their own validation measured, where no held-out store is named: no row is asked again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.measures.catalogue import MEASURES
from kdcache.measures.facts import Value
from kdcache.pipelines.compare.comparison import Answers, Comparison, Member
from kdcache.pipelines.compare.grouping import baseline_of, grouped, with_cells
from kdcache.pipelines.compare.members import Place, RunPlace, folder_of, names_of
from kdcache.pipelines.compare.settings import CompareSettings

NO_ANSWERS = Answers(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))
NOTE = (
    "no held-out store was named: measures are those of each run's own validation after its last epoch; --store tells "
    "fidelity, deviation and flips"
)


def by_validation(settings: CompareSettings, places: Sequence[Place], notes: Sequence[str]) -> Comparison:
    """The comparison of runs by their metrics.jsonl. Raises InvalidInputError for stores among them, for runs that were
    not validated, and for settings that need a store."""
    runs = [place for place in places if isinstance(place, RunPlace)]
    if len(runs) < len(places) or settings.also or settings.pictures or settings.data:
        raise InvalidInputError(
            "this needs --store, the teacher's store of held-out rows: extract one of a split that no run was trained "
            "on (a sweep whose val_store names one needs no flag)"
        )
    names = names_of([folder_of(run) for run in runs])
    members = [
        Member(
            name,
            run.place,
            "run",
            run.seed,
            run.settings,
            _measured(run.curves),
            NO_ANSWERS,
            run.curves,
            run.bytes_a_row,
        )
        for run, name in zip(runs, names, strict=True)
    ]
    if bare := [member.place for member in members if not member.measures]:
        raise InvalidInputError(
            f"{bare[0]} was not validated, and there is nothing to compare it by; give --store, the teacher's store of "
            "held-out rows, or train it with --val-set"
        )
    groups, common = grouped(members, settings.by)
    measures = tuple(dict.fromkeys(name for member in members for name in member.measures))
    baseline = baseline_of(settings.baseline, groups)
    done, intervals = with_cells(groups, baseline, measures, None)
    return Comparison(
        teacher_name="",
        teacher=NO_ANSWERS,
        teacher_measures={},
        labels=np.zeros(0, np.int32),
        sample_ids=(),
        class_names=(),
        groups=tuple(done),
        baseline=baseline,
        measures=measures,
        intervals=intervals,
        data="each run's own validation",
        common=common,
        notes=(*notes, NOTE),
    )


def _measured(curves: Sequence[Mapping[str, Any]]) -> dict[str, Value]:
    """The measures of the last epoch that was validated."""
    known = [name for name in MEASURES if any(name in line for line in curves)]
    return {name: next(_value(name, line[name]) for line in reversed(curves) if name in line) for name in known}


def _value(name: str, number: float) -> Value:
    return Value(value=number, unit=MEASURES[name].unit, rows=0)
