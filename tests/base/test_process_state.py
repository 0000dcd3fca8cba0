"""What a user's file or factory leaves changed in the process is put back, at import and at the call."""

import os
from pathlib import Path

import pytest
import torch

from kdcache.base.specs import call, load_callable

CODE = """
import os, tempfile, torch
def change():
    os.chdir(tempfile.gettempdir())
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
{at_import}
def make(fails=False):
    change()
    if fails: raise ValueError("no network")
    return torch.zeros(1)
"""


def state() -> tuple[object, ...]:
    return os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled()


@pytest.mark.parametrize("at_import", ["", "change()"])
def test_folder_and_switches_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_import: str) -> None:
    monkeypatch.chdir(tmp_path)
    before = state()
    (tmp_path / "own.py").write_text(CODE.format(at_import=at_import))
    function = load_callable("own.py:make", "teacher")
    assert state() == before
    assert call(function, {}, "teacher").dtype == torch.float64  # it computed as it wished
    assert state() == before
    with pytest.raises(ValueError, match="no network"):
        call(function, {"fails": True}, "teacher")
    assert state() == before
