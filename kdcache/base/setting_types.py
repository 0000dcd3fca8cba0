"""The types of settings: what a flag, a TOML value and a call may say alike, and the range of each number."""

import os
import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from kdcache.base.limits import CLASSES_MAX, SUBCLASSES_MAX
from kdcache.base.pacing import Pacing
from kdcache.base.ranges import EPOCHS_MAX, LARGE, PROCESSES_MAX, SEED_MAX, Range
from kdcache.base.specs import parse_arguments
from kdcache.base.tap_names import require_kept
from kdcache.errors import InvalidInputError


def _arguments(value: Any) -> Any:
    return parse_arguments(value, "setting") if isinstance(value, list | tuple) else value


def listed(value: Any) -> Any:
    """One value or several, which text joins by commas, as a tuple."""
    items = [value] if isinstance(value, str | int | float) and not isinstance(value, bool) else value
    if isinstance(items, list | tuple) and any(isinstance(item, str) for item in items):
        return tuple(part.strip() for item in items for part in str(item).split(",") if part.strip())
    return items


def _paths(value: Any, info: ValidationInfo) -> Any:
    """One path or several. A comma is a part of a path. Raises ValueError for paths that commas join."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        return items
    for path in items:
        parts = [part.strip() for part in path.split(",") if part.strip()]
        if len(parts) > 1 and not _exists(path) and all("://" in part or _exists(part) for part in parts):
            raise ValueError(f"{path} does not exist, and commas split no paths; {_advice(info.field_name, parts)}")
    return tuple(path for path in items if path.strip())


def _exists(path: str) -> bool:
    """True for a path that is there, as it is or before a mark: `@` and a seal, or the weights of a run."""
    return any(map(os.path.exists, (path, path.rpartition("@")[0])))


def _advice(name: str | None, parts: list[str]) -> str:
    """The way in which several paths are given: by a flag that repeats; `runs` have none."""
    paths = [shlex.quote(part) for part in parts]
    if name in (None, "runs"):
        return f"give each by itself: {' '.join(paths)}"
    flag = "--" + str(name).replace("_", "-")
    return f"the flag repeats: write {' '.join(f'{flag} {path}' for path in paths)}, and in TOML a list"


def _pace(value: Any) -> Any:
    """A pace as it is written, a whole number too. Raises ValueError for one that is none."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and text:
        try:
            Pacing.parse(text)
        except InvalidInputError as error:
            raise ValueError(str(error)) from error
    return text


def _optimizer(name: str) -> str:
    """An optimiser's name. Raises ValueError for one that is none."""
    if name not in ("sgd", "adamw") and not all(name.rpartition(":")):
        raise ValueError("choose sgd, adamw, or a callable of yours as package.module:callable or file.py:callable")
    return name


Arguments = Annotated[dict[str, Any], BeforeValidator(_arguments)]
Means = Annotated[tuple[Annotated[float, Range(-LARGE, LARGE)], ...], BeforeValidator(listed)]
Deviations = Annotated[tuple[Annotated[float, Range(1 / LARGE, LARGE)], ...], BeforeValidator(listed)]
Weights = Annotated[tuple[Annotated[float, Range(0.0, LARGE)], ...], BeforeValidator(listed)]
Classes = Annotated[tuple[Annotated[int, Range(0, CLASSES_MAX - 1)], ...], BeforeValidator(listed)]
Pace = Annotated[str, BeforeValidator(_pace)]
Epochs = Annotated[tuple[Annotated[int, Range(0, EPOCHS_MAX)], ...], BeforeValidator(listed)]
Seed = Annotated[int, Range(0, SEED_MAX)]
Count = Annotated[int, Range(1, CLASSES_MAX)]
Processes = Annotated[int, Range(0, PROCESSES_MAX)]
Positive = Annotated[float, Range(0.0, LARGE, above=True)]
OptimizerName = Annotated[str, AfterValidator(_optimizer)]
Paths = Annotated[tuple[str, ...], BeforeValidator(_paths)]
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Keep = Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(require_kept)]
Precision = Literal["float32", "bfloat16", "float16"]
Temperature = Annotated[float | Literal["calibrated"], Range(0.0, LARGE, above=True, words=("calibrated",))]
SomeEpochs = Annotated[int | None, Range(1, EPOCHS_MAX)]
Subclasses = Annotated[int, Range(1, SUBCLASSES_MAX)]
SomeSubclasses = Annotated[int | None, Range(1, SUBCLASSES_MAX)]
SomeCount = Annotated[int | None, Range(1, CLASSES_MAX)]
SomePositive = Annotated[float | None, Range(0.0, LARGE, above=True)]
SomeShare = Annotated[float | None, Range(0.0, 1.0)]
BelowOne = Annotated[float, Range(0.0, 1.0, below=True)]
