"""smooth_ece: an error without bins, against a sum over all rows and against relplot."""

import numpy as np
import pytest
import relplot
from scipy.optimize import brentq

from tests.kits.measures import figures, logs, random_case


def test_rows_of_one_confidence_by_hand() -> None:
    """All residuals lie at one place, so smoothing keeps their sum: |3 / 4 - .6| at any width."""
    logits = logs([[0.6, 0.4]] * 4)
    assert figures(logits, hard=[0, 0, 0, 1])["smooth_ece"] == pytest.approx(0.15, abs=1e-7)


def test_a_calibrated_student_has_almost_none() -> None:
    """Two rows of .75 and two of .5, hits as many as foretold: the residuals cancel where they lie."""
    logits = logs([[0.75, 0.25]] * 4 + [[0.5, 0.5]] * 2)
    assert figures(logits, hard=[0, 0, 0, 1, 0, 1])["smooth_ece"] < 1 / 4096


def reference(confidence: np.ndarray, hits: np.ndarray) -> float:
    """The same by the definition: mirror images for the reflected kernel, a fine grid for the integral."""
    t = np.linspace(0, 1, 4001)[:, None]
    images = [2 * n + sign * confidence for n in (-2, -1, 0, 1, 2) for sign in (1, -1)]

    def error(width: float) -> float:
        kernel = sum(np.exp(-((t - image) ** 2) / (2 * width**2)) for image in images) / (width * np.sqrt(2 * np.pi))
        return float(np.trapezoid(np.abs((kernel * (hits - confidence)).mean(axis=1)), t[:, 0]))

    return float(brentq(lambda width: error(width) - width, 0.003, 1.0))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_definition_and_relplot_agree(seed: int) -> None:
    case = random_case(400, seed=seed)
    q = case.q[case.known]
    confidence, hits = q.max(axis=1), (q.argmax(axis=1) == case.y).astype(float)
    value = figures(case.logits, hard=case.hard)["smooth_ece"]
    assert value > 0.02
    assert value == pytest.approx(reference(confidence, hits), abs=1e-5)
    assert value == pytest.approx(relplot.smECE(confidence, hits), abs=2e-3)  # its width is a multiple of 1 / 1024
