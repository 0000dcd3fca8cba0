"""Weights files of a network, and the digest of its weights."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdcache.errors import InvalidInputError


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a safetensors file or a state dict (weights only, never pickled code). Raises InvalidInputError."""
    state = read_state(Path(path))
    expected = network.state_dict()
    differences = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": sorted(
            name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape
        ),
    }
    if any(differences.values()):
        parts = [f"{len(names)} {kind} (first: {names[0]})" for kind, names in differences.items() if names]
        raise InvalidInputError(f"weights {path} do not fit the network: {', '.join(parts)}; check --teacher-set")
    network.load_state_dict(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors or a torch file, also where they lie under "state_dict" or "model" in it.

    Raises InvalidInputError for a file that is not there, cannot be read or holds anything else.
    """
    if not path.is_file():
        raise InvalidInputError(f"weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InvalidInputError(f"weights {path} cannot be read: {error}") from error
    except Exception as error:  # torch's pickle errors share no base that is public
        if type(error).__name__ != "UnpicklingError":
            raise
        advice = "it holds more than tensors; save a plain state dict or safetensors"
        raise InvalidInputError(f"weights {path} are refused: {advice}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InvalidInputError(f"weights {path} hold no plain state dict of tensors")
    return content


def weights_digest(network: nn.Module) -> str:
    """A network's weights digest: sha256 over names, dtypes, shapes and values of parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()
