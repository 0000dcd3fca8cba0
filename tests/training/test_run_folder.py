"""checkpoints: a run folder belongs to one run, and what is in it is whole or absent."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdcache.base.whole_files import write_whole
from kdcache.errors import InvalidInputError, MismatchError
from kdcache.networks.small import convnet
from kdcache.networks.weights import load_weights, weights_digest
from kdcache.training.run_folder import (
    append_metrics,
    claim_run,
    keep_metrics,
    load_state,
    read_metrics,
    save_state,
    save_weights,
)

SETTINGS: dict[str, Any] = {"lr": 0.1, "workers": 2, "student_set": {"width": 8}, "store": ("a.kd",)}


def test_a_folder_is_claimed_once_and_recognised_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    assert claim_run(folder, SETTINGS) is False
    assert claim_run(folder, SETTINGS) is True
    assert json.loads((folder / "settings.json").read_text())["store"] == ["a.kd"]


def test_other_settings_are_refused_with_both_values(tmp_path: Path) -> None:
    claim_run(tmp_path, SETTINGS)
    save_state(tmp_path, {"epoch": 1})
    before = (tmp_path / "settings.json").read_bytes()
    other = {**SETTINGS, "lr": 0.2, "student_set": {"width": 16}, "ema": 0.9}
    with pytest.raises(MismatchError) as caught:
        claim_run(tmp_path, other)
    assert caught.value.differences == (
        ("ema", "None", "0.9"),
        ("lr", "0.1", "0.2"),
        ("student_set.width", "8", "16"),
    )
    assert "choose another folder" in str(caught.value)
    assert (tmp_path / "settings.json").read_bytes() == before


def test_a_run_without_a_checkpoint_is_claimed_anew(tmp_path: Path) -> None:
    claim_run(tmp_path, SETTINGS)
    assert claim_run(tmp_path, {**SETTINGS, "lr": 0.2}) is False
    assert json.loads((tmp_path / "settings.json").read_text())["lr"] == 0.2


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInputError, match="is not empty and holds no run"):
        claim_run(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    network = convnet(width=4, depth=1)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    state = {"epoch": 3, "network": network.state_dict(), "optimizer": optimizer.state_dict(), "ema": None}
    save_state(tmp_path, {"epoch": 1})
    save_state(tmp_path, state)
    found = load_state(tmp_path)
    assert found is not None
    assert (found["epoch"], found["ema"]) == (3, None)
    other = convnet(width=4, depth=1)
    other.load_state_dict(found["network"])
    assert weights_digest(other) == weights_digest(network)
    moments = zip(optimizer.state_dict()["state"].values(), found["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(mine["exp_avg"], theirs["exp_avg"]) for mine, theirs in moments)


def test_a_writer_that_dies_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, {"epoch": 1})
    write_whole(tmp_path / "a", b"old")

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, {"epoch": 2})
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", b"new")
    assert load_state(tmp_path) == {"epoch": 1}
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_state_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "checkpoints").mkdir()
    torch.save({"epoch": Trap()}, tmp_path / "checkpoints/state.pt")
    with pytest.raises(Exception, match="it is no checkpoint, or damaged"):
        load_state(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_weights_are_ready_for_another_network(tmp_path: Path) -> None:
    network, other = convnet(width=4), convnet(width=4)
    network.to(memory_format=torch.channels_last)
    save_weights(tmp_path / "weights/last.safetensors", network)
    assert set(load_file(tmp_path / "weights/last.safetensors")) == set(network.state_dict())
    load_weights(other, tmp_path / "weights/last.safetensors")
    assert weights_digest(other) == weights_digest(network)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["last.safetensors"]


def test_metrics_are_lines_and_those_of_lost_epochs_are_dropped(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    lines = [{"epoch": epoch, "loss": 1.0 / (epoch + 1)} for epoch in range(4)]
    for line in lines:
        append_metrics(tmp_path, line)
    assert read_metrics(tmp_path) == lines
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "lo')  # killed here
    assert read_metrics(tmp_path) == lines
    keep_metrics(tmp_path, 3)
    append_metrics(tmp_path, {"epoch": 3, "loss": 9.0})
    assert read_metrics(tmp_path) == [*lines[:3], {"epoch": 3, "loss": 9.0}]
