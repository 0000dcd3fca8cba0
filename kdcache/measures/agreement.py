"""Agreement compares decisions of student and teacher: the top class, the set of the top k, and their order.

Shape letters: B rows, C classes, k classes that are compared.
"""

from typing import Any

import numpy as np
import torch

from kdcache.measures.facts import Facts, Group, Measure, mean_of
from kdcache.measures.rows import Rows, count_of, floats_of


def _sums(rows: Rows) -> dict[str, Any]:
    best_p, best_q = rows.best_p[:, : rows.k], rows.best_q[:, : rows.k]
    common = (best_p[:, :, None] == best_q[:, None, :]).sum(dim=(1, 2))
    return {
        "rows": count_of(rows.count),
        "equal": count_of((rows.top_p == rows.top_q).sum()),
        "overlap": count_of(floats_of(common).sum() / rows.k),
        "order": count_of(_order(rows).sum()),
    }


def _order(rows: Rows) -> Any:
    """[B] Kendall's tau of the student's logits over the teacher's k best classes; a tie of the student counts 0. NaN
    for k = 1, where there is no order."""
    if rows.k < 2:
        return np.full(rows.count, np.nan)
    log_q = rows.log_q.gather(-1, rows.best_p[:, : rows.k])
    first, second = torch.triu_indices(rows.k, rows.k, offset=1, device=log_q.device)
    return floats_of((log_q[:, first] - log_q[:, second]).sign().mean(dim=-1))


def _facts(unit: str, formula: str, source: str) -> Facts:
    return Facts(unit, formula, source, ("teacher",))


GROUP = Group(
    needs=("teacher",),
    sums=_sums,
    measures={
        "agreement": Measure(_facts("share", "mean 1{argmax p = argmax q}", "Stanton et al. 2021"), mean_of("equal")),
        "topk_overlap": Measure(
            _facts("share", "mean |top_k(p) & top_k(q)| / k, k 5 or `Tally(k=)`, at most the store's", "standard"),
            mean_of("overlap"),
        ),
        "rank_agreement": Measure(
            _facts(
                "tau, -1 to 1",
                "mean over rows, and pairs i < j of the teacher's top k in its order, of sign(q_i - q_j)",
                "Kendall 1938, tau a",
            ),
            mean_of("order"),
        ),
    },
)
