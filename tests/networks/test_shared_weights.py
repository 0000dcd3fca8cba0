"""Weights that share memory and networks in wrappers: what is saved is plain, and what is loaded has one value."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_file, save_model
from torch import nn

from kdcache.errors import InvalidInputError
from kdcache.networks.weights import load_weights, saved_tensors, weights_digest
from kdcache.training.run_folder import save_weights
from tests.networks.test_weights_files import network


class Tied(nn.Module):
    """Two names for one layer."""

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = self.one if tied else nn.Linear(3, 3)
        self.head = nn.Linear(3, 4)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")], ids=["dp", "comp"])
def test_a_wrapped_student_is_saved_and_loaded_by_its_plain_names(tmp_path: Path, wrap: Any) -> None:
    save_weights(tmp_path / "plain.safetensors", network(seed=1))
    save_weights(tmp_path / "w.safetensors", wrap(network(seed=1)))
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
    target = wrap(network())
    assert load_weights(target, tmp_path / "w.safetensors") == ()
    plain = network()
    assert load_weights(plain, tmp_path / "w.safetensors") == ()
    assert weights_digest(plain) == weights_digest(network(seed=1))
    inner = nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager"), nn.Linear(2, 2))
    assert list(saved_tensors(inner)) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_tied_weights_are_saved_and_loaded_as_safetensors_does(tmp_path: Path) -> None:
    tied = Tied()
    save_weights(tmp_path / "ours.safetensors", tied)
    save_model(tied, str(tmp_path / "theirs.safetensors"))
    for name in ("ours", "theirs"):
        target, other = Tied(), Tied()
        assert load_weights(target, tmp_path / f"{name}.safetensors") == ()
        load_model(other, tmp_path / f"{name}.safetensors")
        assert target.two is target.one
        assert weights_digest(target) == weights_digest(tied) == weights_digest(other)
    torch.save(tied.state_dict(), tmp_path / "w.pt")  # torch keeps both names
    target = Tied()
    load_weights(target, tmp_path / "w.pt")
    assert weights_digest(target) == weights_digest(tied)
    with pytest.raises(InvalidInputError, match=r"missing"):
        load_weights(Tied(tied=False), tmp_path / "ours.safetensors")


def test_two_values_for_one_tensor_are_refused(tmp_path: Path) -> None:
    untied = Tied(tied=False)
    torch.save(untied.state_dict(), tmp_path / "w.pt")
    with pytest.raises(InvalidInputError, match=r"one\.(bias|weight) and two\.\1 are one tensor in the network"):
        load_weights(Tied(), tmp_path / "w.pt")


def test_a_turned_weight_is_no_second_value(tmp_path: Path) -> None:
    tied = Tied()
    tied.register_buffer("turned", tied.one.weight.detach().T)
    torch.save(tied.state_dict(), tmp_path / "w.pt")
    save_weights(tmp_path / "w.safetensors", tied)
    for name in ("w.pt", "w.safetensors"):
        target = Tied()
        target.register_buffer("turned", target.one.weight.detach().T)
        load_weights(target, tmp_path / name)
        assert weights_digest(target) == weights_digest(tied)


def test_slices_of_one_memory_are_saved_apart(tmp_path: Path) -> None:
    sliced = nn.Module()
    memory = torch.arange(10.0)
    for name, part in {"a": memory[:6], "b": memory[4:], "c": memory[:6]}.items():
        sliced.register_buffer(name, part)
    save_weights(tmp_path / "w.safetensors", sliced)
    tensors = saved_tensors(sliced)
    assert {name: value.tolist() for name, value in tensors.items()} == {
        "a": [0, 1, 2, 3, 4, 5], "b": [4, 5, 6, 7, 8, 9], "c": [0, 1, 2, 3, 4, 5],
    }  # fmt: skip


def test_a_network_that_shares_nothing_has_the_bytes_that_it_always_had(tmp_path: Path) -> None:
    made = network()
    save_file({name: value.contiguous() for name, value in made.state_dict().items()}, tmp_path / "a.safetensors")
    save_weights(tmp_path / "b.safetensors", made)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
