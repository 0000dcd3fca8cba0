"""dense_forms: what is timed against an objective is the same loss."""

import pytest
import torch

from kdcache.labels.full import FullLabels
from kdcache.objectives.catalogue import make_objective
from tests.benchmarks.dense_forms import FORMS, T
from tests.kits.labels import batch_of


@pytest.mark.parametrize("name", list(FORMS))
def test_a_form_is_the_objective_on_a_full_teacher(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z, t = (torch.randn(5, 9, dtype=torch.float64, generator=generator) for _ in range(2))
    z, t = z - z.mean(dim=-1, keepdim=True), t - t.mean(dim=-1, keepdim=True)
    settings = {"w_ce": 0.0, "w_kd": 1.0} | ({} if name == "logit-mse" else {"temperature": T})
    batch = batch_of(FullLabels(t, t[:, 0], 9), y=torch.zeros(5, dtype=torch.int64))
    scale = 9 / 2 if name == "logit-mse" else 1.0  # half a sum over classes for their mean
    torch.testing.assert_close(make_objective(name, settings)(z, batch), scale * FORMS[name](z, t))
