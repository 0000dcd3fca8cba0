"""Gao 2023, a survey: assistants, curricula, masked features and decoupling, each family against plain KD."""

from typing import Any

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.maps import DIFFERENCES, EPOCHS, ROWS, open_maps
from kdcache.pipelines.studies.study import Study

FAMILIES = {
    "assistant": "a teaching assistant (TAKD)",
    "curriculum": "a curriculum by the teacher's difficulty",
    "masked": "masked features (MGD) beside KD",
    "decoupled": "decoupling (DKD)",
}
CLAIMS = {name: Claim(f"{text} is above plain KD") for name, text in FAMILIES.items()}


def run(bench: Bench) -> Findings:
    maps = open_maps(bench)
    first: Arms = {"assistant": {"store": maps.store}}
    assistants = bench.students(first, bench.convnet(8), ROWS, EPOCHS, own=False, another=1)["assistant"]
    between = bench.stores(bench.as_teachers(assistants), bench.data.part(ROWS))
    taught: dict[str, Any] = {"store": maps.store}
    masked = {"mgd.w_ce": 0.0, "mgd.w_kd": 1.0, **{f"mgd.{key}": tap for key, tap in maps.taps.items()}}
    arms: Arms = {
        "alone": {},
        "kd": taught,
        "assistant": {"store": between},
        "curriculum": {**taught, "curriculum": str(max(bench.epochs(EPOCHS) // 2, 1))},
        "masked": {**taught, "objective": "kd+mgd", "set": masked},
        "decoupled": {**taught, "objective": "dkd"},
    }
    accuracy = bench.validated(bench.students(arms, maps.student, ROWS, EPOCHS))
    return Findings(
        arms=accuracies(accuracy),
        evidence={name: accuracy[name] - accuracy["kd"] for name in FAMILIES},
    )


STUDY = Study(
    name="gao",
    row=16,
    title="A Survey on Recent Teacher-student Learning Studies",
    paper="Gao 2023, arXiv 2304.04615",
    question="each family of methods is above plain KD",
    claims=CLAIMS,
    differences=(
        *DIFFERENCES,
        "The survey has no experiments: each family stands for itself by one method, at its published settings but "
        "for MGD's weight.",
    ),
    run=run,
    minutes=4,
    baseline="kd",
    why={
        "assistant": "The assistant learns from the same 1,000 rows as the student, and knows them as well as the "
        "teacher's answers already tell; there is no gap for it to bridge.",
        "curriculum": "For half of the epochs the student sees only a part of 1,000 rows, the easiest ones, and has "
        "fewer steps left for the others: rows, not their order, are what it lacks.",
        "masked": "Beside KD the masked features add .1 points, which eight seeds do not tell from none.",
        "decoupled": "DKD keeps its published weights, tuned for 100 classes and deep networks; with 10 classes its "
        "second term, of all other classes, may outweigh the rest.",
    },
)
