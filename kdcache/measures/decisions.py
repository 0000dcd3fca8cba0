"""Mutual information of decisions says how much the student's top class tells of the teacher's.

Only pairs of classes that occur are held, so that C may be large."""

from typing import Any

import numpy as np

from kdcache.measures.counts import Counts
from kdcache.measures.facts import Facts, Group, Measure, Sums
from kdcache.measures.rows import Rows, count_of


def _sums(rows: Rows) -> dict[str, Any]:
    return {"rows": count_of(rows.count), "pairs": Counts.of_pairs(rows.top_p, rows.top_q)}


def mutual_information(sums: Sums) -> float:
    """In nats, from the contingency of the two decisions."""
    a, b, counts = sums["pairs"].pairs()
    rows = counts.sum()
    rows_a, rows_b = np.bincount(a, weights=counts), np.bincount(b, weights=counts)
    terms = counts / rows * (np.log(counts) + np.log(rows) - np.log(rows_a[a]) - np.log(rows_b[b]))
    return max(float(terms.sum()), 0.0)


GROUP = Group(
    needs=("teacher",),
    sums=_sums,
    measures={
        "decision_information": Measure(
            Facts(
                "nats",
                "I(argmax p; argmax q) = sum_ab n_ab / n log(n n_ab / (n_a n_b))",
                "Shannon 1948; plug-in estimate",
                ("teacher",),
            ),
            mutual_information,
        )
    },
)
