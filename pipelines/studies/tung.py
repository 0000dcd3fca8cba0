"""Tung & Mori 2019: pairs of rows that are alike for the teacher are to be alike for the student."""

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.maps import DIFFERENCES, EPOCHS, ROWS, open_maps
from kdcache.pipelines.studies.study import Study

GAMMA = 100.0  # 3000 is for wide networks; it destroys the training of four channels
CLAIMS = {
    "sp": Claim("SP is above labels alone"),
    "both": Claim("SP beside KD is above KD"),
}


def run(bench: Bench) -> Findings:
    maps = open_maps(bench)
    taught = {"store": (maps.store,)}
    arms: Arms = {
        "alone": {},
        "sp": {**taught, "objective": "sp", "set": {"w_kd": GAMMA, **maps.taps}},
        "kd": taught,
        "kd + sp": {
            **taught,
            "objective": "kd+sp",
            "set": {"sp.w_ce": 0.0, "sp.w_kd": GAMMA, **{f"sp.{key}": tap for key, tap in maps.taps.items()}},
        },
    }
    accuracy = bench.validated(bench.students(arms, maps.student, rows=ROWS, epochs=EPOCHS))
    return Findings(
        arms=accuracies(accuracy),
        evidence={"sp": accuracy["sp"] - accuracy["alone"], "both": accuracy["kd + sp"] - accuracy["kd"]},
    )


STUDY = Study(
    name="tung",
    row=4,
    title="Similarity-Preserving Knowledge Distillation",
    paper="Tung & Mori 2019, arXiv 1907.09682",
    question="similarities between rows teach more than labels alone",
    claims=CLAIMS,
    differences=(
        *DIFFERENCES,
        "gamma is 100; the paper's 3000, for wide networks on CIFAR, destroys the training of students this small.",
    ),
    run=run,
    minutes=4,
    baseline="alone",
    why={
        "sp": "The weight of SP is a thirtieth of the published one, at which training broke in trials; in "
        "1,200 steps of a student of four channels the Gram matrices of batches of 64 add nothing that "
        "shows beside labels.",
        "both": "The gain of .5 points is smaller than what eight seeds of such small students vary by.",
    },
)
