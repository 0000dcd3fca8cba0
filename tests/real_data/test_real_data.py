"""On Fashion-MNIST: teacher, stores and student from the command line's own functions, bounds on the teacher's logits.

Needs Debian's package dataset-fashion-mnist, or KDCACHE_FASHION_MNIST naming its folder; KDCACHE_REQUIRE_REALDATA=1
turns a missing data set into a failure.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.labels.full import FullLabels
from kdcache.labels.quantising import decode_logits
from kdcache.labels.reduction import reduce_topk
from kdcache.labels.topk import TopKEncoding
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.store import Store
from kdcache.views.sources import open_data
from tests.kits.encoding import encode_topk

pytestmark = pytest.mark.realdata

ROWS = 2000
VIEWS: dict[str, Any] = {"transform": "light", "transform_set": {"padding": 2}, "workers": 0}


@pytest.fixture(scope="module")
def data(fashion_mnist: str) -> str:
    """The data spec of Fashion-MNIST."""
    return fashion_mnist


@pytest.fixture(scope="module")
def folder(data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A teacher of two epochs, and its stores at top-k and in full."""
    place = tmp_path_factory.mktemp("fashion")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    settings = {"student": "kdcache.networks:convnet", "student_set": {"width": 16}, "data": data, "epochs": 2, **VIEWS}
    train(TrainSettings.model_validate({"run": str(place / "teacher"), "data_set": {"limit": 5000}, **settings}))
    for name, chosen in (("topk", {"top_k": 3}), ("full", {"encoding": "full"})):
        extract(ExtractSettings.model_validate({"store": str(place / f"{name}.kd"), **chosen, **_asked(place, data)}))
    yield place
    torch.set_num_threads(threads)


def _asked(place: Path, data: str) -> dict[str, Any]:
    return {
        "teacher": "kdcache.networks:convnet",
        "teacher_set": {"width": 16},
        "weights": str(place / "teacher/weights/last.safetensors"),
        "data": data,
        "data_set": {"limit": ROWS},
        "views": "2",
        **VIEWS,
    }


def test_the_files_hold_what_the_paper_says(data: str) -> None:
    train_split, test_split = open_data(data, {}), open_data(data, {"split": "test"})
    assert (len(train_split), len(test_split), train_split.classes) == (60_000, 10_000, 10)
    assert np.bincount(train_split.labels).tolist() == [6000] * 10
    assert train_split.samples[0][0].shape == (1, 28, 28)


@pytest.mark.parametrize(("precision", "bound"), [("default", 1e-4), ("high", 1e-5)])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_quantising_adds_little_on_real_logits(folder: Path, precision: Any, bound: float, k: int) -> None:
    full = _full(folder, view=0)
    exact = reduce_topk(full.logits, np.full((ROWS, 1), -1), k)
    encoded = encode_topk(exact, TopKEncoding(k=k, quantisation=precision), 10).arrays
    stored = decode_logits(encoded["classes"], encoded.get("gaps"), precision)
    p, q = _with_tail(-exact.distances, exact.tail), _with_tail(stored, exact.tail)
    assert float((np.exp(p) * (p - q)).sum(axis=-1).mean()) <= bound


@pytest.mark.parametrize("temperature", [1.0, 1.5, 2.0, 4.0])
def test_the_tail_mass_of_every_row_is_within_a_hundredth(folder: Path, temperature: float) -> None:
    for view in (0, 1):
        stored = Store.open(folder / "topk.kd").read(view, np.arange(ROWS))
        dense = _full(folder, view=view).dense(temperature)
        outside = 1.0 - np.take_along_axis(dense, stored.classes.astype(np.int64), axis=-1).sum(axis=-1)
        assert np.abs(stored.tail_mass(temperature) - outside).max() < 0.01


def test_the_store_is_what_the_teacher_says_of_these_pictures(folder: Path, data: str) -> None:
    asked = _asked(folder, data)
    known = {name: asked[name] for name in ("data", "data_set", "teacher", "teacher_set", "weights")}
    for name in ("topk", "full"):
        verdict = verify(VerifySettings.model_validate({"store": str(folder / f"{name}.kd"), **known}))
        assert verdict.whole, verdict
        assert len(verdict.checks) == 7


def test_a_student_learns_from_the_store(folder: Path, data: str) -> None:
    settings = {
        "student": "kdcache.networks:convnet",
        "student_set": {"width": 8},
        "data": data,
        "workers": 0,
        "batch_size": 64,
    }
    chosen = {
        "data_set": {"limit": ROWS},
        "store": [str(folder / "topk.kd")],
        "set": {"w_ce": 0.0, "w_kd": 1.0},
        "epochs": 6,
    }
    summary = train(
        TrainSettings.model_validate(
            {"run": str(folder / "student"), "val_set": {"split": "test", "limit": 1000}, **chosen, **settings}
        )
    )
    assert summary.validation["accuracy"] > 0.6  # ten classes, and not one hard label was used
    assert summary.drift_levels is None


def _full(folder: Path, *, view: int) -> FullLabels:
    full = Store.open(folder / "full.kd").read(view, np.arange(ROWS))
    assert isinstance(full, FullLabels)
    return full


def _with_tail(head: Any, tail: Any) -> Any:
    parts = np.concatenate([head.astype(np.float64), tail[:, :1]], axis=-1)
    return parts - np.logaddexp.reduce(parts, axis=-1)[:, None]
