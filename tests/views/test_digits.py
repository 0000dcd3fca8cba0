"""The digits are scikit-learn's, read without importing it."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits as original

from kdcache.errors import InvalidInputError
from kdcache.views.built_in import load_digits


def test_pixels_and_labels_are_those_of_scikit_learn() -> None:
    bunch, built_in = original(), load_digits("all")
    assert np.array_equal(built_in.samples.images[:, 0].numpy(), (bunch.images * 15).astype(np.uint8))
    assert np.array_equal(built_in.samples.labels, bunch.target)


def test_scikit_learn_is_not_imported() -> None:
    code = "import sys; from kdcache.views.built_in import load_digits; load_digits(); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_its_file_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"has no datasets/data/digits.csv.gz; pip install scikit-learn"):
        load_digits()
