"""Wang et al. 2022: a teacher half-way through its training teaches as well as the last one, several do better."""

from typing import Any

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.study import Study

EPOCHS, ROWS = 20, 500
KEPT, JOINED = (4, 8, 12, 16), (8, 12, 16)
SCHEDULE: dict[str, Any] = {"schedule": "step", "step_epochs": (6, 12, 16)}  # 60, 120 and 160 of the paper's 200
CLAIMS = {
    "as_good": Claim("12 of 20 epochs teach as well as all", direction="not below", margin=0.005),
    "better": Claim("12 of 20 epochs teach better than all"),
    "ensemble": Claim("the mean of three checkpoints teaches better than the last"),
    "teacher": Claim("the last checkpoint itself is above the one of 12 epochs"),
}


def run(bench: Bench) -> Findings:
    kept = {epoch: bench.epoch(epoch, EPOCHS) for epoch in KEPT}
    marks = tuple(sorted(set(kept.values())))
    last = bench.teachers(bench.mlp(384, depth=2), 10_000, EPOCHS, keep_epochs=marks, val_epochs=1, **SCHEDULE)
    teachers = {**{epoch: bench.checkpoints(last, mark) for epoch, mark in kept.items()}, EPOCHS: last}
    stores = {epoch: bench.stores(some, bench.data.part(ROWS)) for epoch, some in teachers.items()}
    halves = {"set": {"w_ce": 0.5, "w_kd": 0.5}, "temperature": 5.0}
    arms: Arms = {
        "alone": {},
        **{f"epoch {epoch}": {**halves, "store": store} for epoch, store in stores.items()},
        "mean of three": {**halves, "store": tuple(stores[epoch] for epoch in JOINED), "combine": "logits"},
    }
    accuracy = bench.validated(bench.students(arms, bench.mlp(32), rows=ROWS, epochs=80))
    of_teacher = {
        epoch: bench.validated({"teacher": bench.runs_of(last)}, epoch=mark)["teacher"]
        for epoch, mark in ((12, kept[12]), (EPOCHS, 0))
    }
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "as_good": accuracy["epoch 12"] - accuracy[f"epoch {EPOCHS}"],
            "better": accuracy["epoch 12"] - accuracy[f"epoch {EPOCHS}"],
            "ensemble": accuracy["mean of three"] - accuracy[f"epoch {EPOCHS}"],
            "teacher": of_teacher[EPOCHS] - of_teacher[12],
        },
    )


STUDY = Study(
    name="wang_checkpoints",
    row=15,
    title="Efficient Knowledge Distillation from Model Checkpoints",
    paper="Wang et al. 2022, arXiv 2210.06458",
    question="a half-way checkpoint teaches as well as the last, several better",
    claims=CLAIMS,
    differences=(
        "The paper distils ResNets on CIFAR and ImageNet; here a perceptron of 10,000 rows of {data} "
        "teaches a smaller one on 500 of these.",
        "The paper chooses its checkpoints by mutual information, estimated with a decoder; here they are fixed.",
    ),
    run=run,
    minutes=4,
    baseline="alone",
    own_teacher="untrained",
    why={
        "better": "Twelve epochs come within .1 points of twenty and not above: on 10,000 rows the last teacher is "
        "itself the better one by .2 points, and has not begun to fit its rows too closely.",
        "ensemble": "Checkpoints of one training on a falling rate are near to one another: their mean is between "
        "them, and so is its student.",
        "better, glyphs": "The teachers of twelve and of twenty epochs are alike (claim below), and so are their "
        "students: whatever epoch from the eighth on, they gain 12.5 points.",
        "ensemble, glyphs": "As above: three teachers that are alike have a mean that is like each of them.",
        "teacher, glyphs": "On a falling rate the network has all but settled at epoch 12.",
    },
)
