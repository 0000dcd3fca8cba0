"""Pham et al. 2022: a network that learns from one of its own kind passes it, and lies in a flatter minimum."""

from typing import Any

from kdcache.pipelines.studies.bench import Arms, Bench, BySeed
from kdcache.pipelines.studies.claims import Claim, Findings, Values
from kdcache.pipelines.studies.study import Study

ROWS, EPOCHS, NOISE = 2_000, 60, 0.3
ROUNDS = 2
CLAIMS = {
    "first": Claim("clean labels: the first round is above its teacher", paper="in all settings"),
    "second": Claim("clean labels: the second round is above the first teacher"),
    "noisy_first": Claim("30 % random labels: the first round is above its teacher"),
    "noisy_second": Claim("30 % random labels: the second round is above the first"),
    "flatter": Claim("clean labels: the first round's largest Hessian eigenvalue is below its teacher's", points=False),
    "noisy_flatter": Claim("30 % random labels: likewise", points=False),
    "ensemble": Claim("clean labels: an ensemble of two teachers makes a better student than self-distillation"),
}


def run(bench: Bench) -> Findings:
    accuracy: dict[str, Values] = {}
    sharpness: dict[str, Values] = {}
    whole: dict[str, Any] = {"set": {"w_ce": 0.0, "w_kd": 1.0}, "temperature": 1.0}
    for label, noise in (("clean", 0.0), ("noisy", NOISE)):
        part: dict[str, Any] = {"noise": noise} if noise else {}
        network, rows = bench.mlp(128), bench.data.part(ROWS, **part)
        plain: Arms = {f"{label}, teacher": {}}
        runs = bench.students(plain, network, ROWS, EPOCHS, part=part)
        first = store = bench.stores(bench.as_teachers(runs[f"{label}, teacher"]), rows)
        for number in range(1, ROUNDS + 1):
            arm: Arms = {f"{label}, round {number}": {**whole, "store": store}}
            runs |= bench.students(arm, network, ROWS, EPOCHS, another=number, part=part)
            if number < ROUNDS:
                store = bench.stores(bench.as_teachers(runs[f"{label}, round {number}"]), rows)
        if not noise:
            others = BySeed((*first[1:], first[0]))  # the teacher of the next seed
            both: Arms = {"clean, of two": {**whole, "store": (first, others)}}
            runs |= bench.students(both, network, ROWS, EPOCHS, another=1)
        accuracy |= bench.validated(runs)
        test = bench.stores(bench.as_teachers(runs[f"{label}, teacher"])[:1], bench.data.test_set)
        flat = {name: runs[name] for name in (f"{label}, teacher", f"{label}, round 1")}
        measured = bench.compared(flat, test, ("sharpness",), also=("sharpness",))
        sharpness |= {name: measures["sharpness"] for name, measures in measured.items()}
    return Findings(
        arms={
            arm: {"accuracy": values, **({"sharpness": sharpness[arm]} if arm in sharpness else {})}
            for arm, values in accuracy.items()
        },
        evidence={
            "first": accuracy["clean, round 1"] - accuracy["clean, teacher"],
            "second": accuracy["clean, round 2"] - accuracy["clean, teacher"],
            "noisy_first": accuracy["noisy, round 1"] - accuracy["noisy, teacher"],
            "noisy_second": accuracy["noisy, round 2"] - accuracy["noisy, round 1"],
            "flatter": sharpness["clean, teacher"] - sharpness["clean, round 1"],
            "noisy_flatter": sharpness["noisy, teacher"] - sharpness["noisy, round 1"],
            "ensemble": accuracy["clean, of two"] - accuracy["clean, round 1"],
        },
    )


STUDY = Study(
    name="pham",
    row=6,
    title="Revisiting Self-Distillation",
    paper="Pham et al. 2022, arXiv 2206.08491",
    question="a student of its own kind passes its teacher and is flatter",
    claims=CLAIMS,
    differences=(
        "The paper self-distils ResNets and VGG on CIFAR and more; here a perceptron of 128 units on 2,000 rows of "
        "{data}, which all rounds see.",
        "The paper's labels are clean; label noise is ours, for there a teacher can be passed.",
        "The student of two teachers has that of the next seed beside its own, so its seeds are not independent.",
        "Sharpness is the Hessian's largest eigenvalue of the cross-entropy on 512 test rows.",
    ),
    run=run,
    minutes=3,
    baseline="clean, teacher",
    own_teacher="none",
    why={
        "first": "The loss is the teacher's answer alone, at T = 1, and a perceptron that has fitted 2,000 clean rows "
        "answers there as its labels do: a round copies it with a small loss. Where labels are noisy, and a teacher "
        "knows better than they, both rounds gain.",
        "second": "Each round copies the one before it and loses a little more; see above.",
        "flatter": "Sharpness is that of the cross-entropy on test rows, where a student that is right as often and "
        "surer curves more; on training rows, or of the loss that was learned, the order may be another.",
        "noisy_flatter": "The student is right more often than its teacher and still the sharper of the two on test "
        "rows; see above.",
        "ensemble": "Two teachers that saw the same rows differ little: their student is above that of one by .02 "
        "points.",
    },
)
