"""Lukasik et al. 2021: distillation helps the mean and can hurt the worst classes; trust by class gives it back."""

from typing import Any

import numpy as np

from kdcache.pipelines.studies.bench import Arms, Bench
from kdcache.pipelines.studies.claims import Claim, Findings
from kdcache.pipelines.studies.study import Study

ROWS, EPOCHS, IMBALANCE = 20_000, 40, 100.0
FEWEST = 5  # rows of the rarest class
ORDER = [4, 8, 5, 1, 7, 9, 3, 0, 2, 6]  # of Fashion-MNIST's classes, from head to tail
MEASURES = ("accuracy", "worst_3_classes", "worst_class")
CLAIMS = {
    "mean": Claim("KD is above labels alone in the mean over classes"),
    "hurts": Claim("KD is below labels alone in its three worst classes"),
    "restores": Claim("AdaAlpha is above KD in the three worst classes"),
    "labels": Claim("AdaAlpha is above labels alone in the three worst classes"),
    "keeps": Claim("AdaAlpha is not below KD in the mean", direction="not below", margin=0.005),
}


def run(bench: Bench) -> Findings:
    order = {"imbalance_order": ORDER} if bench.data.train.classes == len(ORDER) else {}
    smallest = int(np.bincount(bench.data.train.labels).min())
    ratio = 4.0 if bench.settings.toy else min(IMBALANCE, max(smallest // FEWEST, 2))
    tail: dict[str, Any] = {"imbalance": ratio, **order}
    teachers = bench.teachers(bench.mlp(256, depth=2), ROWS, EPOCHS, part=tail)
    taught = {"store": bench.stores(teachers, bench.data.part(ROWS, **tail)), "temperature": 2.0}
    arms: Arms = {
        "alone": {},
        "kd": taught,
        "AdaAlpha": {**taught, "trust": bench.stores(teachers, bench.data.held_out())},
    }
    runs = bench.students(arms, bench.mlp(32), ROWS, EPOCHS, part=tail, batch_size=128)
    values = bench.compared(runs, bench.stores(teachers, bench.data.test_set), MEASURES)
    alone, kd, adaptive = values["alone"], values["kd"], values["AdaAlpha"]
    return Findings(
        arms=values,
        notes=(f"the rarest class keeps 1 row in {ratio:g} of the commonest",),
        evidence={
            "mean": kd["accuracy"] - alone["accuracy"],
            "hurts": alone["worst_3_classes"] - kd["worst_3_classes"],
            "restores": adaptive["worst_3_classes"] - kd["worst_3_classes"],
            "labels": adaptive["worst_3_classes"] - alone["worst_3_classes"],
            "keeps": adaptive["accuracy"] - kd["accuracy"],
        },
    )


STUDY = Study(
    name="lukasik",
    row=5,
    title="Teacher's pet: understanding and mitigating biases in distillation",
    paper="Lukasik et al. 2021, arXiv 2106.10494",
    question="KD lifts the mean and not the worst classes; trust by class restores these",
    claims=CLAIMS,
    differences=(
        "The paper's networks are ResNets on long-tailed CIFAR and ImageNet; here perceptrons on {data}, "
        "of which classes keep from 1 in 1 to 1 in 100 of their rows.",
        "AdaAlpha's form is ours after the abstract; a class's trust is the teacher's mean margin on held-out rows.",
        "AdaMargin is left out: its form is not known to us.",
    ),
    run=run,
    minutes=3,
    fewest_classes=4,
    baseline="kd",
    measure="worst_3_classes",
    own_teacher="untrained",
    why={
        "hurts": "The teacher, which learned from the same rows, knows the rare classes better than a student of "
        "32 units does alone, and so KD lifts them too; the paper's students are nearer to their "
        "teachers in size.",
    },
)
