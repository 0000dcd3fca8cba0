"""Workers that begin anew find both of two user files of one stem."""

from pathlib import Path

import numpy as np
import torch

from kdcache.base.specs import load_callable
from kdcache.base.view_span import ViewSpan
from kdcache.views.view_stack import ViewRequest
from kdcache.views.workers import draw_requests
from tests.base.test_user_files import CODE
from tests.kits.views import view_dataset


def test_spawned_workers_draw_by_both_files(tmp_path: Path) -> None:
    for name, level in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(CODE.format(level=level))
    samples = load_callable(f"{tmp_path}/a/net.py:Pictures", "data")()
    transform = load_callable(f"{tmp_path}/b/net.py:Brighter", "transform")()
    requests = [ViewRequest(ViewSpan(0, 1), np.arange(4))]
    (drawn,) = draw_requests(view_dataset(samples, transform), requests, 1, "spawn")
    assert torch.unique(torch.as_tensor(drawn.images)).tolist() == [3]
