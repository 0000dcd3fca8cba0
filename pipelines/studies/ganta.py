"""Ganta et al. 2022: assistants of several sizes between teacher and student, weighted on held-out rows."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from kdcache.pipelines.studies.bench import Arms, Bench, BySeed
from kdcache.pipelines.studies.claims import Claim, Findings, Values, accuracies
from kdcache.pipelines.studies.study import Study
from kdcache.store.store import Store

ROWS, EPOCHS, HELD_OUT = 500, 80, 5_000
WIDTHS = (16, 48, 128)
CLAIMS = {
    "direct": Claim("weighted assistants are above the teacher itself"),
    "mean": Claim("weighted assistants are above their plain mean"),
    "single": Claim("their plain mean is above the assistant that is best on held-out rows"),
    "held_out": Claim("the weights raise the assistants' own accuracy on held-out rows that they were not fitted on"),
}


def run(bench: Bench) -> Findings:
    part, held_out = bench.data.part(ROWS), bench.data.held_out(HELD_OUT)
    teachers = bench.teachers(bench.mlp(384, depth=2), 20_000, epochs=8)
    direct = bench.stores(teachers, part)
    stores, answers = [], []
    for width in WIDTHS:
        assistant: Arms = {"assistant": {"store": direct}}
        runs = bench.students(assistant, bench.mlp(width), ROWS, EPOCHS, own=False, another=1)["assistant"]
        assistants = bench.as_teachers(runs)
        stores.append(bench.stores(assistants, part))
        answers.append(bench.stores(assistants, held_out))
    fits = [
        bench.known(partial(fit_weights, stores_of_seed, seed), np.ones(len(WIDTHS) + 2))
        for seed, stores_of_seed in zip(bench.seeds, zip(*answers, strict=True), strict=True)
    ]
    weights = BySeed(tuple(round(float(weight), 4) for weight in fit[:-2]) for fit in fits)
    arms: Arms = {
        "alone": {},
        "direct": {"store": direct},
        **{f"assistant {width}": {"store": store} for width, store in zip(WIDTHS, stores, strict=True)},
        "mean": {"store": tuple(stores)},
        "weighted": {"store": tuple(stores), "ensemble_weights": weights},
    }
    accuracy = bench.validated(bench.students(arms, bench.mlp(8), ROWS, EPOCHS))
    singles = np.array([accuracy[f"assistant {width}"] for width in WIDTHS])
    best = singles[[int(fit[-1]) for fit in fits], np.arange(len(fits))]
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "direct": accuracy["weighted"] - accuracy["direct"],
            "mean": accuracy["weighted"] - accuracy["mean"],
            "single": accuracy["mean"] - best,
            "held_out": np.array([fit[-2] for fit in fits]),
        },
    )


def fit_weights(stores: Sequence[str], seed: int) -> Values:
    """Weights of stores that sum to 1, fitted on half of their held-out rows by differential evolution (Storn & Price
    1997), as the paper does; by how much they raise the mean's accuracy on the other half; and the number of the store
    that is the best on the first half."""
    from scipy.optimize import differential_evolution

    opened = [Store.open(store) for store in stores]
    labels = opened[0].labels
    positions = np.arange(opened[0].rows)
    probabilities = np.stack([np.exp(store.read(0, positions).log_probs(1.0)) for store in opened])

    half = len(labels) // 2  # positions are shuffled

    def error(weights: Values, rows: slice = slice(None, half)) -> float:
        return -float(np.mean(np.tensordot(weights, probabilities[:, rows], 1).argmax(axis=-1) == labels[rows]))

    fit = differential_evolution(error, [(0.0, 1.0)] * len(stores), seed=seed, maxiter=40, tol=1e-7)
    rest = slice(half, None)
    gain = error(np.ones(len(stores)), rest) - error(fit.x, rest)
    best = np.argmin([error(weights) for weights in np.eye(len(stores))])
    return np.array([*(fit.x / fit.x.sum()), gain, best])


STUDY = Study(
    name="ganta",
    row=13,
    title="Knowledge Distillation via Weighted Ensemble of Teaching Assistants",
    paper="Ganta et al. 2022, arXiv 2206.12005",
    question="weighted assistants teach better than one, and than the teacher",
    claims=CLAIMS,
    differences=(
        "The paper's networks are plain convolutional ones on CIFAR-10; here perceptrons on {data}, "
        "of which the teacher saw 20,000 rows and all others 500.",
    ),
    run=run,
    minutes=5,
    baseline="direct",
    own_teacher="untrained",
    why={
        "direct": "The teacher is far larger than its student and yet its best teacher: there is no gap of size "
        "for assistants to bridge, and each of them knows a little less than the teacher does.",
        "mean": "The assistants learned from one teacher and differ little: weights raise their accuracy on "
        "held-out rows by .3 points, of which a student of 8 units and 500 rows keeps a tenth.",
        "single": "Assistants that learned from one teacher err on much the same rows, so their mean has little to "
        "add to any of them.",
    },
)
