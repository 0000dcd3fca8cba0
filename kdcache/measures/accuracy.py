"""Accuracy counts the rows whose hard label the student finds: overall, among five, and by class."""

from math import ceil
from typing import Any

import numpy as np

from kdcache.measures.facts import Facts, Floats, Group, Measure, Sums, mean_of
from kdcache.measures.rows import Rows, count_of, ids_of

TOP = 5


def _sums(rows: Rows) -> dict[str, Any]:
    labels, hits = rows.hard[rows.labelled], rows.hits[rows.labelled]
    in_top = (ids_of(rows.best_q[:, :TOP]) == rows.hard[:, None]).any(axis=1)
    return {
        "rows": count_of(len(labels)),
        "hits": count_of(hits.sum()),
        "in_top": count_of(in_top[rows.labelled].sum()),
        "rows_by_class": np.bincount(labels, minlength=rows.classes).astype(np.float64),
        "hits_by_class": np.bincount(labels[hits], minlength=rows.classes).astype(np.float64),
    }


def recalls(sums: Sums) -> Floats:
    """[C] share of a class's rows that are found; NaN for a class without rows."""
    rows: Any = sums["rows_by_class"]
    out: Floats = np.full(len(rows), np.nan)
    return np.asarray(np.divide(sums["hits_by_class"], rows, out=out, where=rows > 0))


def balanced(sums: Sums) -> float:
    """The mean of the recalls of the classes that have rows."""
    return float(np.nanmean(recalls(sums)))


def worst(sums: Sums, count: int) -> float:
    """The mean of the `count` lowest recalls, or of all where there are fewer."""
    by_class = recalls(sums)
    return float(np.sort(by_class[~np.isnan(by_class)])[:count].mean())


def worst_tenth(sums: Sums) -> float:
    """The mean of the lowest recalls of a tenth of the classes that have rows, rounded up."""
    return worst(sums, ceil(int((~np.isnan(recalls(sums))).sum()) / 10))


def _facts(formula: str, source: str = "") -> Facts:
    return Facts("share", formula, source, ("labels",))


GROUP = Group(
    needs=("labels",),
    sums=_sums,
    measures={
        "accuracy": Measure(_facts("mean 1{argmax q = y}", "standard"), mean_of("hits")),
        "top5_accuracy": Measure(_facts("mean 1{y among the 5 largest q}", "standard"), mean_of("in_top")),
        "balanced_accuracy": Measure(
            _facts(
                "mean over classes of recall_c = mean of 1{argmax q = c} over rows with y = c", "Brodersen et al. 2010"
            ),
            balanced,
            by_class=recalls,
        ),
        "worst_class": Measure(_facts("least recall_c", "standard"), lambda sums: worst(sums, 1)),
        "worst_3_classes": Measure(_facts("mean of the 3 least recall_c", "standard"), lambda sums: worst(sums, 3)),
        "worst_tenth": Measure(_facts("mean of the ceil(C / 10) least recall_c", "standard"), worst_tenth),
    },
)
