"""doctor: what a folder offers is tried out, what is missing is named, and nothing stays behind."""

import builtins
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kdcache.cli.app import main
from kdcache.errors import InvalidInputError
from kdcache.places import create_only, doctor
from kdcache.places.doctor import CHECKS, probe_device, probe_folder, probe_versions
from tests.kits.house import loaded


def refused(*paths: object, **folders: int) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_good_folder_passes_and_stays_as_it_was(tmp_path: Path) -> None:
    found = {each.name: each for each in probe_folder(tmp_path)}
    assert list(found) == list(CHECKS)
    assert [each.name for each in found.values() if not each.passed] == []
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_a_refusing_rename_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refused)
    found = {each.name: each for each in probe_folder(tmp_path)}
    assert found["create-only"].passed
    assert not found["hard links"].passed
    monkeypatch.setattr(create_only, "rename_no_replace", refused)
    monkeypatch.setattr(doctor, "rename_no_replace", refused)
    found = {each.name: each for each in probe_folder(tmp_path)}
    assert [name for name, each in found.items() if each.needed and not each.passed] == ["create-only"]
    assert "no hard links" in found["create-only"].detail


@pytest.mark.parametrize("name", ["fsync", "free space", "atomic replace"])
def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(CHECKS, name, (refused, True))  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(tmp_path)])
    assert stopped.value.code == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", refused)
    (found,) = probe_folder(tmp_path)
    assert (found.name, found.passed, found.needed) == ("writable", False, True)
    assert "can be read" in found.detail


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is no folder"):
        probe_folder(tmp_path / "nothing")


def test_the_command_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0
    assert {each["name"] for each in found["folder"]} == set(CHECKS)
    assert {"python", "kdcache", "zarr", "torch"} <= {each["name"] for each in found["machine"]}


def test_a_folder_is_looked_at_without_torch(tmp_path: Path) -> None:
    assert "torch" not in loaded(f"from kdcache.places.doctor import *; probe_folder({str(tmp_path)!r})")


def test_a_machine_without_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *more)

    assert probe_device().passed
    monkeypatch.setattr(builtins, "__import__", without)
    found = probe_device()
    assert not found.passed
    assert "No module named 'torch'" in found.detail
    assert all(each.detail for each in probe_versions())
