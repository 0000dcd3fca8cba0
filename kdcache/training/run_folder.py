"""Run folders on disk: settings, metrics as JSON lines, and checkpoints that are whole or absent."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from kdcache.base.canonical import parse_json
from kdcache.base.folder_lock import HOLDER, LOCK, Hold, held
from kdcache.base.records import flatten
from kdcache.base.whole_files import TEMPORARY, cannot_write, replacing, write_whole, writing
from kdcache.errors import FormatError, InvalidInputError, MismatchError
from kdcache.networks.weights import saved_tensors
from kdcache.training.run_record import weights_apart

SETTINGS = "settings.json"
STATE = "checkpoints/state.pt"
UNJUDGED = "unjudged"  # key in a checkpoint: the metrics of an epoch that is trained and not validated yet
WhyNot = Callable[[int], str]


def held_run(folder: Path) -> AbstractContextManager[Hold]:
    """A run's folder, in which this process alone trains while this is open. Raises InvalidInputError for a folder that
    another process holds, or that holds something other than a run."""
    _require_run(folder)
    return held(folder)


def _require_run(folder: Path) -> None:
    if (folder / SETTINGS).is_file() or not folder.is_dir():
        return
    if any(path.name not in (LOCK, HOLDER) and not path.name.startswith(TEMPORARY) for path in folder.iterdir()):
        raise InvalidInputError(f"{folder} is not empty and holds no run; choose another folder for the run")


def claim_run(folder: Path, settings: dict[str, Any], why_not_longer: WhyNot | None = None) -> bool:
    """Write settings.json, or find it with the same settings. Returns True where the run began earlier.

    A folder whose run has no checkpoint yet may be claimed anew. Raises MismatchError as `require_same_run` does, and
    InvalidInputError for a folder that holds something else.
    """
    _require_run(folder)
    path = folder / SETTINGS
    data = json.dumps(settings, indent=1, sort_keys=True).encode() + b"\n"
    if not path.is_file():
        write_whole(path, data)
        return False
    is_equal = require_same_run(folder, settings, why_not_longer)
    if not is_equal:
        write_whole(path, data)
    return is_equal or (folder / STATE).exists()


def require_same_run(folder: Path, settings: dict[str, Any], why_not_longer: WhyNot | None = None) -> bool:
    """True where settings.json has these settings. False where it has others, and they may be replaced: the run has no
    checkpoint yet, or it has fewer epochs and nothing in `why_not_longer`, called with their number, against more.

    Raises MismatchError naming every setting that differs.
    """
    path = folder / SETTINGS
    try:
        expected = flatten(weights_apart(parse_json(path.read_bytes(), str(path))))
    except FormatError as error:
        raise InvalidInputError(
            f"{path} is damaged, so nobody knows the settings of its run ({error.__cause__ or error}); put it back as "
            "it was, or choose another folder"
        ) from error
    current = flatten(json.loads(json.dumps(settings)))
    names = [name for name in sorted(expected.keys() | current.keys()) if expected.get(name) != current.get(name)]
    if not names or not (folder / STATE).exists():
        return not names
    advice = "choose another folder, or the settings, data and views (STORE@ID, --views) that it began with"
    if names == ["epochs"] and why_not_longer is not None:
        reason = _reason(expected["epochs"], current["epochs"], why_not_longer)
        if not reason:
            return False
        weights = folder / "weights/last.safetensors"
        advice = f"{reason}; in another folder, --weights {weights} starts a new run from its weights"
    differences = [(name, repr(expected.get(name)), repr(current.get(name))) for name in names]
    raise MismatchError(f"{folder} holds a run with other settings:", differences, advice, ("the run", "this run"))


def _reason(epochs: int, new_epochs: int, why_not_longer: WhyNot) -> str:
    if new_epochs < epochs:
        return "a run can be made longer, not shorter"
    reason = why_not_longer(epochs)
    return reason and f"the run cannot be made longer: {reason}"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the one checkpoint from which a run goes on; an older one is replaced. Raises CannotWriteError."""
    path = folder / STATE
    with replacing(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(state, file)
        except RuntimeError as error:  # torch's own for a write that fails
            raise cannot_write(path, _system_reason(error)) from error


def _system_reason(error: BaseException) -> str:
    """The system's reason behind an error, where one is known; else the error's first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0]


def epochs_done(folder: Path) -> int:
    """The number of epochs that are trained and validated in a run's checkpoint, 0 where there is none. Its tensors are
    mapped and not read."""
    state = load_state(folder, mapped=True)
    return 0 if state is None else int(state["epoch"]) - (UNJUDGED in state)


def load_state(folder: Path, *, mapped: bool = False) -> dict[str, Any] | None:
    """The checkpoint of a run, on the CPU; None where there is none. It holds tensors and plain values only."""
    path = folder / STATE
    return _parsed(path, path, mapped=mapped) if path.is_file() else None


def read_state(folder: Path) -> bytes:
    """The bytes of a run's checkpoint, for `parse_state` on another process; empty where there is none."""
    path = folder / STATE
    return path.read_bytes() if path.is_file() else b""


def parse_state(data: bytes, folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a folder, as `load_state` gives it, from the bytes of `read_state`; None from empty bytes."""
    return _parsed(io.BytesIO(data), folder / STATE) if data else None


def _parsed(source: Path | io.BytesIO, path: Path, *, mapped: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises errors of many kinds, some with advice to run a file's code
        raise no_checkpoint(path, "it is no checkpoint, or damaged") from error
    if not isinstance(state, dict) or "epoch" not in state:
        raise no_checkpoint(path, "it is no checkpoint of a run")
    return state


def no_checkpoint(path: Path, reason: str) -> InvalidInputError:
    """The error for a checkpoint that cannot be used."""
    return InvalidInputError(f"{path} cannot be read: {reason}; delete it to begin the run anew")


def save_weights(path: Path, network: nn.Module, *, metadata: dict[str, str] | None = None) -> None:
    """Weights are written as safetensors, ready for `--weights`; `metadata` as from `lineage.weights_metadata`.

    Tied weights are written once, as by safetensors' save_model; names are those of the network without torch.compile
    and DataParallel. Raises CannotWriteError.

    Examples:
        >>> from pathlib import Path
        >>> save_weights(Path("student.safetensors"), torch.nn.Linear(64, 10))
    """
    tensors = saved_tensors(network)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            reason = str(error).rpartition("I/O error: ")[2].partition(" (os error")[0]
            raise cannot_write(path, reason) from error


def is_whole(path: Path) -> bool:
    """True for a safetensors file that is there in full."""
    try:
        with safe_open(path, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def file_digest(path: Path) -> str:
    """The sha256 of a file, as hex digits; empty where there is none."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Append a line to metrics.jsonl. Raises CannotWriteError."""
    path = folder / "metrics.jsonl"
    with writing(path), open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [line for line in map(_metrics_line, path.read_bytes().splitlines()) if line]


def _metrics_line(data: bytes) -> dict[str, Any] | None:
    """The metrics of a line; None for what a power failure left of one."""
    try:
        line = json.loads(data)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("epoch"), int) else None


def keep_metrics(folder: Path, epochs: int) -> None:
    """Keep the lines of the first `epochs`: those after a run's checkpoint are of epochs that will run again."""
    lines = [line for line in read_metrics(folder) if line["epoch"] < epochs]
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
