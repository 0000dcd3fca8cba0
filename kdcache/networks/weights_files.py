"""Weights files as the world has them: safetensors, and state dicts of torch at any depth of a dict. No code is run."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kdcache.base.canonical import parse_json
from kdcache.base.weights_path import begins_as_safetensors, is_safetensors, split_weights
from kdcache.errors import FormatError, InvalidInputError

State = dict[str, Tensor]
DEPTH = 4  # of dicts in dicts that are looked through
SHOWN = 12  # keys in a message
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
INDEX = ".safetensors.index.json"  # of files that hold a part of the tensors each, as Hugging Face's libraries write
INDEX_LIMIT = 2**26  # bytes
FOREIGN = {  # first bytes of files that are no weights of torch, and the way on
    b"version https://git-lfs": "is a pointer of Git LFS and not the file itself: fetch it with git lfs pull",
    b"\x93NUMPY": "is an array of numpy (.npy)",
    b"\x89HDF": "is an HDF5 file, as Keras writes them",
    b"GGUF": "is a GGUF file",
    b"\x1f\x8b": "is compressed with gzip: unpack it first",
}
PLAIN = "save its state dict from Python: safetensors.torch.save_file(network.state_dict(), FILE)"


def read_states(text: str | Path) -> dict[str, State]:
    """The state dicts in a weights file, by the key that `FILE#KEY` takes; "" is the key of the file as a whole.

    `text` is FILE or FILE#KEY; a key leads through dicts, and may end in the beginning of names: `FILE#model`. Raises
    InvalidInputError for a file that is not there, cannot be read or holds anything else, and for a key that it lacks.
    """
    path, key = split_weights(text)
    content = _content(path)
    if key:
        content = _part(content, key, path)
    states = dict(_states(content, key, 0))
    if not states:
        raise InvalidInputError(f"weights {path} hold no plain state dict of tensors: it holds {shown_keys(content)}")
    return states


def shown_keys(content: Any) -> str:
    """The keys of a dict with the kinds of its values, for a message; the kind of anything else."""
    if not isinstance(content, dict):
        return _kind(content)
    names = [f"{key} ({_kind(value)})" for key, value in list(content.items())[:SHOWN]]
    more = len(content) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "") or "nothing"


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    return f"a dict of {len(value)}" if isinstance(value, dict) else f"a {type(value).__name__}"


def _states(content: Any, key: str, depth: int) -> Iterator[tuple[str, State]]:
    """Each state dict in nested dicts by its key: the tensors that lie beside each other under names."""
    if not isinstance(content, dict) or depth > DEPTH or not all(isinstance(name, str) for name in content):
        return
    if state := {name: value for name, value in content.items() if isinstance(value, Tensor)}:
        yield key, state
    for name, value in content.items():
        yield from _states(value, f"{key}.{name}" if key else name, depth + 1)


def _part(content: Any, key: str, path: Path) -> Any:
    """The part of nested dicts that a key leads to: the longest way through dicts, then a beginning of names."""
    rest = key
    while isinstance(content, dict) and rest:
        name = next((name for name in _heads(rest) if isinstance(content.get(name), dict)), None)
        if name is None:
            break
        content, rest = content[name], rest[len(name) + 1 :]
    if not rest:
        return content
    names = content if isinstance(content, dict) else {}
    beginning = f"{rest}."
    part = {name[len(beginning) :]: names[name] for name in names if str(name).startswith(beginning)}
    if not part:
        raise InvalidInputError(f"weights {path} have no {key}; at that place they hold {shown_keys(content)}")
    return part


def _heads(key: str) -> Iterator[str]:
    """The key, then its beginnings at each dot, the longest first."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def _content(path: Path) -> Any:
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.name.endswith((INDEX, *SUFFIXES)))
        choice = f"give a file in it: {', '.join(names[:SHOWN])}" if names else "it holds no weights file"
        raise InvalidInputError(f"weights {path} are a folder; {choice}")
    if not path.is_file():
        raise InvalidInputError(f"weights {path}: there is no such file")
    if path.name.endswith(INDEX):
        return _joined_parts(path)
    try:
        _require_weights(path)
        if is_safetensors(path):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"weights {path} cannot be read: {reason}; fetch or write the file again") from error
    except InvalidInputError:
        raise
    except Exception as error:  # torch's pickle errors share no base that is public
        if type(error).__name__ != "UnpicklingError":
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise InvalidInputError(f"weights {path} cannot be read: {reason}; fetch the file again") from error
        raise _more_than_tensors(path) from error


def _joined_parts(path: Path) -> State:
    """The tensors of the safetensors files beside an index, by its `weight_map`. Raises InvalidInputError for an index
    that names anything but such files, and for a tensor that its file lacks."""
    try:
        places = dict(parse_json(path.read_bytes(), str(path), limit=INDEX_LIMIT)["weight_map"])
        names = sorted(set(places.values()))
        if wrong := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
            raise InvalidInputError(f"weights {path}: its weight_map names {wrong[0]!r}, which is no file beside it")
    except (FormatError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"weights {path} cannot be read: it has no weight_map; fetch it again") from error
    if absent := [name for name in names if not (path.parent / name).is_file()]:
        raise InvalidInputError(f"weights {path}: it lists {absent[0]}, and there is no such file beside it; fetch all")
    parts = {name: _content(path.parent / name) for name in names}
    if missing := sorted(name for name, part in places.items() if name not in parts[part]):
        place = path.parent / places[missing[0]]
        raise InvalidInputError(f"weights {place} have no {missing[0]}, which {path.name} lists; fetch both again")
    return {name: parts[part][name] for name, part in places.items()}


def _require_weights(path: Path) -> None:
    """Raises InvalidInputError for a file that is known to be of another kind."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise InvalidInputError(f"weights {path} cannot be read: the file is empty; fetch or write it again")
    if begins_as_safetensors(path):
        return
    if path.suffix == ".safetensors" and head.startswith((b"PK", b"\x80")):
        raise InvalidInputError(f"weights {path} cannot be read as safetensors: it is a file of torch; name it .pt")
    kind = next((text for mark, text in FOREIGN.items() if head.startswith(mark)), "")
    if head.lstrip().startswith(b"<"):
        kind = "is a web page and not the weights: fetch them again, from the link to the file itself"
    elif head.startswith(b"{") and path.suffix == ".json":
        kind = f"is JSON: an index of files, or settings; {_shards(path)}"
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith(".npy") for name in names):
            kind = "is an archive of numpy (.npz)"
        elif any(name.endswith("/constants.pkl") for name in names):
            kind = f"is TorchScript: torch.jit.load it and {PLAIN}"
    if kind:
        advice = "" if ":" in kind or ";" in kind else f"; {PLAIN}"
        raise InvalidInputError(f"weights {path} cannot be read: the file {kind}{advice}")


def _shards(path: Path) -> str:
    try:
        shards = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return PLAIN
    return f"it lists {', '.join(map(str, shards[:3]))}: join them by loading the network, and {PLAIN}"


def _more_than_tensors(path: Path) -> InvalidInputError:
    """The error for a pickle that would run code: the names that it would import, and how to get at its tensors."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  a legacy file, say: the names only help
        names = []
    holds = f"it holds more than tensors ({', '.join(sorted(names)[:5])})" if names else "it holds more than tensors"
    convert = (
        f"c = torch.load('{path}', weights_only=False); c = c.state_dict() if hasattr(c, 'state_dict') else c; "
        "torch.save({k: v for k, v in c.items() if isinstance(v, (dict, torch.Tensor))}, 'plain.pt')"
    )
    return InvalidInputError(
        f"weights {path} are refused: {holds}, and reading those would run code; save a plain state dict or "
        f"safetensors. If you trust the file, in Python: {convert}"
    )
