"""Ganta et al. 2022: assistants of several sizes between teacher and student, weighted on held-out rows."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from kdcache.pipelines.studies.bench import Arms, Bench, BySeed
from kdcache.pipelines.studies.claims import Claim, Findings, Values
from kdcache.pipelines.studies.study import Study
from kdcache.store.store import Store

ROWS, EPOCHS, HELD_OUT = 500, 80, 5_000
WIDTHS = (16, 48, 128)
CLAIMS = {
    "direct": Claim("weighted assistants are above the teacher itself"),
    "mean": Claim("weighted assistants are above their plain mean"),
    "single": Claim("their plain mean is above the best single assistant"),
    "held_out": Claim("the weights raise the assistants' own accuracy on held-out rows"),
}


def run(bench: Bench) -> Findings:
    part, held_out = bench.data.part(ROWS), bench.data.held_out(HELD_OUT)
    teachers = bench.teachers(bench.mlp(384, depth=2), 20_000, epochs=8)
    direct = bench.stores(teachers, part)
    stores, answers = [], []
    for width in WIDTHS:
        assistant: Arms = {"assistant": {"store": direct}}
        runs = bench.students(assistant, bench.mlp(width), ROWS, EPOCHS)["assistant"]
        assistants = BySeed(f"run:{run}@last" for run in runs)
        stores.append(bench.stores(assistants, part))
        answers.append(bench.stores(assistants, held_out))
    fits = [
        bench.known(partial(fit_weights, stores_of_seed, seed), np.ones(len(WIDTHS) + 1))
        for seed, stores_of_seed in zip(bench.seeds, zip(*answers, strict=True), strict=True)
    ]
    weights = BySeed(tuple(round(float(weight), 4) for weight in fit[:-1]) for fit in fits)
    arms: Arms = {
        "alone": {},
        "direct": {"store": direct},
        **{f"assistant {width}": {"store": store} for width, store in zip(WIDTHS, stores, strict=True)},
        "mean": {"store": tuple(stores)},
        "weighted": {"store": tuple(stores), "ensemble_weights": weights},
    }
    accuracy = bench.validated(bench.students(arms, bench.mlp(8), ROWS, EPOCHS))
    best = np.max([accuracy[f"assistant {width}"] for width in WIDTHS], axis=0)
    return Findings(
        arms={arm: {"accuracy": values} for arm, values in accuracy.items()},
        evidence={
            "direct": accuracy["weighted"] - accuracy["direct"],
            "mean": accuracy["weighted"] - accuracy["mean"],
            "single": accuracy["mean"] - best,
            "held_out": np.array([fit[-1] for fit in fits]),
        },
    )


def fit_weights(stores: Sequence[str], seed: int) -> Values:
    """Weights of stores of held-out rows that sum to 1, and by how much they raise the mean's accuracy there: by
    differential evolution (Storn & Price 1997), as the paper does."""
    from scipy.optimize import differential_evolution

    opened = [Store.open(store) for store in stores]
    labels = opened[0].labels
    positions = np.arange(opened[0].rows)
    probabilities = np.stack([np.exp(store.read(0, positions).log_probs(1.0)) for store in opened])

    def error(weights: Values) -> float:
        return -float(np.mean(np.tensordot(weights, probabilities, 1).argmax(axis=-1) == labels))

    fit = differential_evolution(error, [(0.0, 1.0)] * len(stores), seed=seed, maxiter=40, tol=1e-7)
    return np.array([*(fit.x / fit.x.sum()), error(np.ones(len(stores))) - fit.fun])


STUDY = Study(
    name="ganta",
    row=13,
    title="Knowledge Distillation via Weighted Ensemble of Teaching Assistants",
    paper="Ganta et al. 2022, arXiv 2206.12005",
    question="weighted assistants teach better than one, and than the teacher",
    claims=CLAIMS,
    differences=(
        "The paper's networks are plain convolutional ones on CIFAR-10; here perceptrons on Fashion-MNIST at 14 x 14, "
        "of which the teacher saw 20,000 rows and all others 500.",
    ),
    run=run,
    minutes=5,
    baseline="direct",
    own_teacher="untrained",
)
