"""NLL and Brier score judge the student's probabilities by the hard labels; both are proper scores."""

from typing import Any

import numpy as np

from kdcache.measures.facts import Facts, Group, Measure, mean_of
from kdcache.measures.rows import Rows, count_of, floats_of


def _sums(rows: Rows) -> dict[str, Any]:
    """Brier by sum_c q_c^2 - 2 q_y + 1, which needs no one-hot [B, C]."""
    squares = floats_of(rows.q.square().sum(dim=-1))
    brier = squares - 2.0 * np.exp(rows.log_q_label) + 1.0
    return {
        "rows": count_of(rows.labelled.sum()),
        "nll": count_of(-rows.log_q_label[rows.labelled].sum()),
        "brier": count_of(brier[rows.labelled].sum()),
    }


GROUP = Group(
    needs=("labels",),
    sums=_sums,
    measures={
        "nll": Measure(Facts("nats", "mean -log q_y", "standard", ("labels",)), mean_of("nll")),
        "brier": Measure(
            Facts(
                "squared probability",
                "mean sum_c (q_c - 1{c = y})^2",
                "Brier 1950; a sum over classes: 0 to 2",
                ("labels",),
            ),
            mean_of("brier"),
        ),
    },
)
