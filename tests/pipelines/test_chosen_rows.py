"""Stores of rows that were chosen by arguments: training meets them again, and refuses other rows and other labels."""

import json
from pathlib import Path

import pytest

from kdcache.base.arrays import values_digest
from kdcache.errors import MismatchError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from kdcache.views.sources import open_data
from tests.kits import stages
from tests.kits.stages import Stage, student

stage = stages.stage


def test_a_store_of_a_noisy_range_belongs_to_these_rows_and_labels(stage: Stage, tmp_path: Path) -> None:
    chosen = {"range": "0:300", "imbalance": 2, "noise": 0.3}
    extract(stage.asked(tmp_path / "noisy.kd", data_set=chosen, min_accuracy=0.2))
    store = Store.open(str(tmp_path / "noisy.kd"))
    data = open_data("digits", chosen)
    assert store.labels[store.order.argsort()].tolist() == data.labels.tolist()
    summary = train(student(tmp_path / "run", store=[str(tmp_path / "noisy.kd")], data_set=chosen))
    assert summary.epochs == 2
    for other, message in (
        ({**chosen, "noise": 0}, r"dataset.labels"),
        ({**chosen, "noise_seed": 1}, r"samples have another label"),
        ({**chosen, "range": "5:305"}, r"dataset.ids"),
    ):
        with pytest.raises(MismatchError, match=message):
            train(student(tmp_path / "other", store=[str(tmp_path / "noisy.kd")], data_set=other))


def test_held_out_rows_have_the_training_s_classes(tmp_path: Path) -> None:
    """Those of the validation, and those that terms are selected by."""
    chosen = {"limit": 300, "groups": 5}
    terms = {"objective": "confidence-penalty+label-smoothing"}
    held_out = {"val_set": {"split": "test", "limit": 100}, "select_set": {"range": "300:400"}}
    summary = train(student(tmp_path / "run", data_set=chosen, epochs=1, **terms, **held_out))
    assert summary.validation["nll"] < 1.0, "of two classes"
    inputs = json.loads((tmp_path / "run/settings.json").read_text())["inputs"]
    for name, arguments in (("val", held_out["val_set"]), ("select", held_out["select_set"])):
        labels = open_data("digits", {**arguments, "groups": 5}).labels
        assert set(labels.tolist()) == {0, 1}
        assert inputs[name]["dataset"]["labels"] == values_digest(labels)
