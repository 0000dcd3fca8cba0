"""Run folders on disk: settings, metrics as JSON lines, and checkpoints that are whole or absent."""

import io
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kdcache.base.canonical import parse_json
from kdcache.base.folder_lock import LOCK, held
from kdcache.base.records import flatten
from kdcache.base.whole_files import write_whole
from kdcache.errors import InvalidInputError, MismatchError
from kdcache.training.run_record import weights_apart

SETTINGS = "settings.json"
STATE = "checkpoints/state.pt"


def held_run(folder: Path) -> AbstractContextManager[None]:
    """A run's folder, in which this process alone trains while this is open. Raises InvalidInputError for a folder that
    another process holds, or that holds something other than a run."""
    _require_run(folder)
    return held(folder)


def _require_run(folder: Path) -> None:
    if (folder / SETTINGS).is_file() or not folder.is_dir():
        return
    if any(path.name != LOCK and not path.name.startswith(".tmp-") for path in folder.iterdir()):
        raise InvalidInputError(f"{folder} is not empty and holds no run; choose another folder for the run")


def claim_run(folder: Path, settings: dict[str, Any]) -> bool:
    """Write settings.json, or find it with the same settings. Returns True where the run began earlier.

    A folder whose run has no checkpoint yet may be claimed anew. Raises MismatchError naming every setting that
    differs, and InvalidInputError for a folder that holds something else.
    """
    _require_run(folder)
    path = folder / SETTINGS
    if not path.is_file():
        write_whole(path, json.dumps(settings, indent=1, sort_keys=True).encode() + b"\n")
        return False
    expected = flatten(weights_apart(parse_json(path.read_bytes(), str(path))))
    current = flatten(json.loads(json.dumps(settings)))
    differences = [
        (name, repr(expected.get(name)), repr(current.get(name)))
        for name in sorted(expected.keys() | current.keys())
        if expected.get(name) != current.get(name)
    ]
    if differences and (folder / STATE).exists():
        advice = "choose another folder, or the settings, data and views (STORE@ID, --views) that it began with"
        raise MismatchError(f"{folder} holds a run with other settings:", differences, advice, ("the run", "this run"))
    if differences:
        write_whole(path, json.dumps(settings, indent=1, sort_keys=True).encode() + b"\n")
    return not differences


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the one checkpoint from which a run goes on; an older one is replaced."""
    path = folder / STATE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def epochs_done(folder: Path) -> int:
    """The number of whole epochs in a run's checkpoint, 0 where there is none. Its tensors are mapped and not read."""
    state = load_state(folder, mapped=True)
    return 0 if state is None else int(state["epoch"])


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
    except (RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"{path} cannot be read ({reason}); delete it to begin the run anew") from error
    return state


def save_weights(path: Path, network: nn.Module, *, metadata: dict[str, str] | None = None) -> None:
    """Write weights as safetensors, ready for `--weights`; `metadata` as from `lineage.weights_metadata`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    temporary = path.with_name(f".tmp-{path.name}")
    save_file(tensors, temporary, metadata)
    os.replace(temporary, path)


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Append a line to metrics.jsonl."""
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def keep_metrics(folder: Path, epochs: int) -> None:
    """Keep the lines of the first `epochs`: those after a run's checkpoint are of epochs that will run again."""
    lines = [line for line in read_metrics(folder) if line["epoch"] < epochs]
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
