"""Wang et al. 2022: a policy chooses among kinds of knowledge, by the gain on held-out rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.pipelines.studies.bench import Arms, Bench, Network
from kdcache.pipelines.studies.claims import Claim, Findings, Values, accuracies
from kdcache.pipelines.studies.maps import DIFFERENCES, EPOCHS, ROWS, open_maps
from kdcache.pipelines.studies.study import Study
from kdcache.pipelines.studies.tung import GAMMA
from kdcache.training.run_folder import read_metrics

HELD_OUT = 500  # rows that the policy is rewarded by
Kinds = Mapping[str, tuple[str, dict[str, Any]]]
"""Kinds of knowledge by name: the objective of each, and its settings."""
CLAIMS = {
    "as_good": Claim("selected kinds are as good as all", direction="not below", margin=0.005),
    "better": Claim("selected kinds are above all"),
    "single": Claim("selected kinds are above the best single one"),
    "random": Claim("selected kinds are above kinds at random (control)"),
}


def run(bench: Bench) -> Findings:
    maps = open_maps(bench)
    kinds: Kinds = {
        "response": ("kd", {"w_kd": 1.0}),
        "feature": ("hint", {"w_kd": 1.0, "student_tap": "features", "teacher_tap": "features"}),
        "relation": ("sp", {"w_kd": GAMMA, **maps.taps}),
    }
    return findings_of(bench, maps.store, maps.student, kinds, rows=ROWS, epochs=EPOCHS)


def findings_of(
    bench: Bench, store: str, student: Network, kinds: Kinds, *, rows: int, epochs: int, **settings: Any
) -> Findings:
    """Train students alone, by each kind of knowledge, by all of them, by kinds at random and by those that a policy
    selects. The first kind counts the hard labels; settings are those of every student's training."""
    every = {f"{term}.{key}": value for term, given in kinds.values() for key, value in given.items()}
    terms = [term for term, _ in kinds.values()]
    joint = {"store": (store,), "objective": "+".join(terms), "set": {f"{terms[0]}.w_ce": 1.0, **every}}
    chosen = {**joint, "select_set": bench.data.held_out(HELD_OUT)}
    arms: Arms = {
        "alone": {},
        **{
            arm: {"store": (store,), "objective": term, "set": {"w_ce": 1.0, **given}}
            for arm, (term, given) in kinds.items()
        },
        "all": joint,
        "random": {**chosen, "select_rate": 0.0},
        "selected": chosen,
    }
    runs = bench.students(arms, student, rows=rows, epochs=epochs, **settings)
    accuracy = bench.validated(runs)
    best = max(kinds, key=lambda arm: accuracy[arm].mean())
    shares = bench.known(lambda: _shares(runs["selected"], terms), np.full(len(kinds), np.nan))
    texts = [f"{arm} in {100 * share:.0f} %" for arm, share in zip(kinds, shares, strict=True)]
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "as_good": accuracy["selected"] - accuracy["all"],
            "better": accuracy["selected"] - accuracy["all"],
            "single": accuracy["selected"] - accuracy[best],
            "random": accuracy["selected"] - accuracy["random"],
        },
        notes=(
            f"the best single kind, by its mean over the seeds, is {best}",
            f"of the steps of selected students the kinds were on: {', '.join(texts)}",
        ),
    )


def _shares(runs: tuple[str, ...], terms: Sequence[str]) -> Values:
    """The share of steps in which each term was on, over all epochs and runs."""
    lines = [line for run in runs for line in read_metrics(Path(run))]
    return np.asarray(np.mean([[line[f"selected.{term}"] for term in terms] for line in lines], axis=0))


STUDY = Study(
    name="wang_selection",
    row=9,
    title="Knowledge Distillation for Pre-trained Language Models via Knowledge Selection",
    paper="Wang et al. 2022, arXiv 2302.00444",
    question="kinds of knowledge that a policy selects teach more than all of them, or any one",
    claims=CLAIMS,
    differences=(
        *DIFFERENCES,
        "The paper distils pre-trained language models on text; here small convolutional networks see pictures, and no "
        "network is pre-trained.",
        "Of the paper's text the abstract was at hand: the policy (REINFORCE with a running mean as critic, one "
        "preference a kind, no look at the student's state), its rate, its choice at each tenth step and its reward, "
        "the drop of the loss on 500 held-out rows, are ours.",
        "The kinds are three, at weights that are not tuned: KD (1, T 4), a hint of pooled features (1) and SP (100).",
        "The policy sees 500 labelled rows that other arms do not see. Kinds at random, chosen at the same steps, are "
        "our control.",
    ),
    run=run,
    minutes=4,
    baseline="alone",
    why={
        "as_good": "KD alone is the best kind and as good as all three; whatever switches it off for some steps loses "
        "a little of it. The interval ends .07 points beyond the margin.",
        "better": "The drop of the loss on 500 rows over ten steps may be mostly noise in a training of 1,200 steps: "
        "KD, the best kind, was on in 45 % of the steps, less often than the others.",
        "single": "The other two kinds add nothing to KD here (SP alone is below labels), so there is nothing to "
        "select but KD.",
        "random": "As above: some 120 rewards do not tell three kinds apart.",
    },
)
