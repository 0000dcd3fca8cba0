"""metrics: what validation measures is what torchmetrics measures, however the rows come in batches."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from kdcache.labels.full import FullLabels
from kdcache.objectives.batch import Batch
from kdcache.training.metrics import Validation

ROWS, CLASSES = 500, 6


def measured(logits: torch.Tensor, y: torch.Tensor, taught: torch.Tensor | None, size: int) -> dict[str, float]:
    found = Validation()
    for rows in torch.arange(len(logits)).split(size):
        teachers = () if taught is None else (FullLabels(taught[rows], torch.zeros(len(rows)), CLASSES),)
        found.update(logits[rows], Batch(torch.empty(0), y[rows], None, None, rows, 0, 0, 0, teachers))
    return found.results()


@pytest.mark.parametrize("size", [7, 500])
def test_measures_are_those_of_torchmetrics(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, taught = (3.0 * torch.randn(ROWS, CLASSES, generator=generator) for _ in range(2))
    logits[:5] = torch.nn.functional.one_hot(torch.arange(5), CLASSES) * 90.0  # saturated
    y = torch.randint(-1, CLASSES, (ROWS,), generator=generator)
    known = y >= 0
    accuracy = MulticlassAccuracy(CLASSES, average="micro")(logits[known], y[known])
    ece = MulticlassCalibrationError(CLASSES, n_bins=15)(logits[known].softmax(dim=-1), y[known])
    log_p, log_q = taught.double().log_softmax(dim=-1), logits.double().log_softmax(dim=-1)
    found = measured(logits, y, taught - taught.max(dim=-1, keepdim=True).values, size)
    assert found["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    assert found["ece"] == pytest.approx(float(ece), abs=1e-6)
    assert found["nll"] == pytest.approx(-float(log_q[known].gather(1, y[known][:, None]).mean()), abs=1e-6)
    assert found["agreement"] == pytest.approx(float((log_p.argmax(1) == log_q.argmax(1)).double().mean()), abs=1e-12)
    assert found["kl_to_teacher"] == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum(1).mean()), abs=1e-5)


def test_what_has_no_rows_is_left_out() -> None:
    logits = torch.zeros(4, CLASSES)
    assert measured(logits, torch.full((4,), -1), None, 4) == {}
    assert measured(logits, torch.full((4,), -1), torch.zeros(4, CLASSES), 4).keys() == {"agreement", "kl_to_teacher"}
    assert measured(logits, torch.zeros(4, dtype=torch.int64), None, 4) == pytest.approx(
        {"accuracy": 1.0, "nll": np.log(CLASSES), "ece": 1 - 1 / CLASSES}
    )
