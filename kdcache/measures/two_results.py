"""Two measures are made of results on two sets of rows, or against two teachers."""

from kdcache.measures.facts import Facts

FACTS = {
    "affinity": Facts(
        "ratio",
        "accuracy on augmented rows / accuracy on clean rows",
        "Gontijo-Lopes et al. 2021; as a ratio, Guo et al. 2024",
        ("results",),
    ),
    "fidelity_gap": Facts(
        "share",
        "agreement with the own teacher - agreement with an independent teacher of the same recipe",
        "Stanton et al. 2021",
        ("results",),
    ),
}


def affinity(augmented_accuracy: float, clean_accuracy: float) -> float:
    """Affinity is the accuracy on augmented rows over that on clean rows; NaN where the latter is 0. Gontijo-Lopes et
    al. 2021.

    Examples:
        >>> from kdcache.measures.two_results import affinity
        >>> round(affinity(0.6, 0.8), 3)
        0.75
    """
    return augmented_accuracy / clean_accuracy if clean_accuracy else float("nan")


def fidelity_gap(own_agreement: float, independent_agreement: float) -> float:
    """The fidelity gap is the agreement with the student's own teacher, less that with an independent one: the part
    that is not common skill. Stanton et al. 2021.

    Examples:
        >>> from kdcache.measures.two_results import fidelity_gap
        >>> round(fidelity_gap(0.9, 0.7), 3)
        0.2
    """
    return own_agreement - independent_agreement
