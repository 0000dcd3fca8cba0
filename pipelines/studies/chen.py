"""Chen et al. 2022: SimKD answers through the teacher's classifier, and learns its last map alone."""

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.maps import DIFFERENCES, EPOCHS, POOLED, ROWS, open_maps
from kdcache.pipelines.studies.study import Study

CLAIMS = {
    "simkd": Claim("SimKD is above KD"),
    "labels": Claim("SimKD, which sees no label, is above labels alone"),
    "srrl": Claim("SimKD is above SRRL, which softens the same idea"),
}


def run(bench: Bench) -> Findings:
    maps = open_maps(bench)
    taught = {"store": (maps.store,)}
    taps = {} if bench.settings.teacher else {"teacher_tap": POOLED}
    taps |= {} if bench.settings.student else {"student_tap": POOLED}
    arms: Arms = {
        "alone": {},
        "kd": taught,
        "srrl": {**taught, "objective": "srrl"},
        "simkd": {**taught, "objective": "simkd", "set": taps},
    }
    accuracy = bench.validated(bench.students(arms, maps.student, rows=ROWS, epochs=EPOCHS))
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "simkd": accuracy["simkd"] - accuracy["kd"],
            "labels": accuracy["simkd"] - accuracy["alone"],
            "srrl": accuracy["simkd"] - accuracy["srrl"],
        },
    )


STUDY = Study(
    name="chen",
    row=7,
    title="Knowledge Distillation with the Reused Teacher Classifier",
    paper="Chen et al. 2022, arXiv 2203.14001",
    question="a student that answers through the teacher's classifier is above KD",
    claims=CLAIMS,
    differences=(*DIFFERENCES, "The projector's middle is 16 channels wide, where the paper's is 64 and more."),
    run=run,
    minutes=2,
    baseline="alone",
    why={
        "simkd": "KD gives a row two sources, its label and the teacher's answer; SimKD gives it the teacher's last "
        "map alone, which a student of four channels must match through a projector in 1,200 steps. The paper's "
        "students are wider beside their teachers than a quarter, and learn far longer.",
        "srrl": "SRRL ends below labels alone here, and varies more over seeds than any other arm: its mean is under "
        "SimKD's by 1.6 points, which eight seeds do not tell from none.",
    },
)
