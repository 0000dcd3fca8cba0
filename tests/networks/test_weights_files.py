"""Weights files as the world has them: what fits is loaded with the right values and said, all else is refused."""

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from kdcache.base.weights_path import is_safetensors, split_weights
from kdcache.errors import InvalidInputError
from kdcache.networks.small import convnet
from kdcache.networks.weights import load_weights, weights_digest
from kdcache.store.lineage import KEY, read_lineage, weights_metadata
from kdcache.training.run_folder import save_weights

State = dict[str, Tensor]


def network(classes: int = 4, seed: int = 0) -> nn.Module:
    """A small network whose every value, counters too, comes from a seed; values are exact in f16."""
    made = convnet(width=2, depth=1, num_classes=classes)
    generator = torch.Generator().manual_seed(seed)
    for value in made.state_dict().values():
        value.copy_(torch.randint(-60, 60, value.shape, generator=generator).to(value.dtype) / 4)
    return made


SPACE = st.fixed_dictionaries(
    {
        "prefix": st.sampled_from(
            ["", "module.", "model.", "_orig_mod.", "net.", "backbone.encoder.", "module.model."]
        ),
        "place": st.sampled_from(
            [(), ("state_dict",), ("model",), ("net",), ("model_state_dict",), ("state_dict", "model"), ("a", "b")]
        ),
        "counters": st.booleans(),
        "extras": st.booleans(),
        "half": st.booleans(),
        "legacy": st.booleans(),
        "beside": st.sampled_from([{}, {"epoch": 3, "best": 0.5}, {"optimizer": {"state": {0: {"m": torch.ones(2)}}}}]),
    }
)


def written(path: Path, state: State, form: dict[str, Any]) -> Path:
    """A file that holds a state in a form of `SPACE`."""
    content: Any = {
        form["prefix"] + name: value.half() if form["half"] and value.is_floating_point() else value
        for name, value in state.items()
        if form["counters"] or not name.endswith("num_batches_tracked")
    }
    if form["extras"]:
        content |= {form["prefix"] + "total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    for key in reversed(form["place"]):
        content = {key: content}
    if form["place"]:
        content |= form["beside"]
    torch.save(content, path, _use_new_zipfile_serialization=not form["legacy"])
    return path


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=SPACE)
def test_every_form_of_a_checkpoint_gives_its_values(tmp_path: Path, form: dict[str, Any]) -> None:
    path = written(tmp_path / "w.pt", network(seed=1).state_dict(), form)
    target, wanted = network(seed=2), network(seed=1)
    notes = " ".join(load_weights(target, path))
    if not form["counters"]:
        for name, value in wanted.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.copy_(network(seed=2).state_dict()[name])
    assert weights_digest(target) == weights_digest(wanted)
    dropped = form["prefix"].replace("_orig_mod.", "")
    assert (f"the beginning {dropped} of all names" in notes) == bool(dropped)
    assert ("_orig_mod" in notes) == (form["prefix"] == "_orig_mod.")
    assert ("total_ops" in notes) == form["extras"]
    assert ("was taken" in notes) == (form["place"] not in ((), ("state_dict",), ("model",)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=SPACE, fault=st.sampled_from(["missing", "unknown", "classes"]))
def test_no_form_hides_a_fault(tmp_path: Path, form: dict[str, Any], fault: str) -> None:
    state = network(classes=5 if fault == "classes" else 4, seed=1).state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    if fault == "missing":
        del state[names[-1]]
    if fault == "unknown":
        state["stranger.weight"] = torch.zeros(2)
    path, target = written(tmp_path / "w.pt", state, form), network()
    before = weights_digest(target)
    with pytest.raises(InvalidInputError) as caught:
        load_weights(target, path, "student")
    marks = {"missing": names[-1], "unknown": "stranger.weight", "classes": "--student-set num_classes=5"}
    assert marks[fault] in str(caught.value)
    assert weights_digest(target) == before


def test_shapes_are_shown_with_the_next_step(tmp_path: Path) -> None:
    torch.save(network(classes=10).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InvalidInputError) as caught:
        load_weights(network(classes=6), tmp_path / "w.pt")
    text = str(caught.value)
    assert "bias: [10] in the file, [6] in the network" in text
    assert "give --teacher-set num_classes=10, or weights of 6 classes" in text
    torch.save(convnet(width=3, depth=1, num_classes=6).state_dict(), tmp_path / "wide.pt")
    with pytest.raises(InvalidInputError) as caught:
        load_weights(network(classes=6), tmp_path / "wide.pt")
    assert "num_classes" not in str(caught.value)


def test_one_state_dict_of_several_is_chosen_by_its_key(tmp_path: Path) -> None:
    states = {name: network(seed=seed).state_dict() for seed, name in enumerate(["student", "teacher"])}
    prefixed = {f"ema.{name}": value for name, value in network(seed=2).state_dict().items()}
    torch.save({**states, "flat": {**prefixed, "model.x": torch.ones(1)}}, tmp_path / "w#1.pt")
    path = str(tmp_path / "w#1.pt")
    with pytest.raises(InvalidInputError) as caught:
        load_weights(network(), path)
    assert f"{path}#student, {path}#teacher" in str(caught.value)
    for seed, key in enumerate(["student", "teacher", "flat.ema"]):
        target = network(seed=9)
        assert load_weights(target, f"{path}#{key}") == ()
        assert weights_digest(target) == weights_digest(network(seed=seed))
    with pytest.raises(InvalidInputError) as caught:
        load_weights(network(), f"{path}#nobody")
    assert "have no nobody" in str(caught.value)
    assert "student (a dict of" in str(caught.value)


def test_the_usual_key_is_taken_as_ever_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"state_dict": network(seed=1).state_dict(), "state_dict_ema": network(seed=2).state_dict()}, path)
    target = network()
    (note,) = load_weights(target, path)
    assert f"{path}#state_dict_ema" in note
    assert weights_digest(target) == weights_digest(network(seed=1))


def test_names_of_one_beginning_are_named_where_they_alone_fit(tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in network(seed=1).state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(4)}}, tmp_path / "w.ckpt")
    with pytest.raises(InvalidInputError, match=r"give .*w.ckpt#state_dict.model"):
        load_weights(network(), tmp_path / "w.ckpt")
    target = network()
    load_weights(target, f"{tmp_path}/w.ckpt#state_dict.model")
    assert weights_digest(target) == weights_digest(network(seed=1))


def test_a_wrapped_network_takes_the_file_of_what_it_wraps(tmp_path: Path) -> None:
    torch.save(network(seed=1).state_dict(), tmp_path / "w.pt")
    wrapper = nn.ModuleDict({"net": network()})
    (note,) = load_weights(wrapper, tmp_path / "w.pt")
    assert "net. was put before all names" in note
    assert weights_digest(wrapper["net"]) == weights_digest(network(seed=1))


def test_numbers_of_another_kind_are_refused_and_rounding_is_said(tmp_path: Path) -> None:
    state = network(seed=1).state_dict()
    torch.save({name: value.to(torch.int8) for name, value in state.items()}, tmp_path / "int.pt")
    with pytest.raises(InvalidInputError, match="is int8 in the file, float32 in the network"):
        load_weights(network(), tmp_path / "int.pt")
    torch.save(state, tmp_path / "float.pt")
    (note,) = load_weights(network().half(), tmp_path / "float.pt")
    assert "float32 were rounded to the network's float16" in note
    large = {name: value * 1e6 if value.is_floating_point() else value for name, value in state.items()}
    torch.save(large, tmp_path / "large.pt")
    with pytest.raises(InvalidInputError, match="more than its float16 can hold"):
        load_weights(network().half(), tmp_path / "large.pt")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int64, torch.uint8, torch.int8])
def test_another_kind_of_dtype_is_refused_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    state = network(seed=1).state_dict()
    name = next(name for name, value in state.items() if value.ndim == 4)
    torch.save(state | {name: state[name].to(dtype)}, tmp_path / "w.pt")
    target, short = network(), str(dtype).removeprefix("torch.")
    before = weights_digest(target)
    with pytest.raises(
        InvalidInputError, match=f"{name} is {short} in the file, float32 in the network; give"
    ) as caught:
        load_weights(target, tmp_path / "w.pt")
    assert ("quantised" in str(caught.value)) == (dtype not in (torch.complex64, torch.bool))
    assert weights_digest(target) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_are_taken(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: v.to(dtype) if v.is_floating_point() else v for name, v in network(seed=1).state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    target = network()
    notes = load_weights(target, tmp_path / "w.pt")
    assert weights_digest(target) == weights_digest(network(seed=1))  # whose values all of them hold
    assert any("float64 were rounded" in note for note in notes) == (dtype == torch.float64)


def test_buffers_of_whole_numbers_keep_their_values_or_are_refused(tmp_path: Path) -> None:
    def load(values: Tensor, dtype: torch.dtype) -> Tensor:
        target = nn.Linear(1, 1)
        target.register_buffer("numbers", torch.zeros(2, dtype=dtype))
        torch.save({**target.state_dict(), "numbers": values}, tmp_path / "w.pt")
        load_weights(target, tmp_path / "w.pt")
        return target.get_buffer("numbers")

    assert load(torch.tensor([200, 3]), torch.uint8).tolist() == [200, 3]
    assert load(torch.tensor([1, 0], dtype=torch.uint8), torch.bool).tolist() == [True, False]
    assert load(torch.tensor([True, False]), torch.int64).tolist() == [1, 0]
    for values, dtype in (([300, 3], torch.uint8), ([2, 0], torch.bool), ([-1, 0], torch.uint8)):
        with pytest.raises(InvalidInputError, match=r"numbers is int64 in the file, .* does not hold its values"):
            load(torch.tensor(values), dtype)
    with pytest.raises(InvalidInputError, match=r"numbers is float32 in the file, int64 in the network"):
        load(torch.tensor([1.0, 2.0]), torch.int64)


def _foreign(folder: Path) -> dict[str, str]:
    """Files that are no weights, by name, with a word that the message must have."""
    np.savez(folder / "a.npz", w=np.ones(2))
    np.save(folder / "a.npy", np.ones(2))
    (folder / "page.pt").write_text("<!DOCTYPE html><html>log in</html>")
    (folder / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "zeros.safetensors").write_bytes(bytes(4096))
    (folder / "w.pt.gz").write_bytes(b"\x1f\x8b\x08")
    (folder / "h.pt").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1-of-2.safetensors"}}))
    torch.save({}, folder / "nothing.pt")
    torch.save({"epoch": 3, "arch": "x"}, folder / "other.pt")
    torch.save([torch.ones(1)], folder / "list.pt")
    torch.save(network().state_dict(), folder / "torch.safetensors")
    torch.save(network().state_dict(), folder / "cut.pt")
    (folder / "cut.pt").write_bytes((folder / "cut.pt").read_bytes()[:-200])
    (folder / "folder").mkdir()
    (folder / "folder/model.safetensors").touch()
    torch.save({"model": network().state_dict(), "args": argparse.Namespace(lr=0.1)}, folder / "namespace.pth")
    torch.save({"state_dict": network().state_dict(), "best": np.float64(0.9)}, folder / "scalar.pth")
    torch.save(network(), folder / "module.pth")
    with zipfile.ZipFile(folder / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
    return {
        "a.npz": "numpy", "a.npy": "numpy", "page.pt": "web page", "lfs.safetensors": "git lfs pull",
        "empty.pt": "empty", "zeros.safetensors": "cannot be read", "w.pt.gz": "gzip", "h.pt": "HDF5",
        "model.safetensors.index.json": "model-1-of-2.safetensors", "nothing.pt": "nothing",
        "other.pt": "epoch (a int), arch (a str)", "list.pt": "a list", "torch.safetensors": "name it .pt",
        "cut.pt": "cannot be read", "folder": "model.safetensors", "namespace.pth": "argparse.Namespace",
        "scalar.pth": "weights_only=False", "module.pth": "state_dict()", "script.pt": "torch.jit.load",
        "none.pt": "no such file",
    }  # fmt: skip


def test_what_is_no_weights_file_is_named(tmp_path: Path) -> None:
    for name, word in _foreign(tmp_path).items():
        with pytest.raises(InvalidInputError) as caught:
            load_weights(network(), tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert word in str(caught.value), name


@pytest.mark.parametrize("name", ["namespace.pth", "scalar.pth", "module.pth"])
def test_the_way_to_convert_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _foreign(tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        load_weights(network(), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("in Python: ")[2], {"torch": torch})
    target = network(seed=5)
    load_weights(target, tmp_path / "plain.pt")
    assert weights_digest(target) == weights_digest(network())


def test_safetensors_are_known_by_their_content_and_keep_their_lineage(tmp_path: Path) -> None:
    record = '{"format":1,"stores":[{"content_id":"' + "a" * 64 + '"}]}'
    save_weights(tmp_path / "w.bin", network(seed=1), metadata={KEY: record})
    target = network()
    load_weights(target, tmp_path / "w.bin")
    assert weights_digest(target) == weights_digest(network(seed=1))
    assert [ancestor.content_id for ancestor in read_lineage(tmp_path / "w.bin")] == ["a" * 64]
    assert KEY in weights_metadata([], start=f"{tmp_path}/w.bin")
    torch.save(network().state_dict(), tmp_path / "w.pt")
    assert not is_safetensors(tmp_path / "w.pt")
    assert split_weights("a/b.pt#model.ema") == (Path("a/b.pt"), "model.ema")
    assert split_weights("a/b.pt") == (Path("a/b.pt"), "")


@pytest.mark.parametrize("head", [b"\x80", b"PK", b" <"])
def test_the_length_that_safetensors_begin_with_may_look_like_another_kind(tmp_path: Path, head: bytes) -> None:
    path, padding = tmp_path / "weights.safetensors", ""
    save_weights(path, network(3, seed=1), metadata={"note": padding})
    while not path.read_bytes().startswith(head):
        length, wanted = int.from_bytes(path.read_bytes()[:8], "little"), int.from_bytes(head, "little")
        padding += "x" * ((wanted - length) % 256 ** len(head) or 8)
        save_weights(path, network(3, seed=1), metadata={"note": padding})
    fresh = network(3)
    assert load_weights(fresh, path) == ()
    assert weights_digest(fresh) == weights_digest(network(3, seed=1))


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
