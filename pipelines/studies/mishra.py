"""Mishra et al. 2023: a student distilled on mixed or cut pictures is calibrated, though its teacher is not."""

from typing import Any

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings
from kdcache.pipelines.studies.study import Study

ROWS, EPOCHS, VIEWS = 1_500, 80, 10
CUTOUT = "torchvision.transforms.v2:RandomErasing"
DRAWN: dict[str, dict[str, Any]] = {
    "mixup": {"mix": "mixup"},
    "cutmix": {"mix": "cutmix"},
    "cutout": {"transform": CUTOUT, "transform_set": {"p": 1.0, "scale": [0.1, 0.3], "ratio": [1.0, 1.0]}},
}
FIGURES = {"mixup": ".108 to .049", "cutmix": ".108 to .046", "cutout": ""}
CLAIMS = {
    "kd": Claim("plain KD is better calibrated than labels alone", paper="ECE .108 against .121"),
    **{
        f"{name}_ece": Claim(f"{name} lowers the student's ECE under plain KD's", paper=FIGURES[name]) for name in DRAWN
    },
    **{
        f"{name}_accuracy": Claim(f"{name} does not lower accuracy", direction="not below", margin=0.005)
        for name in DRAWN
    },
}


def run(bench: Bench) -> Findings:
    teacher = bench.teacher(bench.mlp(512, depth=2), rows=ROWS, epochs=EPOCHS)
    part, halves = bench.data.part(ROWS), {"set": {"w_ce": 0.5, "w_kd": 0.5}, "temperature": 4.0}
    arms: dict[str, dict[str, Any]] = {"alone": {}, "kd": {**halves, "store": bench.store(teacher, part)}}
    for name, drawn in DRAWN.items():
        store = bench.store(teacher, part, views=str(VIEWS), **drawn)
        arms[f"kd, {name}"] = {**halves, "store": store, **{key: drawn[key] for key in drawn if key != "mix"}}
    students: Arms = arms
    runs = bench.students(students, bench.mlp(256), rows=ROWS, epochs=EPOCHS)
    accuracy, error = bench.validated(runs), bench.validated(runs, "ece")
    return Findings(
        arms={arm: {"accuracy": accuracy[arm], "ece": error[arm]} for arm in runs},
        evidence={
            "kd": error["alone"] - error["kd"],
            **{f"{name}_ece": error["kd"] - error[f"kd, {name}"] for name in DRAWN},
            **{f"{name}_accuracy": accuracy[f"kd, {name}"] - accuracy["kd"] for name in DRAWN},
        },
    )


STUDY = Study(
    name="mishra",
    row=11,
    title="Distilling Calibrated Student from an Uncalibrated Teacher",
    paper="Mishra et al. 2023, arXiv 2302.11472",
    question="KD on mixed pictures calibrates the student and costs no accuracy",
    claims=CLAIMS,
    differences=(
        "The paper distils a WideResNet into a ShuffleNet on CIFAR; here perceptrons on 1,500 rows of {data}, "
        "which teacher and student both see.",
        "One teacher stands for all: intervals are over students' seeds.",
        "Ten mixed views of each row are stored and seen in turn; the paper mixes anew in every epoch.",
    ),
    run=run,
    minutes=4,
    draws=True,
    baseline="kd",
    measure="ece",
    why={
        "kd": "The teacher learned from the same 1,500 rows, and its answers there may be as sure as labels are; half "
        "of the loss copies them. The paper's gain of plain KD is .013.",
    },
)
