"""The teacher's information: how open its answers are, and where the hard label stands in them.

Shape letters: B rows, K classes that are held.
"""

from typing import Any

import numpy as np

from kdcache.measures.facts import Facts, Group, Measure, Need, mean_of
from kdcache.measures.rows import Rows, count_of, floats_of


def _sums(rows: Rows) -> dict[str, Any]:
    best = rows.log_p_best.double().exp()
    margin = floats_of(best[:, 0] - best[:, 1]) if best.shape[1] > 1 else np.full(rows.count, np.nan)
    return {
        "rows": count_of(rows.count),
        "inexact": count_of(rows.inexact),
        "entropy": count_of(floats_of(rows.teacher.entropy(rows.normalizer)).sum()),
        "margin": count_of(margin.sum()),
    }


def _rank_sums(rows: Rows) -> dict[str, Any]:
    """A rank is 1 and the number of classes above the label. Of a label outside the kept K, K + 1 is the least."""
    log_p, label_ids = rows.log_p, rows.label_ids[:, None]
    if rows.teacher.COMPLETE:
        above = (log_p > log_p.gather(-1, label_ids)).sum(dim=-1)
        unknown = np.zeros(rows.count, dtype=bool)
    else:
        at = rows.teacher.classes == label_ids
        label_log_p = log_p.masked_fill(~at, -np.inf).amax(dim=-1, keepdim=True)
        above = (log_p > label_log_p).sum(dim=-1)
        unknown = ~at.any(dim=-1).cpu().numpy() & (rows.teacher.tail_classes > 1)
    ranks, mask = floats_of(above) + 1.0, rows.labelled
    return {
        "rows": count_of(mask.sum()),
        "inexact": count_of(unknown[mask].sum()),
        "rank": count_of(ranks[mask].sum()),
    }


def _facts(unit: str, formula: str, *needs: Need, topk: Any = "exact") -> Facts:
    return Facts(unit, formula, "standard", needs, topk)


GROUP = Group(
    needs=("teacher",),
    sums=_sums,
    measures={
        "teacher_entropy": Measure(
            _facts("nats", "mean -sum_c p_c log p_c", "teacher", topk="sketch"), mean_of("entropy")
        ),
        "teacher_margin": Measure(
            _facts("probability", "mean p_1 - p_2, the two largest", "teacher"), mean_of("margin")
        ),
    },
)
RANK = Group(
    needs=("labels", "teacher"),
    sums=_rank_sums,
    measures={
        "teacher_label_rank": Measure(
            _facts("rank, 1 is best", "mean 1 + number of classes with p_c > p_y", "labels", "teacher", topk="bound"),
            mean_of("rank"),
        )
    },
)
