"""Cho & Hariharan 2019: bigger teachers are not better ones, and stopping distillation or the teacher early helps."""

from typing import Any

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings, accuracies
from kdcache.pipelines.studies.study import Study

ROWS, EPOCHS = 3_000, 30
WIDTHS = (16, 128, 512)
LONG: dict[str, Any] = {"epochs": 60, "schedule": "step", "step_epochs": (18,)}  # 200 and 60 epochs of the paper
SHORT: dict[str, Any] = {"epochs": 15, "schedule": "step", "step_epochs": (5,)}  # 50 and 15 of the paper
CLAIMS = {
    "size": Claim("the biggest teacher is not the best: the middle one's student is above its student"),
    "eskd": Claim("ESKD is above KD from the biggest teacher"),
    "eskd_small": Claim("ESKD is above KD from the smallest teacher"),
    "short": Claim("a short schedule of the biggest teacher makes a better student than the long one"),
    "better_teacher": Claim("the biggest teacher itself is above the middle one"),
}


def run(bench: Bench) -> Findings:
    arms: dict[str, dict[str, object]] = {"alone": {}}
    accuracy = {}
    for width in WIDTHS:
        teachers = bench.teachers(bench.mlp(width, depth=2), ROWS, **LONG)
        accuracy[f"teacher {width}"] = bench.validated({"teacher": bench.runs_of(teachers)})["teacher"]
        stores = bench.stores(teachers, bench.data.part(ROWS))
        arms |= {
            f"kd {width}": {"store": stores},
            f"eskd {width}": {"store": stores, "kd_epochs": bench.epochs(EPOCHS) // 2},
        }
    teachers = bench.teachers(bench.mlp(WIDTHS[-1], depth=2), ROWS, **SHORT)
    arms["kd short"] = {"store": bench.stores(teachers, bench.data.part(ROWS))}
    students: Arms = arms
    accuracy |= bench.validated(bench.students(students, bench.mlp(16), rows=ROWS, epochs=EPOCHS))
    small, middle, big = WIDTHS
    return Findings(
        arms=accuracies(accuracy),
        evidence={
            "size": accuracy[f"kd {middle}"] - accuracy[f"kd {big}"],
            "eskd": accuracy[f"eskd {big}"] - accuracy[f"kd {big}"],
            "eskd_small": accuracy[f"eskd {small}"] - accuracy[f"kd {small}"],
            "short": accuracy["kd short"] - accuracy[f"kd {big}"],
            "better_teacher": accuracy[f"teacher {big}"] - accuracy[f"teacher {middle}"],
        },
    )


STUDY = Study(
    name="cho",
    row=2,
    title="On the Efficacy of Knowledge Distillation",
    paper="Cho & Hariharan 2019, arXiv 1910.01348",
    question="bigger teachers are no better; stop distillation, or the teacher, early",
    claims=CLAIMS,
    differences=(
        "The paper distils ResNets on CIFAR-10 and ImageNet; here perceptrons of two hidden layers teach one of 16 "
        "units on {data}, both on the same 3,000 rows.",
        "Schedules are the paper's for CIFAR in proportion: 200 epochs with a step at 60 became 60 with a step at 18.",
    ),
    run=run,
    minutes=4,
    baseline="alone",
    own_teacher="none",
    why={
        "size": "The teachers of 128 and of 512 units answer so much alike that their students differ by less than "
        ".2 points: neither the paper's fall nor its opposite.",
        "short": "Fifteen epochs with a step at the fifth leave the biggest teacher short of the long one by far "
        "more than in the paper, whose short schedule still has 50 epochs of CIFAR's 50,000 rows; here its students "
        "follow a teacher that has not learned enough.",
        "size, glyphs": "As on garments: the two teachers differ by half a point, and their students by less.",
        "eskd, glyphs": "ESKD is above KD by half a point, and the interval ends just below none.",
        "short, glyphs": "The short schedule's students are below by .7 points, which eight seeds do not tell from "
        "none.",
    },
)
