"""Menon et al. 2020: class probabilities teach with less variance than labels drawn from them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from kdcache.pipelines.studies.bench import Arms, Bench, BySeed
from kdcache.pipelines.studies.claims import Claim, Findings, Values, accuracies
from kdcache.pipelines.studies.study import Study
from kdcache.store.store import Store

SIZES = (20, 50, 100, 300, 1_000)
FEW = 100  # rows that the students of worse teachers see
WORSE = tuple((temperature, noise) for temperature in (0.2, 0.5, 1.0, 2.0, 5.0) for noise in (0.0, 1.0))
TEACHER = "kdcache.pipelines.studies.mixture:bayes"
FULL_BATCH: dict[str, Any] = {"batch_size": 1024, "lr": 0.5, "weight_decay": 2e-4}
KD = {"set": {"w_ce": 0.0, "w_kd": 1.0}, "temperature": 1.0}
CLAIMS = {
    "variance": Claim("a row's loss has less variance under p* than under a label: 1 less the ratio", points=False),
    "bayes": Claim("20 rows: the Bayes teacher's student is above that of labels"),
    "few": Claim("the gain falls with more rows: points lost a doubling"),
    "double": Claim(
        "100 rows: double distillation from p* is not below plain KD from it", direction="not below", margin=0.005
    ),
    "follows": Claim("a student's NLL follows its teacher's squared error to p* (Spearman's rho)", points=False),
    "not_accuracy": Claim("it follows that more than the teacher's top-1 error", points=False),
}


def run(bench: Bench) -> Findings:
    student = bench.mlp(1, depth=0)
    drawn = {rows: {"count": rows, "seed": BySeed(bench.seeds)} for rows in SIZES}
    accuracy: dict[str, Values] = {}
    for rows in SIZES:
        exact = bench.stores(bench.same(TEACHER), drawn[rows])
        arms: Arms = {
            f"labels, {rows} rows": {},
            f"p*, {rows} rows": {**KD, "store": exact},
            f"double, {rows} rows": {"objective": "double-distillation", "store": exact},
        }
        runs = bench.students(arms, student, rows, epochs=300, data_set=drawn[rows], **FULL_BATCH)
        accuracy |= bench.validated(runs)
    gains = [accuracy[f"p*, {rows} rows"] - accuracy[f"labels, {rows} rows"] for rows in SIZES]
    taught, stores = {}, {}
    for temperature, noise in WORSE:
        name = f"p* + {noise:g}, T {temperature:g}"
        arguments = {"temperature": temperature, "noise": noise}
        stores[name] = bench.stores(bench.same(TEACHER), drawn[FEW], teacher_set=arguments, min_accuracy=0.0)
        taught[name] = {**KD, "store": stores[name]}
    likelihood = bench.validated(
        bench.students(taught, student, FEW, epochs=300, data_set=drawn[FEW], **FULL_BATCH), "nll"
    )
    truth = stores["p* + 0, T 1"]
    by_store, by_nll = list(zip(*stores.values(), strict=True)), np.transpose(list(likelihood.values()))
    orders = [
        bench.known(partial(correlations, some, one, nll), np.full(3, np.nan))
        for some, one, nll in zip(by_store, truth, by_nll, strict=True)
    ]
    by_error, by_accuracy, variance = np.transpose(orders)
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "variance": variance,
            "bayes": gains[0],
            "few": -bench.slope(SIZES, gains),
            "double": accuracy[f"double, {FEW} rows"] - accuracy[f"p*, {FEW} rows"],
            "follows": by_error,
            "not_accuracy": by_error - by_accuracy,
        },
    )


def correlations(stores: Sequence[str], truth: str, likelihood: Values) -> Values:
    """Spearman's rho of students' NLL over their teachers' squared error to p*, and over their rate of other top
    classes; and 1 less the variance of a fixed linear student's row losses under p* over that under labels."""
    exact = Store.open(truth)
    positions = np.arange(exact.rows)
    p = np.exp(exact.read(0, positions).log_probs(1.0))
    answers = [np.exp(Store.open(store).read(0, positions).log_probs(1.0)) for store in stores]
    errors = [float(np.square(q - p).sum(axis=-1).mean()) for q in answers]
    misses = [float((q.argmax(axis=-1) != p.argmax(axis=-1)).mean()) for q in answers]
    logits = np.random.default_rng(0).standard_normal(p.shape)
    losses = np.log(np.exp(logits).sum(axis=-1, keepdims=True)) - logits
    of_labels = np.take_along_axis(losses, np.asarray(exact.labels)[:, None].astype(np.int64), axis=-1)[:, 0]
    ratio = (p * losses).sum(axis=-1).var() / of_labels.var()
    return np.array([spearmanr(likelihood, errors)[0], spearmanr(likelihood, misses)[0], 1.0 - ratio])


STUDY = Study(
    name="menon",
    row=12,
    title="Why distillation helps: a statistical perspective",
    paper="Menon et al. 2020, arXiv 2005.10419",
    question="class probabilities teach with less variance than labels; a teacher's error to them tells its worth",
    claims=CLAIMS,
    differences=(
        "The paper adds CIFAR-100, AmazonCat and retrieval; here its Gaussian setting alone, with four classes in ten "
        "dimensions and linear students.",
        "Double distillation is for retrieval among many classes in the paper; here its loss alone, on four.",
        "Worse teachers are p* at another temperature, or with fixed random waves added to its logits.",
        "The variance is that of the row losses of one fixed random student.",
    ),
    run=run,
    minutes=4,
    baseline="labels, 20 rows",
    own_teacher="none",
    own_student=False,
    own_sizes=False,
    data="kdcache.pipelines.studies.mixture:gaussians",
    train_set={"count": 1_000, "seed": 0},
    val_set={"count": 10_000, "seed": 1},
)
