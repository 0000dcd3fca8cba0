"""Calibration errors compare confidence with the share of hits, in 15 equal bins of probability.

Shape letters: B rows, C classes.
"""

from typing import Any

import numpy as np
import torch

from kdcache.base.calibration_bins import BINS, calibration_error, calibration_sums
from kdcache.measures.facts import Facts, Floats, Group, Measure, Sums
from kdcache.measures.rows import Rows, count_of, ids_of

EDGES = np.linspace(0, 1, BINS + 1, dtype=np.float32)  # as `calibration_sums` has them


def _sums(rows: Rows) -> dict[str, Any]:
    mask = rows.labelled
    return {
        "rows": count_of(mask.sum()),
        "bins": calibration_sums(rows.confidence[mask], rows.hits[mask]),
        "class_bins": _class_sums(rows),
    }


def _class_sums(rows: Rows) -> Floats:
    """[3, C, 16] counts of rows, sums of q_c, and counts of rows with y = c, by class and bin of q_c.

    Of a row at most 15 classes lie above the first bin. Only these are looked up; the first bin holds the others.
    """
    q, labels = rows.q, rows.label_ids
    if not rows.labelled.all():
        mask = torch.from_numpy(rows.labelled).to(q.device)
        q, labels = q[mask], labels[mask]
    q = q.to(torch.float32)
    row_ids, class_ids = (q >= float(EDGES[1])).nonzero(as_tuple=True)
    values = q[row_ids, class_ids].cpu().numpy()
    bins, cells = BINS + 1, ids_of(class_ids) * (BINS + 1) + _bin_of(values)
    counts, confidence = (  # without rows bincount forgets its weights' dtype
        np.bincount(cells, weights=weights, minlength=rows.classes * bins)
        .reshape(rows.classes, bins)
        .astype(np.float64)
        for weights in (None, values)
    )
    total = q.sum(dim=0, dtype=torch.float64).cpu().numpy()
    counts[:, 0] += len(q) - counts.sum(axis=1)
    confidence[:, 0] += total - confidence.sum(axis=1)
    at_label = q.gather(-1, labels[:, None])[:, 0].cpu().numpy()
    cells = ids_of(labels) * bins + _bin_of(at_label)
    hits = np.bincount(cells, minlength=rows.classes * bins).reshape(rows.classes, bins)
    return np.stack([counts, confidence, hits])


def _bin_of(values: Any) -> Any:
    return np.searchsorted(EDGES, values, side="right") - 1


def ece(sums: Sums) -> float:
    """Sum over bins of |hits - confidence|, over rows."""
    return calibration_error(sums["bins"])


def overconfidence(sums: Sums) -> float:
    """Sum over bins of n_b / n conf_b max(conf_b - acc_b, 0)."""
    rows, confidence, hits = sums["bins"]
    means = confidence / np.maximum(rows, 1.0)
    return float((means * np.maximum(confidence - hits, 0.0)).sum() / rows.sum())


def class_errors(sums: Sums) -> Floats:
    """[C] the calibration error of each q_c against 1{y = c}."""
    rows, confidence, hits = sums["class_bins"]
    return np.asarray(np.abs(hits - confidence).sum(axis=1) / rows[0].sum())


GROUP = Group(
    needs=("labels",),
    sums=_sums,
    measures={
        "ece": Measure(
            Facts(
                "share", "sum_b n_b / n |acc_b - conf_b|, 15 equal bins of max q", "Guo et al. 2017, eq. 3", ("labels",)
            ),
            ece,
        ),
        "overconfidence": Measure(
            Facts(
                "share", "sum_b n_b / n conf_b max(conf_b - acc_b, 0), 15 bins", "Thulasidasan et al. 2019", ("labels",)
            ),
            overconfidence,
        ),
        "classwise_ece": Measure(
            Facts(
                "share",
                "mean over classes of sum_b n_bc / n |mean 1{y = c} - mean q_c|, 15 bins of q_c",
                "Kull et al. 2019",
                ("labels",),
            ),
            lambda sums: float(class_errors(sums).mean()),
            by_class=class_errors,
        ),
    },
)
