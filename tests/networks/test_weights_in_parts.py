"""Weights in several files, as their index names them."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from kdcache.errors import InvalidInputError
from kdcache.networks.weights import load_weights, weights_digest
from tests.networks.test_weights_files import State, network


def sharded(folder: Path, state: State, *, places: dict[str, str] | None = None) -> Path:
    """The index of a state dict in two files, as Hugging Face's libraries write it; `places` takes the place of its
    own."""
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name].contiguous() for name in part}, folder / file)
    by_name = {name: file for file, part in parts.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": by_name if places is None else places}))
    return index


def test_weights_in_several_files_are_loaded_by_their_index(tmp_path: Path) -> None:
    wanted = network(seed=3)
    index = sharded(tmp_path, {f"module.{name}": value for name, value in wanted.state_dict().items()})
    loaded = network(seed=4)
    notes = load_weights(loaded, index)
    assert weights_digest(loaded) == weights_digest(wanted)
    assert "module." in notes[0]
    with pytest.raises(InvalidInputError, match=r"are a folder; give a file in it: model.*index\.json"):
        load_weights(loaded, tmp_path)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"a": "../model-00001-of-00002.safetensors"}, "which is no file beside it"),
        ({"a": "/etc/passwd"}, "which is no file beside it"),
        ({"a": "model.bin"}, "which is no file beside it"),
        ({"a": "model-00001-of-00002.safetensors"}, "have no a, which"),
        ({"a": "model-00009-of-00002.safetensors"}, "there is no such file"),
        (["a"], "has no weight_map"),
        ({"a": 3}, "has no weight_map"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, places: Any, said: str) -> None:
    index = sharded(tmp_path, network().state_dict(), places=places)
    with pytest.raises(InvalidInputError, match=said):
        load_weights(network(), index)
