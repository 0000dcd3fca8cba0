"""All measures by name: those of rows lie in groups of common sums, the others have a file of their own."""

from kdcache.measures import (
    accuracy,
    agreement,
    attention,
    calibration,
    cka,
    cost,
    decisions,
    deviation,
    divergence,
    flips,
    likelihood,
    sharpness,
    smooth_ece,
    teacher,
    two_results,
)
from kdcache.measures.facts import Facts, Group, Measure

GROUPS: dict[str, Group] = {
    "accuracy": accuracy.GROUP,
    "likelihood": likelihood.GROUP,
    "calibration": calibration.GROUP,
    "smooth_ece": smooth_ece.GROUP,
    "agreement": agreement.GROUP,
    "divergence": divergence.GROUP,
    "deviation": deviation.GROUP,
    "decisions": decisions.GROUP,
    "flips from the teacher": flips.TEACHER,
    "flips from the baseline": flips.BASELINE,
    "teacher": teacher.GROUP,
    "teacher's label rank": teacher.RANK,
}
ROW_MEASURES: dict[str, Measure] = {
    name: measure for group in GROUPS.values() for name, measure in group.measures.items()
}
"""Measures that `tally.Tally` counts."""

MEASURES: dict[str, Facts] = {
    **{name: measure.facts for name, measure in ROW_MEASURES.items()},
    **two_results.FACTS,
    **cka.FACTS,
    **attention.FACTS,
    **sharpness.FACTS,
    **cost.FACTS,
}
"""The facts of every measure."""
