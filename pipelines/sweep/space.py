"""A sweep's file and the points that it describes: a base, and a grid, random trials or a study over it.

folder = "runs/sweep"
[base]                     # settings of `kdcache train`
data = "digits"
[grid]                     # lists: each value with each of the others
lr = [0.1, 0.05]
set.beta = [1, 2]          # one argument of a setting that takes key=value
views = [1, 2, 5]          # 0:1, 0:2 and 0:5
[random]                   # or: trials drawn from a space (with a grid: each trial at each point of it)
trials = 20
space.lr = {loguniform = [0.001, 0.3]}
[study]                    # or: trials that Optuna proposes
trials = 20
space.top_k = {int = [1, 10]}
"""

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdcache.base.ranges import Range
from kdcache.base.records import explain
from kdcache.base.specs import read_toml
from kdcache.errors import InvalidInputError
from kdcache.pipelines.settings import TrainSettings, moved_weight
from kdcache.pipelines.sweep.names import NAMELESS, point_name
from kdcache.training.run_record import WEIGHTS

SWEEPABLE = tuple(sorted(TrainSettings.model_fields.keys() - NAMELESS))
ARGUMENTS = tuple(name for name in SWEEPABLE if isinstance(TrainSettings.model_fields[name].default, dict))
KINDS = {"choice", "int", "uniform", "loguniform"}

Whole = Annotated[int, Range(-(2**53), 2**53)]
Finite = Annotated[float, Range(-1e300, 1e300)]
Trials = Annotated[int, Range(1, 100_000)]
SearchSeed = Annotated[int, Range(0, 2**32 - 1 - 100_000)]  # Optuna's, to which the trials so far are added


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Distribution(_Part):
    """A distribution: choice among values; or int, uniform or loguniform between two bounds, both included."""

    choice: tuple[Any, ...] | None = Field(default=None, min_length=1)
    integer: tuple[Whole, Whole] | None = Field(default=None, alias="int")
    uniform: tuple[Finite, Finite] | None = None
    loguniform: tuple[Finite, Finite] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        low, high = self.bounds
        if not low < high and self.choice is None:
            raise ValueError(f"the bounds {low}, {high} do not ascend")
        if self.loguniform is not None and low <= 0:
            raise ValueError(f"loguniform begins at {low}; it must begin above 0")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        return self.integer or self.uniform or self.loguniform or (0, 0)

    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all when a sweep is checked: every choice, or both bounds."""
        return self.choice if self.choice is not None else self.bounds

    def draw(self, generator: random.Random) -> Any:
        """One value."""
        low, high = self.bounds
        if self.choice is not None:
            return generator.choice(self.choice)
        if self.integer is not None:
            return generator.randint(*self.integer)
        if self.uniform is not None:
            return _short(generator.uniform(low, high))
        return _short(math.exp(generator.uniform(math.log(low), math.log(high))))


class RandomSearch(_Part):
    """Trials drawn independently by Python's generator. The same seed draws the same, so sweeps are found again."""

    trials: Trials
    seed: SearchSeed = 0
    space: dict[str, Distribution] = Field(min_length=1)


class StudySearch(_Part):
    """Trials that Optuna proposes from the results so far."""

    trials: Trials
    seed: SearchSeed = 0
    sampler: Literal["tpe", "random"] = "tpe"
    direction: Literal["maximize", "minimize"] = "maximize"
    metric: str = "accuracy"
    space: dict[str, Distribution] = Field(min_length=1)


class SweepFile(_Part):
    """The content of a sweep's file."""

    folder: str = ""
    base: dict[str, Any]
    grid: dict[str, tuple[Any, ...]] = {}
    random: RandomSearch | None = None
    study: StudySearch | None = None

    @property
    def swept(self) -> tuple[str, ...]:
        """Names of the settings that differ between points."""
        search = self.random or self.study
        return (*(search.space if search else ()), *self.grid)


@dataclass(frozen=True)
class Point:
    """One run of a sweep: `swept` holds the values of its swept settings, `settings` all of them; `settings.run` is its
    folder."""

    name: str
    swept: dict[str, Any]
    settings: TrainSettings


def load_sweep(path: str | Path) -> SweepFile:
    """Parse a sweep's file. Raises InvalidInputError that names unknown keys and lists the known ones."""
    tables = read_toml(path, "sweep")
    _require_known_keys(tables, SweepFile, str(path))
    for name, model in (("random", RandomSearch), ("study", StudySearch)):
        if isinstance(tables.get(name), dict):
            _require_known_keys(tables[name], model, f"[{name}] of {path}")
            tables[name]["space"] = _flatten(tables[name].get("space", {}))
            for setting, distribution in tables[name]["space"].items():
                _require_kind(distribution, f"[{name}] space {setting} of {path}")
    tables["grid"] = _flatten(tables.get("grid", {}))
    try:
        sweep = SweepFile(**tables)
    except ValidationError as error:
        raise InvalidInputError(f"{path}: {explain(error)}") from error
    _require_names(sweep, str(path))
    return sweep


def points_of(sweep: SweepFile, folder: Path) -> list[Point]:
    """The points of a grid and of random trials, each once. The points of a study are not known before it runs."""
    trials: list[dict[str, Any]] = [{}]
    if sweep.random is not None:
        generator = random.Random(sweep.random.seed)
        space = sweep.random.space
        trials = [_draw_trial(space, generator) for _ in range(sweep.random.trials)]
    points = {}
    for trial, cell in itertools.product(trials, _cells(sweep.grid)):
        point = make_point(sweep, {**trial, **cell}, folder)
        points[point.name] = point
    return list(points.values())


def _draw_trial(space: dict[str, Distribution], generator: random.Random) -> dict[str, Any]:
    return {name: distribution.draw(generator) for name, distribution in space.items()}


def corners(sweep: SweepFile, folder: Path) -> Iterator[Point]:
    """Points that stand for those of a study: every choice and every bound once, the other settings at their first."""
    assert sweep.study is not None
    space = sweep.study.space
    first_values = {name: distribution.ends()[0] for name, distribution in space.items()}
    for name, distribution in space.items():
        for value in distribution.ends():
            yield make_point(sweep, {**first_values, name: value}, folder)


def make_point(sweep: SweepFile, swept: dict[str, Any], folder: Path) -> Point:
    """The point of the base and some swept values. Raises InvalidInputError that names the point and its fault."""
    run_settings = dict(sweep.base)
    swept = {f"set.{name}" if name in WEIGHTS else name: swept[name] for name in swept}  # trials of an older study
    for name, value in swept.items():
        setting, dot, key = name.partition(".")
        if dot:
            run_settings[setting] = {**run_settings.get(setting, {}), key: value}
        else:
            run_settings[name] = value
    label = ", ".join(f"{name} {value!r}" for name, value in swept.items())
    try:
        settings = TrainSettings(run=".", **run_settings)
    except ValidationError as error:
        raise InvalidInputError(f"the point with {label or 'no swept settings'}: {explain(error)}") from error
    name = point_name(settings, swept, folder)
    return Point(name, swept, settings.model_copy(update={"run": str(folder / name)}))


def _cells(grid: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _require_known_keys(table: dict[str, Any], model: type[BaseModel], place: str) -> None:
    if unknown_names := sorted(table.keys() - model.model_fields.keys()):
        known_names = ", ".join(sorted(model.model_fields))
        raise InvalidInputError(f"{place}: unknown keys {', '.join(unknown_names)}; the known ones are {known_names}")


def _require_kind(distribution: Any, place: str) -> None:
    if not isinstance(distribution, dict) or len(distribution) != 1 or not distribution.keys() <= KINDS:
        kinds = ", ".join(distribution) if isinstance(distribution, dict) else repr(distribution)
        raise InvalidInputError(
            f"{place} is {kinds or 'empty'}; give one of {', '.join(sorted(KINDS))}: {{int = [1, 9]}}"
        )


def _flatten(table: Any) -> Any:
    """The table with dotted names: TOML reads `set.beta = ...` as a table of its own."""
    if not isinstance(table, dict):
        return table
    flat_table: dict[str, Any] = {}
    for name, value in table.items():
        if name in ARGUMENTS and isinstance(value, dict) and not value.keys() & KINDS:
            flat_table |= {f"{name}.{key}": argument for key, argument in value.items()}
        else:
            flat_table[name] = value
    return flat_table


def _require_names(sweep: SweepFile, path: str) -> None:
    """Raises InvalidInputError for settings that do not exist, and for settings that are swept twice."""
    for name in WEIGHTS:
        if name in sweep.base:
            raise moved_weight(f"[base] of {path}: {name}", f"set.{name} = {sweep.base[name]}")
        if name in sweep.swept:
            raise moved_weight(f"{path} sweeps {name}, which", f"set.{name} in its place")
    if unknown_names := sorted(sweep.base.keys() - TrainSettings.model_fields.keys()):
        known_names = ", ".join(sorted(TrainSettings.model_fields.keys() - {"run"}))
        raise InvalidInputError(
            f"[base] of {path}: unknown settings {', '.join(unknown_names)}; the known ones are {known_names}"
        )
    if "run" in sweep.base:
        raise InvalidInputError(f"[base] of {path} names run; each point has a folder of its own under `folder`")
    if sweep.study is not None and (sweep.grid or sweep.random):
        raise InvalidInputError(f"{path} has [study] and another search; give [study] alone, or [grid] and [random]")
    if not sweep.swept:
        raise InvalidInputError(f"{path} sweeps nothing; give [grid], [random] or [study]")
    for name in sweep.swept:
        setting, dot, key = name.partition(".")
        if (setting not in ARGUMENTS or not key) if dot else name not in SWEEPABLE:
            known_names = ", ".join([*SWEEPABLE, *(f"{argument}.KEY" for argument in ARGUMENTS)])
            raise InvalidInputError(f"{path} sweeps {name}, which no point has; it can sweep {known_names}")
    if duplicates := [name for name in sweep.grid if len(_texts(sweep.grid[name])) < len(sweep.grid[name])]:
        raise InvalidInputError(f"[grid] of {path} lists a value of {', '.join(duplicates)} twice; give it once")
    if empty_names := [name for name, values in sweep.grid.items() if not values]:
        raise InvalidInputError(
            f"[grid] of {path}: {', '.join(empty_names)} lists nothing; give values, or leave it out"
        )
    search = sweep.random or sweep.study
    if search and (duplicates := sorted(sweep.grid.keys() & search.space.keys())):
        raise InvalidInputError(f"{path} gives {', '.join(duplicates)} in the grid and in the space; give it once")


def _texts(values: tuple[Any, ...]) -> set[str]:
    return {json.dumps(value, sort_keys=True, default=str) for value in values}


def _short(value: float) -> float:
    """The value in six digits, so that a name shows all of it."""
    return float(f"{value:.6g}")
