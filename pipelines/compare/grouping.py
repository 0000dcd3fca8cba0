"""Members that differ in nothing but the seed are a group; its cells have intervals, and differences to a baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import isnan, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.special import stdtrit

from kdcache.base.arrays import IntArray
from kdcache.base.records import shorten
from kdcache.errors import InvalidInputError
from kdcache.measures.facts import Value
from kdcache.measures.flips import flips_from_baseline
from kdcache.measures.intervals import half_width
from kdcache.measures.tally import Tally, total
from kdcache.pipelines.compare.comparison import By, Group, Ints, Member, Spread
from kdcache.pipelines.compare.members import DATA, EMPTY, Place, RunPlace

FEWEST_PARTS = 10  # of rows: fewer tell no interval
P_VALUES = "mcnemar_"  # whose mean over runs is no p value
LONGEST = 90  # characters of a group's name


def grouped(members: Sequence[Member], by: str) -> tuple[list[Group], dict[str, Any]]:
    """Groups in the order of their first members, each named by what sets it apart, without cells yet; and the settings
    that all runs share. Raises InvalidInputError for a setting that no run has, and a seed twice in a group."""
    runs = [member for member in members if member.kind == "run"]
    names = sorted({name for member in runs for name in member.settings})
    if by and by not in names:
        known = [name for name in names if len({_key(member.settings.get(name)) for member in runs}) > 1]
        raise InvalidInputError(f"no run has a setting {by}; those that differ are {', '.join(known) or 'none'}")
    differing = [name for name in names if len({_key(member.settings.get(name)) for member in runs}) > 1]
    shared = {name: runs[0].settings.get(name) for name in names if name not in differing} if runs else {}
    chosen = [by] if by else differing
    by_key: dict[tuple[str, ...], list[Member]] = {}
    for member in members:
        key = (member.place,) if member.kind == "store" else tuple(_key(member.settings.get(name)) for name in chosen)
        by_key.setdefault(key, []).append(member)
    groups = [_group(tuple(group), chosen) for group in by_key.values()]
    for group in [] if by else groups:
        _require_seeds(group)
    return _told_apart(groups), {name: value for name, value in shared.items() if value not in EMPTY}


def are_single(places: Sequence[Place], by: str) -> bool:
    """True where no two of these make a group."""
    settings = [place.settings if isinstance(place, RunPlace) else {"place": place.place} for place in places]
    keys = {_key(flat.get(by, flat.get("place")) if by else sorted(flat.items())) for flat in settings}
    return len(keys) == len(places)


def _key(value: Any) -> str:
    return repr(value)


def _group(members: tuple[Member, ...], names: Sequence[str]) -> Group:
    first = members[0]
    if first.kind == "store":
        return Group(first.name, {}, members, {})
    settings = {name: first.settings.get(name) for name in names}
    said = {name: value for name, value in settings.items() if value not in EMPTY}
    shown = {name: value for name, value in said.items() if name not in DATA} or said
    words = [str(value) if name == "objective" else f"{_last(name)} {_text(value)}" for name, value in shown.items()]
    words.sort(key=lambda word: word != str(said.get("objective")))
    return Group(", ".join(words)[:LONGEST] or "runs", settings, members, {})


def _last(name: str) -> str:
    return name.removeprefix("set.") if name.startswith("set.") else name.replace("_", " ")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, str) else shorten(value, 40)


def _told_apart(groups: list[Group]) -> list[Group]:
    names = [group.name for group in groups]
    return [
        replace(group, name=f"{group.name} ({number + 1})") if names.count(group.name) > 1 else group
        for number, group in enumerate(groups)
    ]


def _require_seeds(group: Group) -> None:
    seeds = [member.seed for member in group.members]
    for number, member in enumerate(group.members):
        if member.seed in seeds[:number]:
            other = group.members[seeds.index(member.seed)]
            raise InvalidInputError(
                f"{other.place} and {member.place} have equal settings and the same seed {member.seed}: they are one "
                "run twice; leave one out, or train with another --seed"
            )


def baseline_of(place: str, groups: Sequence[Group]) -> str:
    """The name of the group in which a run lies, of the first one by default. Raises InvalidInputError, listing runs,
    for one that is not compared."""
    if not place:
        return groups[0].name
    for group in groups:
        for member in group.members:
            if place in (member.place, member.name) or Path(place) == Path(member.place):
                return group.name
    names = [member.name for group in groups for member in group.members]
    raise InvalidInputError(f"--baseline {place} is not among what is compared: {', '.join(names)}")


def with_flips(groups: Sequence[Group], baseline: str, labels: Ints) -> list[Group]:
    """Groups whose members have their flips from the baseline's run of the same seed, or else from its first member."""
    reference = next(group for group in groups if group.name == baseline)
    by_seed = {member.seed: member for member in reversed(reference.members)}

    def flipped(member: Member) -> Member:
        other = by_seed.get(member.seed, reference.members[0])
        flips = flips_from_baseline(_i64(member.answers.decisions), _i64(other.answers.decisions), _i64(labels))
        return replace(member, measures={**member.measures, **flips})

    return [
        group if group is reference else replace(group, members=tuple(map(flipped, group.members))) for group in groups
    ]


def _i64(values: Ints) -> IntArray:
    return values.astype(np.int64)


def with_cells(
    groups: Sequence[Group], baseline: str, names: Sequence[str], parts: Mapping[str, Sequence[Tally]] | None
) -> tuple[list[Group], By]:
    """Groups with cells, and differences to the baseline group; and what the intervals are over. `parts`: the tallies
    of parts of the rows of each member, by its place, for intervals of single members; None: there are none."""
    names = [name for name in names if not name.startswith(P_VALUES)]
    sizes = {len(group.members) for group in groups}
    by: By = "seeds" if sizes != {1} else "none" if parts is None else "rows"
    cells = _by_rows(parts) if by == "rows" and parts is not None else _over_seeds
    reference = next(group for group in groups if group.name == baseline)
    done = []
    for group in groups:
        differences = {}
        if group is not reference:
            differences = {name: cell for name in names if (cell := cells(name, group, reference)) is not None}
        own = {name: cell for name in names if (cell := cells(name, group, None)) is not None}
        is_paired = by != "seeds" or len(_common_seeds(group, reference)) > 1
        done.append(replace(group, cells=own, differences=differences, is_paired=is_paired))
    return done, by


Cells = Callable[[str, Group, Group | None], Spread | None]


def _over_seeds(name: str, group: Group, other: Group | None) -> Spread | None:
    """The mean of a measure over a group's members and its interval; with another group that of the differences."""
    values = [member.measures[name].value if name in member.measures else nan for member in group.members]
    if other is None:
        known = [value for value in values if not isnan(value)]
        return _spread(known) if known else None
    others = [member.measures[name].value if name in member.measures else nan for member in other.members]
    return difference(values, others, group, other)


def difference(values: Sequence[float], others: Sequence[float], group: Group, other: Group) -> Spread | None:
    """The mean difference of values of a group's members to those of another group's, NaN for none, and its interval by
    Student's t: paired by seed, or by Welch's where the groups share fewer than two seeds. None without values."""
    common = _common_seeds(group, other)
    by_seed = [
        {member.seed: value for member, value in zip(each.members, some, strict=True) if not isnan(value)}
        for each, some in ((group, values), (other, others))
    ]
    paired = [by_seed[0][seed] - by_seed[1][seed] for seed in common if seed in by_seed[0] and seed in by_seed[1]]
    if len(paired) > 1:
        return _spread(paired)
    known = [[value for value in some if not isnan(value)] for some in (values, others)]
    return _welch(known[0], known[1]) if all(known) else None


def _common_seeds(group: Group, other: Group) -> list[Any]:
    seeds = [[member.seed for member in each.members] for each in (group, other)]
    if any(None in each or len(set(each)) < len(each) for each in seeds):
        return []
    return sorted(set(seeds[0]) & set(seeds[1]))


def _spread(values: list[float]) -> Spread:
    mean, n = fmean(values), len(values)
    if n < 2 or not np.isfinite(values).all():
        return Spread(mean, None, None, n)
    half = half_width(values)
    return Spread(mean, mean - half, mean + half, n)


def _welch(values: list[float], others: list[float]) -> Spread:
    mean, n = fmean(values) - fmean(others), min(len(values), len(others))
    if n < 2 or not np.isfinite([*values, *others]).all():
        return Spread(mean, None, None, n)
    shares = [stdev(each) ** 2 / len(each) for each in (values, others)]
    if not sum(shares):
        return Spread(mean, mean, mean, n)
    freedom = sum(shares) ** 2 / sum(
        share**2 / (len(each) - 1) for share, each in zip(shares, (values, others), strict=True)
    )
    half = float(stdtrit(freedom, 0.975)) * sqrt(sum(shares))
    return Spread(mean, mean - half, mean + half, n)


def _by_rows(parts: Mapping[str, Sequence[Tally]]) -> Cells:
    """Intervals of single members by a jackknife that leaves out each part of the rows once, the same parts for all, so
    that differences are paired by row; by Student's t of one degree less than parts."""
    left_out = {place: _each_left_out(tallies) for place, tallies in parts.items()}

    def cells(name: str, group: Group, other: Group | None) -> Spread | None:
        member = group.members[0]
        if name not in member.measures or (other is not None and name not in other.members[0].measures):
            return None
        value, without = member.measures[name].value, _values_of(left_out[member.place], name)
        if other is not None:
            value -= other.members[0].measures[name].value
            without = [a - b for a, b in zip(without, _values_of(left_out[other.members[0].place], name), strict=True)]
        count = len(without)
        if count < FEWEST_PARTS or not np.isfinite([value, *without]).all():
            return Spread(value, None, None, 1)
        half = float(stdtrit(count - 1, 0.975)) * sqrt(
            (count - 1) / count * sum((w - fmean(without)) ** 2 for w in without)
        )
        return Spread(value, value - half, value + half, 1)

    return cells


def _each_left_out(tallies: Sequence[Tally]) -> list[Mapping[str, Value]]:
    """The measures of all parts but one, for each of them."""
    count = len(tallies)
    ahead, behind = list(accumulate(tallies)), list(accumulate(reversed(tallies)))[::-1]
    totals = [total([*ahead[max(number - 1, 0) : number], *behind[number + 1 : number + 2]]) for number in range(count)]
    return [each.result() for each in totals] if count > 1 else []


def _values_of(results: Sequence[Mapping[str, Value]], name: str) -> list[float]:
    return [result[name].value if name in result else nan for result in results]
