"""Flips are rows where student and reference differ in being right. The reference is the teacher, or a baseline run."""

from typing import Any

import numpy as np
from scipy.special import bdtr

from kdcache.measures.facts import Facts, Group, Measure, Need, Sums, Value, mean_of
from kdcache.measures.rows import Ints, Rows, count_of


def mcnemar(sums: Sums) -> float:
    """Two-sided exact p: lost and won rows are equally likely under the null hypothesis. 1 without flips.

    The distribution is symmetric, so both tails are twice the lower one. `scipy.stats` has the same as `binomtest`, and
    takes .6 s to import."""
    lost, won = int(sums["lost"]), int(sums["won"])
    return min(1.0, 2.0 * float(bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0


def flip_sums(decisions: Ints, reference: Ints, hard: Ints) -> dict[str, Any]:
    """The sums of [B] decisions, of a reference's decisions, and hard labels, -1 for none."""
    labelled = hard >= 0
    right, hits = (reference == hard) & labelled, (decisions == hard) & labelled
    return {
        "rows": count_of(labelled.sum()),
        "right": count_of(np.sum(right)),
        "lost": count_of(np.sum(right & ~hits)),
        "won": count_of(np.sum(hits & ~right)),
    }


def flips_from(reference: Need) -> Group:
    """The group that compares with "teacher" or "baseline"; its measures carry that name."""

    def sums(rows: Rows) -> dict[str, Any]:
        return flip_sums(rows.top_q, rows.top_p if reference == "teacher" else rows.baseline, rows.hard)

    def facts(unit: str, formula: str, source: str = "standard") -> Facts:
        return Facts(unit, formula, source, ("labels", reference))

    return Group(
        needs=("labels", reference),
        sums=sums,
        measures={
            f"{reference}_accuracy": Measure(
                facts("share", f"mean 1{{the {reference}'s decision = y}}"), mean_of("right")
            ),
            f"lost_to_{reference}": Measure(
                facts("share", f"mean 1{{{reference} right, student wrong}}"), mean_of("lost")
            ),
            f"won_from_{reference}": Measure(
                facts("share", f"mean 1{{{reference} wrong, student right}}"), mean_of("won")
            ),
            f"mcnemar_{reference}": Measure(
                facts("p value", "two-sided binomial test of lost against won rows, share 1/2", "McNemar 1947, exact"),
                mcnemar,
            ),
        },
    )


TEACHER, BASELINE = flips_from("teacher"), flips_from("baseline")


def flips_from_baseline(decisions: Ints, baseline: Ints, hard: Ints) -> dict[str, Value]:
    """The measures of the group "baseline" of [N] decisions; none without a labelled row."""
    sums = flip_sums(decisions, baseline, hard)
    if not sums["rows"]:
        return {}
    return {
        name: Value(value=measure.value(sums), unit=measure.facts.unit, rows=int(sums["rows"]))
        for name, measure in BASELINE.measures.items()
    }
