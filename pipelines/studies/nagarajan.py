"""Nagarajan et al. 2023: students exaggerate: surer than a sure teacher, in more doubt than a doubtful one."""

import numpy as np

from kdcache.pipelines.studies.bench import Arms, Bench, Measures
from kdcache.pipelines.studies.claims import Claim, Findings, Values
from kdcache.pipelines.studies.study import Study

ROWS, EPOCHS = 3_000, 30
CLAIMS = {
    "self_test": Claim("slope of log-odds, a student of the teacher's size, test rows: above 1", points=False),
    "self_train": Claim("the same on train rows: above 1", paper="13 of 18 settings", points=False),
    "small_test": Claim("slope, a smaller student, test rows: above 1", paper="18 of 18 settings", points=False),
    "small_train": Claim("the same on train rows: above 1", points=False),
    "labels": Claim("KD's slope is above that of a student of labels alone, test rows", points=False),
    "filter": Claim(
        "linear regression: the student is the teacher's filter applied twice (largest error)",
        direction="same",
        margin=1e-9,
        points=False,
    ),
    "switch": Claim("KD first and labels from half-way on is above KD"),
}


def run(bench: Bench) -> Findings:
    slopes: dict[str, Values] = {}
    arms: Measures = {}
    for label, teacher, student in (("self", bench.mlp(64), bench.mlp(64)), ("small", bench.mlp(512), bench.mlp(12))):
        teachers = bench.teachers(teacher, ROWS, epochs=EPOCHS)
        train, test = (bench.stores(teachers, rows) for rows in (bench.data.part(ROWS), bench.data.test_set))
        whole = {"store": train, "set": {"w_ce": 0.0, "w_kd": 1.0}}
        half = bench.epochs(EPOCHS) // 2
        students: Arms = {
            f"{label}: alone": {},
            f"{label}: kd": whole,
            f"{label}: switch": {**whole, "then": (f"{half}:kd,w_ce=1,w_kd=0",)},
        }
        runs = bench.students(students, student, rows=ROWS, epochs=EPOCHS)
        arms |= bench.compared(runs, test, ("accuracy", "agreement", "deviation_slope"))
        seen = bench.compared({"kd": runs[f"{label}: kd"]}, train, ("deviation_slope",), rows=bench.data.part(ROWS))
        slopes |= {
            f"{label}_test": arms[f"{label}: kd"]["deviation_slope"],
            f"{label}_train": seen["kd"]["deviation_slope"],
        }
    return Findings(
        arms=arms,
        evidence={
            **{key: slope - 1.0 for key, slope in slopes.items()},
            "labels": slopes["self_test"] - arms["self: alone"]["deviation_slope"],
            "filter": np.array([filter_error(seed) for seed in bench.seeds]),
            "switch": arms["self: switch"]["accuracy"] - arms["self: kd"]["accuracy"],
        },
        notes=("the slope is that of least squares; rows whose log-odds are cut at 1e-6 count as they are cut",),
    )


def filter_error(seed: int, rows: int = 200, width: int = 50, steps: int = 400, rate: float = 0.5) -> float:
    """The largest difference between a self-distilled linear regression by gradient descent and A^2 w, with w the least
    squares solution and A the filter 1 - (1 - rate lambda)^steps of each eigenvalue (their section 5)."""
    generator = np.random.default_rng(seed)
    eigenvalues = np.logspace(0, -3, width)
    basis = np.linalg.qr(generator.standard_normal((rows, width)))[0]
    inputs = basis * np.sqrt(eigenvalues * rows)
    targets = inputs @ generator.standard_normal(width) + 0.5 * generator.standard_normal(rows)

    def descend(y: Values) -> Values:
        weights = np.zeros(width)
        for _ in range(steps):
            weights -= rate * inputs.T @ (inputs @ weights - y) / rows
        return weights

    student = descend(inputs @ descend(targets))
    least_squares = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return float(np.abs(student - (1 - (1 - rate * eigenvalues) ** steps) ** 2 * least_squares).max())


STUDY = Study(
    name="nagarajan",
    row=17,
    title="On student-teacher deviations in distillation: does it pay to disobey?",
    paper="Nagarajan et al. 2023, arXiv 2301.12923",
    question="students exaggerate their teacher's confidence, and may profit from it",
    claims=CLAIMS,
    differences=(
        "The paper's networks are ResNets, MobileNets and RoBERTa on CIFAR, TinyImageNet, ImageNet and GLUE; here "
        "perceptrons on 3,000 rows of {data}.",
        "The paper looks at plots of single runs; here the slope is fitted by least squares, over seeds of both.",
    ),
    run=run,
    minutes=4,
    baseline="self: alone",
    own_teacher="none",
    own_student=False,
    why={
        "labels": "A student of the teacher's kind and the same labels is surer of itself than its teacher on rows "
        "where both are right: it exaggerates by fitting labels, which has nothing to do with the "
        "teacher.",
    },
)
