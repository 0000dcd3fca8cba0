"""Shared fixtures on real data: what an ImageNet teacher says about photographs, and where Fashion-MNIST lies."""

import os
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from tests.photographs import imagenet_logits

CROPS = 240


@pytest.fixture(scope="session")
def real_logits() -> npt.NDArray[Any]:
    """[240, 1000] f32 logits of EfficientNet-lite0 with its ImageNet weights, which the test packages carry."""
    return imagenet_logits(CROPS)


@pytest.fixture(scope="session")
def fashion_mnist() -> str:
    """The data spec of Fashion-MNIST; without its files a skip, or a failure where they are required."""
    folder = Path(os.environ.get("KDCACHE_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
    if not folder.is_dir():
        reason = f"no Fashion-MNIST in {folder}: apt install dataset-fashion-mnist, or set KDCACHE_FASHION_MNIST"
        if os.environ.get("KDCACHE_REQUIRE_REALDATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return f"fashion-mnist:{folder}"
