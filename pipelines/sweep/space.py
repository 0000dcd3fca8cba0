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

import hashlib
import itertools
import json
import math
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdcache.base.records import explain
from kdcache.errors import InvalidInputError
from kdcache.pipelines.settings import TrainSettings

NAMELESS = {"run", "workers", "device", "checkpoint_steps", "accept_drift"}  # change no result
PLACES = {"data", "store", "val_store", "calibration_store"}  # a moved store is the same store
SWEEPABLE = tuple(sorted(TrainSettings.model_fields.keys() - NAMELESS))
ARGUMENTS = tuple(name for name in SWEEPABLE if isinstance(TrainSettings.model_fields[name].default, dict))
KINDS = {"choice", "int", "uniform", "loguniform"}
LONGEST = 120  # characters of a name, the hash included


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Distribution(_Part):
    """One of: choice among values; int, uniform or loguniform between two bounds, both included."""

    choice: tuple[Any, ...] | None = Field(default=None, min_length=1)
    integer: tuple[int, int] | None = Field(default=None, alias="int")
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None

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
    """Trials drawn independently; the same seed draws the same."""

    trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    space: dict[str, Distribution] = Field(min_length=1)


class StudySearch(_Part):
    """Trials that Optuna proposes from the results so far."""

    trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    sampler: Literal["tpe", "random"] = "tpe"
    direction: Literal["maximize", "minimize"] = "maximize"
    metric: str = "accuracy"
    space: dict[str, Distribution] = Field(min_length=1)


class SweepFile(_Part):
    """What a sweep's file may hold."""

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
    """One run of a sweep: `swept` says what is its own; `settings.run` is its folder."""

    name: str
    swept: dict[str, Any]
    settings: TrainSettings


def load_sweep(path: str | Path) -> SweepFile:
    """Parse a sweep's file. Raises InvalidInputError that names unknown keys and lists the known ones."""
    try:
        given = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"sweep {path} cannot be read: {error}") from error
    _known(given, SweepFile, str(path))
    for name, model in (("random", RandomSearch), ("study", StudySearch)):
        if isinstance(given.get(name), dict):
            _known(given[name], model, f"[{name}] of {path}")
            given[name]["space"] = _flat(given[name].get("space", {}))
            for setting, drawn in given[name]["space"].items():
                _known_kinds(drawn, f"[{name}] space {setting} of {path}")
    given["grid"] = _flat(given.get("grid", {}))
    try:
        sweep = SweepFile(**given)
    except ValidationError as error:
        raise InvalidInputError(f"{path}: {explain(error)}") from error
    _require_names(sweep, str(path))
    return sweep


def points_of(sweep: SweepFile, folder: Path) -> list[Point]:
    """Every point that is known before anything ran, each once; a study's are known one by one."""
    trials: list[dict[str, Any]] = [{}]
    if sweep.random is not None:
        generator = random.Random(sweep.random.seed)
        space = sweep.random.space
        trials = [{name: each.draw(generator) for name, each in space.items()} for _ in range(sweep.random.trials)]
    found = {}
    for trial, cell in itertools.product(trials, _cells(sweep.grid)):
        point = make_point(sweep, {**trial, **cell}, folder)
        found[point.name] = point
    return list(found.values())


def corners(sweep: SweepFile, folder: Path) -> Iterator[Point]:
    """Points that stand for a study's: each choice and each bound once, the other settings at their first."""
    assert sweep.study is not None
    space = sweep.study.space
    first = {name: each.ends()[0] for name, each in space.items()}
    for name, each in space.items():
        for value in each.ends():
            yield make_point(sweep, {**first, name: value}, folder)


def make_point(sweep: SweepFile, swept: dict[str, Any], folder: Path) -> Point:
    """The base with some settings of its own. Raises InvalidInputError that says which point has which fault."""
    given = dict(sweep.base)
    for name, value in swept.items():
        setting, dot, key = name.partition(".")
        if dot:
            given[setting] = {**given.get(setting, {}), key: value}
        else:
            given[name] = value
    said = ", ".join(f"{name} {value!r}" for name, value in swept.items())
    try:
        settings = TrainSettings(run=".", **given)
    except ValidationError as error:
        raise InvalidInputError(f"the point with {said or 'no swept settings'}: {explain(error)}") from error
    name = _name(settings, swept)
    return Point(name, swept, settings.model_copy(update={"run": str(folder / name)}))


def _cells(grid: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _known(given: dict[str, Any], model: type[BaseModel], where: str) -> None:
    if unknown := sorted(given.keys() - model.model_fields.keys()):
        known = ", ".join(sorted(model.model_fields))
        raise InvalidInputError(f"{where}: unknown keys {', '.join(unknown)}; the known ones are {known}")


def _known_kinds(given: Any, where: str) -> None:
    if not isinstance(given, dict) or len(given) != 1 or not given.keys() <= KINDS:
        said = ", ".join(given) if isinstance(given, dict) else repr(given)
        raise InvalidInputError(
            f"{where} is {said or 'empty'}; give one of {', '.join(sorted(KINDS))}: {{int = [1, 9]}}"
        )


def _flat(given: Any) -> Any:
    """`set.beta = ...`, which TOML reads as a table, under its dotted name."""
    if not isinstance(given, dict):
        return given
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in ARGUMENTS and isinstance(value, dict) and not value.keys() & KINDS:
            found |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            found[name] = value
    return found


def _require_names(sweep: SweepFile, path: str) -> None:
    """Raises InvalidInputError for settings that there are not, and for those that are swept twice over."""
    if unknown := sorted(sweep.base.keys() - TrainSettings.model_fields.keys()):
        known = ", ".join(sorted(TrainSettings.model_fields.keys() - {"run"}))
        raise InvalidInputError(f"[base] of {path}: unknown settings {', '.join(unknown)}; the known ones are {known}")
    if "run" in sweep.base:
        raise InvalidInputError(f"[base] of {path} names run; each point has a folder of its own under `folder`")
    if sweep.study is not None and (sweep.grid or sweep.random):
        raise InvalidInputError(f"{path} has [study] and another search; give [study] alone, or [grid] and [random]")
    if not sweep.swept:
        raise InvalidInputError(f"{path} sweeps nothing; give [grid], [random] or [study]")
    for name in sweep.swept:
        setting, dot, key = name.partition(".")
        if (setting not in ARGUMENTS or not key) if dot else name not in SWEEPABLE:
            known = ", ".join([*SWEEPABLE, *(f"{each}.KEY" for each in ARGUMENTS)])
            raise InvalidInputError(f"{path} sweeps {name}, which no point has; it can sweep {known}")
    if twice := [name for name in sweep.grid if len(_texts(sweep.grid[name])) < len(sweep.grid[name])]:
        raise InvalidInputError(f"[grid] of {path} lists a value of {', '.join(twice)} twice; give it once")
    if empty := [name for name, values in sweep.grid.items() if not values]:
        raise InvalidInputError(f"[grid] of {path}: {', '.join(empty)} lists nothing; give values, or leave it out")
    search = sweep.random or sweep.study
    if search and (twice := sorted(sweep.grid.keys() & search.space.keys())):
        raise InvalidInputError(f"{path} gives {', '.join(twice)} in the grid and in the space; give it once")


def _texts(values: tuple[Any, ...]) -> set[str]:
    return {json.dumps(value, sort_keys=True, default=str) for value in values}


def _name(settings: TrainSettings, swept: dict[str, Any]) -> str:
    """`lr=0.1,seed=2-3f9a01bc`: swept values for people, and a digest of the settings and of what is swept."""
    record = settings.model_dump(mode="json", exclude=NAMELESS | PLACES | {"views"})
    record["train_views"] = list(settings.views or ())  # as sweeps that stand on disk were named
    text = json.dumps([record, swept], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    said = ",".join(f"{name.rpartition('.')[2]}={_value_name(value)}" for name, value in swept.items())
    return f"{said[: LONGEST - 9]}-{digest}"


def _value_name(value: Any) -> str:
    """A value as a part of a file name: of a path or a spec its last part."""
    if isinstance(value, list | tuple):
        return "+".join(map(_value_name, value))
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    last = re.split(r"[/:]", text.rstrip("/"))[-1].removesuffix(".kd") or text
    return re.sub(r"[^A-Za-z0-9._+-]", "_", last)


def _short(value: float) -> float:
    """Six digits: what a name shows is then all there is."""
    return float(f"{value:.6g}")
