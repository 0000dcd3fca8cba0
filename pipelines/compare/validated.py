"""Runs compared by what their own validation measured, where no held-out store is named: no row is asked again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.measures.catalogue import MEASURES
from kdcache.measures.facts import Value
from kdcache.pipelines.compare.comparison import Answers, Comparison
from kdcache.pipelines.compare.grouping import baseline_of, grouped, with_cells
from kdcache.pipelines.compare.members import BEST, Place, RunPlace, name_of, names_of, unlike_trainings
from kdcache.pipelines.compare.settings import CompareSettings

NO_ANSWERS = Answers(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))
NOTE = (
    "no held-out store was named: measures are those of each run's own validation after the epoch of its weights; "
    "--store tells fidelity, deviation and flips"
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
    names = names_of([name_of(run) for run in runs])
    members = [run.member(name, _measured(run), NO_ANSWERS) for run, name in zip(runs, names, strict=True)]
    if bare := [member.place for member in members if not member.measures]:
        raise InvalidInputError(
            f"{bare[0]} was not validated after that epoch, and there is nothing to compare it by; give --store, the "
            "teacher's store of held-out rows, or train it with --val-set"
        )
    warnings = list(unlike_trainings(runs))
    if len({str(run.validation) for run in runs}) > 1:
        warnings.append(
            "THE RUNS WERE VALIDATED ON UNLIKE ROWS, views or stores: a difference may be one of these; give --store"
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
        warnings=tuple(warnings),
        notes=(*notes, NOTE),
    )


def _measured(run: RunPlace) -> dict[str, Value]:
    """The measures of the epoch whose weights are compared: the best one is that of highest accuracy, or the last."""
    lines = [line for line in run.curves if any(name in line for name in MEASURES)]
    if run.mark == BEST:
        last_first = reversed(lines)
        line = (
            max(lines, key=lambda line: line.get("accuracy", -1.0), default={})
            if _has_accuracy(lines)
            else next(last_first, {})
        )
    else:
        epoch = (
            run.curves[-1]["epoch"] if run.mark == "last" and run.curves else int(run.mark.removeprefix("epoch-")) - 1
        )
        line = next((line for line in lines if line["epoch"] == epoch), {})
    return {name: _value(name, line[name]) for name in MEASURES if name in line}


def _has_accuracy(lines: Sequence[Mapping[str, Any]]) -> bool:
    return any("accuracy" in line for line in lines)


def _value(name: str, number: float) -> Value:
    return Value(value=number, unit=MEASURES[name].unit, rows=0)
