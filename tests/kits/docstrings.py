"""The place where examples of docstrings run: two small stores, and the names that docs/api/index.md begins with."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.views.fingerprint import token_fingerprints
from tests.kits import stores
from tests.kits.house import ROOT
from tests.kits.stores import make_case, write_store

SEQUENCE = 4
PAGE = ROOT / "docs/api/index.md"


def write_texts(path: Path) -> None:
    """A store of four texts of four tokens: text i is 4 i, 4 i + 1, 4 i + 2, 4 i + 3."""
    case = make_case(rows=16, classes=30, k=3, views=1, sequence=SEQUENCE)
    tokens = np.arange(16).reshape(-1, SEQUENCE)
    fingerprints = np.concatenate([token_fingerprints(ids, SEQUENCE) for ids in tokens])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "pixels_of", lambda views, positions: fingerprints[case.order[positions]][None])
        write_store(path, case)


def names_of_page() -> dict[str, Any]:
    """The names after the lines that the page shows; they are run in the current folder, which holds digits.kd."""
    _, lines = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(lines, names)
    return names
