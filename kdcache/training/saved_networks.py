"""A run as a network: `run:FOLDER[@best|last|epoch-N]` stands for its name, arguments, weights and normalisation."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from kdcache.base.canonical import parse_json
from kdcache.errors import FormatError, InvalidInputError
from kdcache.networks.transformers_folder import is_transformers
from kdcache.store.lineage import read_network
from kdcache.training.run_folder import SETTINGS

PREFIX = "run:"
S = TypeVar("S", bound=BaseModel)


def kept_weights(epoch: int) -> str:
    """The name of the weights file after so many epochs, beside `best` and `last`."""
    return f"epoch-{epoch:04d}"


def spelled_out(settings: S, name: str = "teacher") -> S:
    """Settings of which `name` names a run, with the run's network in it, `teacher_set` and `weights`, and its
    normalisation where they have `mean` and `std` and give none; others as they are.

    Without a mark the best weights are taken: of a run that was not validated the last. Raises InvalidInputError for a
    folder without such a run or weights, and for arguments or weights beside the run's own.
    """
    values: dict[str, Any] = dict(settings)
    spec = values[name]
    if not spec.startswith(PREFIX):
        return settings
    if extra := [key for key in ("teacher_set", "weights") if values[key]]:
        flags = ", ".join(f"--{key.replace('_', '-')} {values[key]}" for key in extra)
        raise InvalidInputError(f"teacher {spec} has arguments and weights of its own; leave out {flags}")
    folder, mark = split_run(spec)
    record = _settings_of(folder, spec)
    weights = _weights(folder, mark or "best", spec)
    student, arguments = record["student"], record.get("student_set") or {}
    _require_file(student, spec)
    if is_transformers(student):
        arguments = {**arguments, "pretrained": False}  # all weights are the run's
    if (network := read_network(weights)) is not None:
        student, arguments = network.name, {"student": student, "student_set": arguments, **network.arguments}
    given = {name: student, "teacher_set": arguments, "weights": str(weights)}
    for key in ("mean", "std"):
        if key in values and not values[key] and record.get(key):
            given[key] = tuple(record[key])
    return settings.model_copy(update=given)


def split_run(spec: str) -> tuple[Path, str]:
    """The run's folder and the mark behind `@`, empty where there is none."""
    text = spec.removeprefix(PREFIX)
    path, at, mark = text.rpartition("@")
    return (Path(text), "") if not at or Path(text).is_dir() else (Path(path), mark)


def _settings_of(folder: Path, spec: str) -> dict[str, Any]:
    path = folder / SETTINGS
    if not path.is_file():
        raise InvalidInputError(f"teacher {spec}: {folder} holds no run; name the folder that kdcache train wrote")
    try:
        record = parse_json(path.read_bytes(), str(path))
    except FormatError as error:
        raise InvalidInputError(f"teacher {spec}: {path} is damaged ({error}); name the network itself") from error
    if not isinstance(record, dict) or not isinstance(record.get("student"), str):
        raise InvalidInputError(f"teacher {spec}: {path} names no student; name the network itself")
    return record


def _weights(folder: Path, mark: str, spec: str) -> Path:
    """The weights file of a mark. Raises InvalidInputError, listing the marks there are."""
    number = mark.removeprefix("epoch-")
    name = kept_weights(int(number)) if mark.startswith("epoch-") and number.isdecimal() else mark
    path = folder / f"weights/{name}.safetensors"
    if path.is_file() and (name != mark or mark in ("best", "last")):
        return path
    names = sorted(file.stem for file in (folder / "weights").glob("*.safetensors"))
    if not names:
        raise InvalidInputError(f"teacher {spec}: {folder} has no weights yet; let it train for an epoch")
    marks = [f"epoch-{int(name[6:])}" if name.startswith("epoch-") else name for name in names]
    advice = "kdcache train --keep-epochs 5,10 keeps those of more epochs"
    raise InvalidInputError(f"teacher {spec}: there are no weights {mark!r}; there are {', '.join(marks)} ({advice})")


def _require_file(student: str, spec: str) -> None:
    """Raises InvalidInputError where the student's file is not where the run's settings have it."""
    location = student.rpartition(":")[0]
    if location.endswith(".py") and not Path(location).expanduser().is_file():
        raise InvalidInputError(
            f"teacher {spec}: its student is {student}, and {location} is not in {Path.cwd()}: go to the folder in "
            "which the run was begun, or name network, arguments and weights themselves"
        )
