"""Tang et al. 2020: what part of a teacher's word helps? Pseudo-teachers each keep one part of it."""

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.study import Study

KEPT = (1, 2, 5)  # of the top-k pseudo-teachers
CLAIMS = {
    "kd": Claim("KD is above labels alone"),
    "pt": Claim("KD-pt, the label's probability alone, is above labels alone"),
    "pt_part": Claim("KD-pt is a part of KD: KD is above it"),
    "sim": Claim("KD-sim, classes that are alike by the teacher's classifier, is above labels alone"),
    "sim_part": Claim("KD-sim is a part of KD: KD is above it"),
    "few": Claim("more classes of the teacher's top k help more: accuracy a doubling of k"),
    "enough": Claim("5 classes suffice: KD-topk is not below KD", direction="not below", margin=0.01),
}


def run(bench: Bench) -> Findings:
    teacher = bench.teacher(bench.mlp(512, depth=2), rows=20_000, epochs=12)
    store = bench.store(teacher, bench.data.part(500), keep=("head",))
    taught = {"store": (store,), "temperature": 4.0}
    arms: Arms = {
        "alone": {},
        "label smoothing": {"objective": "label-smoothing"},
        "kd-sim": {**taught, "objective": "kd-sim", "temperature": None},
        "kd-pt": {**taught, "objective": "kd-pt"},
        **{f"kd-topk {k}": {**taught, "objective": "kd-topk", "set": {"k": k}} for k in KEPT},
        "kd": taught,
    }
    accuracy = bench.validated(bench.students(arms, bench.mlp(32), rows=500, epochs=80))
    best = [accuracy[f"kd-topk {k}"] for k in KEPT]
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "kd": accuracy["kd"] - accuracy["alone"],
            "pt": accuracy["kd-pt"] - accuracy["alone"],
            "pt_part": accuracy["kd"] - accuracy["kd-pt"],
            "sim": accuracy["kd-sim"] - accuracy["alone"],
            "sim_part": accuracy["kd"] - accuracy["kd-sim"],
            "few": bench.slope(KEPT, best),
            "enough": best[-1] - accuracy["kd"],
        },
    )


STUDY = Study(
    name="tang",
    row=18,
    title="Understanding and Improving Knowledge Distillation",
    paper="Tang et al. 2020, arXiv 2002.03532",
    question="pseudo-teachers recover part of KD each; few classes suffice",
    claims=CLAIMS,
    differences=(
        "The paper trains ResNets and WideResNets on CIFAR-100; here perceptrons on {data}.",
        "Teacher and student of the paper see the same rows; here the teacher saw 20,000 and students see 500.",
        "The paper's figures are of single networks; here intervals over seeds of students of one teacher.",
    ),
    run=run,
    minutes=2,
    fewest_classes=KEPT[-1] + 1,
    baseline="alone",
    why={
        "pt, glyphs": "The teacher's probability of the label only weighs rows; with 62 classes and few rows of each, "
        "to weigh the doubtful ones down leaves still less to learn from.",
        "sim, glyphs": "Classes that the classifier holds alike are smoothed by one rule for all rows of a class; "
        "which letters a row could be is not a matter of its class alone.",
        "enough, glyphs": "Five of 62 classes leave out much of what the teacher says at T = 4: each doubling of k "
        "adds four points.",
    },
)
