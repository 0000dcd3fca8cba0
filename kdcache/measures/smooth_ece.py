"""Smooth ECE is a calibration error without bins: its residuals are smoothed by a width that equals the error.

With residuals r_i = hit_i - conf_i at conf_i, and K the Gaussian kernel of width s reflected at 0 and 1, the error at s
is the integral over t in [0, 1] of |sum_i r_i K(conf_i, t)| / n. It falls as s grows; the smooth ECE is where they are
equal. The reflected Gaussian is the heat kernel on [0, 1] without flux, which a cosine transform makes diagonal.

Residuals are summed in G equal cells, shared between the two nearest centres, so that tables of parts add up.
"""

from typing import Any

import numpy as np
from scipy.fft import dct, idct

from kdcache.measures.facts import Facts, Floats, Group, Measure, Sums
from kdcache.measures.rows import Rows, count_of

CELLS = 4096
HALVINGS = 30  # of the width: known to 1e-9


def _sums(rows: Rows) -> dict[str, Any]:
    mask = rows.labelled
    confidence = rows.confidence[mask]
    return {"rows": count_of(mask.sum()), "residuals": residual_table(confidence, rows.hits[mask] - confidence)}


def residual_table(confidence: Floats, residuals: Floats) -> Floats:
    """[G] residuals [B] by cell of their confidence [B]."""
    places = np.clip(confidence * CELLS - 0.5, 0.0, CELLS - 1.0)
    lower = np.minimum(places.astype(np.int64), CELLS - 2)
    share = places - lower
    tables = [
        np.bincount(cells, weights=residuals * shares, minlength=CELLS)
        for cells, shares in ((lower, 1.0 - share), (lower + 1, share))
    ]
    return np.asarray(tables[0] + tables[1], dtype=np.float64)


def smooth_ece(sums: Sums) -> float:
    """The width that equals the error at that width; below a cell it is a cell."""
    waves = dct(sums["residuals"] / sums["rows"], norm="ortho")
    damping = -0.5 * (np.pi * np.arange(CELLS)) ** 2

    def excess(width: float) -> float:
        return float(np.abs(idct(waves * np.exp(damping * width**2), norm="ortho")).sum()) - width

    narrow = 1.0 / CELLS
    if excess(narrow) <= 0.0:
        return narrow + excess(narrow)
    wide = 1.0
    for _ in range(HALVINGS):
        middle = (narrow + wide) / 2
        narrow, wide = (middle, wide) if excess(middle) > 0.0 else (narrow, middle)
    return (narrow + wide) / 2


GROUP = Group(
    needs=("labels",),
    sums=_sums,
    measures={
        "smooth_ece": Measure(
            Facts(
                "share",
                "the s at which the integral over t of |mean_i (hit_i - conf_i) K_s(conf_i, t)| is s",
                "Błasiok & Nakkiran 2023, smECE",
                ("labels",),
            ),
            smooth_ece,
        )
    },
)
